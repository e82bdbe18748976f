"""Where the people are: a file of boxes, YOLO, the built-in MoveNet, or the whole image."""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from scipy.optimize import linear_sum_assignment

from configs.schema import DetectionConfig
from main.motion.results import as_given
from main.motion.rows import Keypoints
from main.pipeline.detector_weights import open_detector
from main.pipeline.networks import MoveNet
from main.pipeline.options import DetectorName
from models.checkpoint import DAMAGE
from utils.camera import Box, intersection_over_union
from utils.errors import UserError, first_line
from utils.files import ROOT, atomic_path, read_json, wrong_download

log = logging.getLogger(__name__)

_ROUNDING: Final = 0.05
"""Share of a frame by which times of frames at two rates may differ and still be one time."""


_MOST_DIGITS: Final = 12
"""Of the number of a frame."""
_FARTHEST: Final = 1e6
"""Pixels: larger than any image, and no number of a box has more."""
_MOST_BOXES: Final = 1000
"""In a frame: what follows takes a time that grows with their square."""


class Detection(NamedTuple):
    box: Box
    score: float
    keypoints: Keypoints | None = None
    """None: they were not looked for."""


@runtime_checkable
class Detector(Protocol):
    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        """People in frame number `index` (RGB); an empty list is a normal answer."""


class WholeImageDetector:
    """One person who fills the image."""

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        height, width = image.shape[:2]
        return [Detection(Box(0, 0, width, height), 1.0)]


class BoxFileDetector:
    """Boxes from a JSON file {"frame": [[x, y, width, height], ...]}, frames counted from 0.

    Frames are those of the result: after resampling, if a frame rate was asked for.
    """

    def __init__(self, path: str | Path, step: float = 1.0) -> None:
        """Read a file.

        Args:
            step: frames of the file for a frame of the result. Boxes are those of the last one
                that began by then.

        Raises:
            UserError: it is missing, holds no box or something else.
        """
        self.path, self.step = Path(path), step
        content = read_json(self.path, "file of boxes")
        if not isinstance(content, dict):
            raise UserError(f'{path}: expected {{"frame": [[x, y, width, height], ...]}}')
        self.boxes = {self._frame(k): self._boxes(k, v) for k, v in content.items()}
        if len(self.boxes) < len(content):  # 7 and 07
            raise UserError(f"{path}: contains a frame twice")
        if not any(self.boxes.values()):
            raise UserError(f"{path}: there is no box in it")

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        frame = math.floor(index * self.step + _ROUNDING)
        return [Detection(box, 1.0) for box in self.boxes.get(frame, [])]

    def _frame(self, key: str) -> int:
        if not key.isdecimal() or len(key) > _MOST_DIGITS:
            raise UserError(f"{self.path}: '{key[:40]}' is not a frame number")
        return int(key)

    def _boxes(self, key: str, rows: object) -> list[Box]:
        if isinstance(rows, list) and len(rows) > _MOST_BOXES:
            raise UserError(
                f"{self.path}: frame {key} has {len(rows)} boxes; at most {_MOST_BOXES} are allowed"
            )
        array = np.array(rows, dtype=object)
        numbers = all(
            isinstance(v, int | float) and v is not True and v is not False for v in array.ravel()
        )
        if array.size and (array.ndim != 2 or array.shape[1] != 4 or not numbers):
            raise UserError(f"{self.path}: frame {key} is not a list of [x, y, width, height]")
        boxes = [Box(*map(float, row)) for row in array]
        for box in boxes:
            if max(map(abs, box)) > _FARTHEST:
                raise UserError(
                    f"{self.path}: frame {key} has a box of {max(box, key=abs):g} pixels"
                )
        return boxes


def fitted(detector: Detector, first: int, reduction: int) -> Detector:
    """A detector whose frames count from `first`.

    Args:
        reduction: pixels of the image file, which boxes in a file count in, for one of the frame.
    """
    scale = reduction if isinstance(detector, BoxFileDetector) else 1

    def detect(index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        return [
            one._replace(box=Box(*(side / scale for side in one.box)))
            for one in detector(first + index, image)
        ]

    return detect if first or scale > 1 else detector


def import_ultralytics() -> ModuleType:
    """Ultralytics, kept from installing packages and from changing Pillow for everyone."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    # Descriptions of layers are then read without `eval`.
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    pillow_open = Image.open
    import ultralytics.nn.tasks

    # It puts a reader there that looks for a HEIC decoder whenever an image cannot be read.
    Image.open = pillow_open
    return ultralytics


def _fetch(path: Path) -> None:
    """Let ultralytics fetch weights that it publishes under the name of `path`."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if path.name in GITHUB_ASSETS_NAMES:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:  # what is broken off must not be taken for weights
            attempt_download_asset(partial)


class YoloDetector:
    """Ultralytics YOLO, its class of people."""

    def __init__(self, config: DetectionConfig, device: torch.device) -> None:
        ultralytics = import_ultralytics()
        path = ROOT / config.model_path
        advice = (
            f"put the weights at {path}, name others with --set inference.detection.model_path=, "
            "or do without: --detector movenet (built in), a file NAME.boxes.json beside the "
            "input, --boxes FILE.json, --detector whole-image"
        )
        try:
            if not path.exists():
                _fetch(path)
            self.predictor = open_detector(
                path,
                ultralytics,
                conf=config.conf,
                iou=config.iou_thr,
                device=device,
                verbose=False,
            )
        except (UserError, ImportError, UnpicklingError, *DAMAGE) as error:
            reason = wrong_download(path) or first_line(error)
            raise UserError(
                f"the person detector {path} cannot be used ({reason}); {advice}"
            ) from None
        self.threads = torch.get_num_threads()

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        torch.set_num_threads(self.threads)  # of this thread; the network's have their own number
        # Ultralytics takes arrays to be BGR.
        (result,) = self.predictor(np.ascontiguousarray(image[..., ::-1]))
        found = result.cpu().numpy()
        boxes = found.boxes if found.obb is None else found.obb
        corners, scores = boxes.xyxy.tolist(), boxes.conf.tolist()
        return [
            Detection(Box(x1, y1, x2 - x1, y2 - y1), score)
            for (x1, y1, x2, y2), score in zip(corners, scores, strict=True)
        ]


class MoveNetDetector:
    """The built-in detector."""

    def __init__(self, config: DetectionConfig) -> None:
        self.network = MoveNet(config.conf)

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        boxes, scores = self.network(image)
        return [
            Detection(Box(*box), score)
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]


NETWORKS: Final = (YoloDetector, MoveNetDetector)
"""Detectors that take time, and know nothing of other frames."""


def boxes_beside(path: Path) -> Path | None:
    """The file NAME.boxes.json beside a video, image or folder NAME, if there is one.

    For a link it lies beside the link, or else beside what it leads to.
    """
    for place in (as_given(path), path.resolve()):
        file = place.with_name(f"{place.name if path.is_dir() else place.stem}.boxes.json")
        if file.is_file():
            return file
    return None


class Detectors:
    """What finds the people of a source; a network is loaded once, and not before it is needed.

    "auto" is a file of boxes beside the source, else YOLO if its weights are there, else the
    built-in detector.
    """

    def __init__(
        self,
        boxes: Path | None,
        name: DetectorName,
        config: DetectionConfig,
        device: torch.device,
    ) -> None:
        """Prepare what the options ask for.

        Args:
            boxes: a file of boxes for all sources; it goes before the name.

        Raises:
            UserError: it cannot be used.
        """
        self.config, self.device = config, device
        self.network: Detector | UserError | None = None
        self.asked_for: Detector | None = None
        if boxes is not None:
            self.asked_for = BoxFileDetector(boxes)
        elif name == "whole-image":
            self.asked_for = WholeImageDetector()
        elif name != "auto":
            self.asked_for = self._load(name)

    def for_source(self, path: Path, step: float = 1.0) -> Detector:
        """What finds the people of a source.

        Args:
            step: frames of the source per frame of the result; files beside a source count the
                source's own frames.

        Raises:
            UserError: the file of boxes or the detector cannot be used.
        """
        if self.asked_for is not None:
            return self.asked_for
        if (file := boxes_beside(path)) is not None:
            log.info("people: boxes of %s", file)
            return BoxFileDetector(file, step)
        return self._load("yolo" if (ROOT / self.config.model_path).exists() else "movenet")

    def _load(self, name: Literal["yolo", "movenet"]) -> Detector:
        """Load a network at the first call; an error is raised again at every further one."""
        if self.network is None:
            try:
                if name == "yolo":
                    self.network = YoloDetector(self.config, self.device)
                    log.info("people: YOLO, %s", self.config.model_path)
                else:
                    self.network = MoveNetDetector(self.config)
                    log.info(
                        "people: the built-in detector (MoveNet); YOLO is used where its weights "
                        "are at %s, which --detector yolo downloads",
                        self.config.model_path,
                    )
            except UserError as error:
                self.network = error
        if isinstance(self.network, UserError):
            raise self.network
        return self.network


def pairs(first: Sequence[Box], second: Sequence[Box], least: float) -> list[tuple[int, int]]:
    """Numbers of boxes that belong together: the most overlap in all, each at least `least`."""
    if not first or not second:
        return []
    overlap = intersection_over_union(np.array(first, np.float64), np.array(second, np.float64))
    chosen = zip(*linear_sum_assignment(-overlap), strict=True)
    return [(int(a), int(b)) for a, b in chosen if overlap[a, b] >= least]

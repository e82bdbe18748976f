"""Person detectors: a file of boxes, YOLO, the built-in MoveNet, or the whole image."""

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
from main.motion.result_names import as_given
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
"""Fraction of a frame by which equal times may differ after conversion between frame rates."""
_MAX_DIGITS: Final = 12
"""Largest number of digits of a frame number."""
_MAX_PX: Final = 1e6
"""Largest absolute value of a box's numbers, in pixels."""
_MAX_BOXES: Final = 1000
"""Largest number of boxes in a frame; the time for later steps grows with its square."""


class Detection(NamedTuple):
    box: Box
    score: float
    keypoints: Keypoints | None = None
    """None: not searched for."""


@runtime_checkable
class Detector(Protocol):
    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        """The people in frame number `index` (RGB), of whom there may be none."""


class WholeImageDetector:
    """Returns one person whose box is the whole image."""

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        height, width = image.shape[:2]
        return [Detection(Box(0, 0, width, height), 1.0)]


class BoxFileDetector:
    """Boxes from a JSON file {"frame": [[x, y, width, height], ...]}, with frames from 0.

    Frames are those of the result, that is, after a change of the frame rate.
    """

    def __init__(self, path: str | Path, step: float = 1.0) -> None:
        """Read a file.

        Args:
            step: number of frames of the file per frame of the result, which gets the boxes of the
                last frame that has begun.

        Raises:
            UserError: the file is missing, has no boxes or another format.
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
        if not key.isdecimal() or len(key) > _MAX_DIGITS:
            raise UserError(f"{self.path}: '{key[:40]}' is not a frame number")
        return int(key)

    def _boxes(self, key: str, rows: object) -> list[Box]:
        if isinstance(rows, list) and len(rows) > _MAX_BOXES:
            raise UserError(
                f"{self.path}: frame {key} has {len(rows)} boxes; at most {_MAX_BOXES} are allowed"
            )
        array = np.array(rows, dtype=object)
        numbers = all(type(value) in (int, float) for value in array.ravel())
        if array.size and (array.ndim != 2 or array.shape[1] != 4 or not numbers):
            raise UserError(f"{self.path}: frame {key} is not a list of [x, y, width, height]")
        boxes = [Box(*map(float, row)) for row in array]
        for box in boxes:
            if max(map(abs, box)) > _MAX_PX:
                raise UserError(
                    f"{self.path}: frame {key} has a box of {max(box, key=abs):g} pixels"
                )
        return boxes


def fitted(detector: Detector, first: int, reduction: int) -> Detector:
    """A detector for frames that a file of boxes numbers from `first`.

    Args:
        reduction: size of a frame's pixel in pixels of the image file, which boxes refer to.
    """
    if not isinstance(detector, BoxFileDetector) or (first, reduction) == (0, 1):
        return detector

    def detect(index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        return [
            one._replace(box=Box(*(side / reduction for side in one.box)))
            for one in detector(first + index, image)
        ]

    return detect


def import_ultralytics() -> ModuleType:
    """Import ultralytics, but prevent it from installing packages and changing Pillow."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    # With this setting, it reads descriptions of layers without `eval`.
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    pillow_open = Image.open
    import ultralytics.nn.tasks

    # Its own function searches for a HEIC decoder whenever an image cannot be read.
    Image.open = pillow_open
    return ultralytics


def _fetch(path: Path) -> None:
    """Download weights that ultralytics publishes under the name of `path`."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if path.name in GITHUB_ASSETS_NAMES:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:  # an incomplete download must not be used
            attempt_download_asset(partial)


class YoloDetector:
    """A network of ultralytics, such as YOLO; only the class of people is used."""

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
        torch.set_num_threads(self.threads)  # of this thread; other networks use different numbers
        # Ultralytics expects BGR.
        (result,) = self.predictor(np.ascontiguousarray(image[..., ::-1]))
        found = result.cpu().numpy()
        boxes = found.boxes if found.obb is None else found.obb
        corners, scores = boxes.xyxy.tolist(), boxes.conf.tolist()
        return [
            Detection(Box(x1, y1, x2 - x1, y2 - y1), score)
            for (x1, y1, x2, y2), score in zip(corners, scores, strict=True)
        ]


class MoveNetDetector:
    """The built-in detector, MoveNet."""

    def __init__(self, config: DetectionConfig) -> None:
        self.network = MoveNet(config.conf)

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        boxes, scores = self.network(image)
        return [
            Detection(Box(*box), score)
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]


NETWORKS: Final = (YoloDetector, MoveNetDetector)
"""Detectors that are slow and treat each frame independently."""


def boxes_beside(path: Path) -> Path | None:
    """The file NAME.boxes.json beside a video, image or folder NAME, if there is one.

    For a link, it lies beside the link or else beside its target.
    """
    for place in (as_given(path), path.resolve()):
        file = place.with_name(f"{place.name if path.is_dir() else place.stem}.boxes.json")
        if file.is_file():
            return file
    return None


class Detectors:
    """Chooses the detector for each source; a network is loaded once, when it is first needed.

    "auto" is a file of boxes beside the source, else YOLO if its weights are present, else the
    built-in detector.
    """

    def __init__(
        self,
        boxes: Path | None,
        name: DetectorName,
        config: DetectionConfig,
        device: torch.device,
    ) -> None:
        """Prepare the detector that the options name.

        Args:
            boxes: a file of boxes for all sources, which takes precedence over `name`.

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
            step: frames of the source per frame of the result; files beside a source number the
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
        """Load the network at the first call; an error is raised again at later calls."""
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
    """Numbers of boxes that match, with the largest total overlap; each has at least `least`."""
    if not first or not second:
        return []
    overlap = intersection_over_union(np.array(first, np.float64), np.array(second, np.float64))
    chosen = zip(*linear_sum_assignment(-overlap), strict=True)
    return [(int(a), int(b)) for a, b in chosen if overlap[a, b] >= least]

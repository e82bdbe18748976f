"""Options of inference, checked on construction."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from main.characters.options import check_formats
from utils.errors import UserError

Backend = Literal["torch", "onnx", "compile", "cuda-graphs"]
OverlayMode = Literal["mesh", "vertices", "skeleton", "keypoints"]
DetectorName = Literal["auto", "yolo", "movenet", "whole-image"]
CameraChoice = Literal["auto", "static", "rotating", "moving"]
BUILT_IN: Final = "built-in"
"""Value of `keypoints` for the built-in networks instead of a file."""
Chosen = tuple[int, ...] | Literal["largest"]
"""Numbers of people, or the person whose boxes have the largest total area."""

_MAX_SMOOTHING: Final = 20.0
_SMOOTHING_ADVICE: Final = f"give auto, off, or a number from 0 to {_MAX_SMOOTHING:g} (1 is auto)"


@dataclass(frozen=True)
class InferenceOptions:
    """Options of inference; docs/inference.md describes the flags.

    Attributes:
        smoothing: factor of the default smoothing of videos; 0: none.

    Raises:
        UserError: a value is out of range, or two options contradict each other.
    """

    model_dir: str
    device: str = "auto"
    precision: str = "fp32"
    backend: Backend = "torch"
    overrides: tuple[str, ...] = ()
    download: bool = False
    batch_size: int | None = None
    fps: float | None = None
    boxes: Path | None = None
    detector: DetectorName = "auto"
    keypoints: Path | Literal["built-in"] | None = None
    refine: bool | None = None
    person: Chosen | None = None
    keep_longest: int | None = None
    preview: bool = False
    reuse: bool = False
    smoothing: float = 1.0
    focal_px: float | None = None
    fov_deg: float | None = None
    camera: CameraChoice = "auto"
    world: bool = False
    overlay: OverlayMode | None = "mesh"
    export: tuple[str, ...] = ()

    @property
    def wants_keypoints(self) -> bool:
        """Whether keypoints are searched for or read, and written."""
        return self.keypoints is not None or self.overlay == "keypoints"

    def __post_init__(self) -> None:
        for name, count in (("batch-size", self.batch_size), ("keep-longest", self.keep_longest)):
            if count is not None and count < 1:
                raise UserError(f"--{name} {count}: give 1 or more")
        if self.reuse and (self.boxes or self.preview or isinstance(self.keypoints, Path)):
            raise UserError(
                "--reuse takes boxes and keypoints from the result: leave out --boxes, --preview "
                "and files of --keypoints"
            )
        if isinstance(self.person, tuple) and min(self.person, default=0) < 1:
            raise UserError("--person: people are numbered from 1")
        if not 0 <= self.smoothing <= _MAX_SMOOTHING:
            raise UserError(f"--smooth {self.smoothing:g}: {_SMOOTHING_ADVICE}")
        if self.fps is not None:
            from utils.video_read import FASTEST_FPS, SLOWEST_FPS  # imports PyAV

            if not SLOWEST_FPS <= self.fps <= FASTEST_FPS:
                allowed = f"{SLOWEST_FPS:.5f} to {FASTEST_FPS}"
                raise UserError(f"--fps {self.fps:g}: give a rate from {allowed}")
        if self.focal_px is not None and self.fov_deg is not None:
            raise UserError("--focal and --fov: give only one of them")
        if self.focal_px is not None and not 1 <= self.focal_px <= 1e6:
            raise UserError(f"--focal {self.focal_px:g}: give a focal length of 1 to 1e6 pixels")
        if self.fov_deg is not None and not 0.1 <= self.fov_deg <= 179:
            raise UserError(f"--fov {self.fov_deg:g}: give an angle of 0.1 to 179 degrees")
        if self.camera != "auto" and not self.world:
            raise UserError(f"--camera {self.camera} needs --world; give both or neither")
        if self.export:
            check_formats(self.export)


def parse_person(text: str) -> Chosen:
    """Parse --person: "largest", or numbers as in "1,3".

    Raises:
        UserError: it is neither.
    """
    if text == "largest":
        return "largest"
    numbers = [number.strip() for number in text.split(",")]
    # \d would match digits of other alphabets, and int() rejects numbers of thousands of digits.
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", number) for number in numbers):
        raise UserError(f"--person {text[:40]}: give largest, or numbers from 1, as in 1,3")
    return tuple(map(int, numbers))


def parse_smoothing(text: str) -> float:
    """Parse --smooth: a factor of the default smoothing, whose range `InferenceOptions` checks.

    Raises:
        UserError: it is neither auto, off nor a number.
    """
    if text in ("auto", "off"):
        return float(text == "auto")
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--smooth {text}: {_SMOOTHING_ADVICE}") from None

"""The small networks that ship with the project: a person detector, and keypoints of parts.

What each takes and gives, where it comes from and its licence: pretrained_models/people/README.md.
They run in onnxruntime on the CPU, each call in the thread of its caller. Batches gain nothing:
hands, feet and faces take 0 to 5 % less each in batches of two or four, so people are taken in
parallel instead.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from utils.errors import UserError, first_line
from utils.files import ROOT, require_regular_file

FOLDER: Final = ROOT / "pretrained_models" / "people"


@cache
def _session(path: Path) -> Any:
    require_regular_file(path)
    onnxruntime = import_module("onnxruntime")  # takes long to import
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SmallNetwork:
    """One of the networks, by the name of its file; its input is a batch of one square image."""

    def __init__(self, name: str) -> None:
        """Load it, once per process.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = FOLDER / f"{name}.onnx"
        try:
            self._session = _session(path)
        except Exception as error:  # onnxruntime's errors have no common class
            reason = first_line(error)
            message = f"{path} cannot be used ({reason}); restore it from the repository"
            raise UserError(message) from None
        (given,) = self._session.get_inputs()
        self._input = given.name
        self._type = np.int32 if "int32" in given.type else np.float32
        self.side: int = given.shape[1]
        """Pixels of the input."""
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, pixels: UInt8[np.ndarray, "S S 3"]) -> list[Float[np.ndarray, "..."]]:
        """The outputs in the file's order, for an RGB image."""
        batch: np.ndarray = pixels[None].astype(self._type)
        if self._type is np.float32:
            batch = batch / np.float32(255)
        outputs: list[np.ndarray] = self._session.run(self._outputs, {self._input: batch})
        return outputs


class Square(NamedTuple):
    """A square that is cut out of an image, turned clockwise by `angle` radians."""

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    def to_crop(self, pixels: int) -> Float[np.ndarray, "2 3"]:
        """The affine map from pixels of the image to those of a crop with that many a side."""
        scale = pixels / self.side
        cosine, sine = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.column_stack([turn, pixels / 2 - turn @ self.center])

    def cut(self, image: UInt8[np.ndarray, "H W 3"], pixels: int) -> UInt8[np.ndarray, "S S 3"]:
        """The square of an image, black outside."""
        size = (pixels, pixels)
        return cv2.warpAffine(image, self.to_crop(pixels), size, flags=cv2.INTER_LINEAR)

    def in_image(self, points: Float[np.ndarray, "N 2"], pixels: int) -> Float[np.ndarray, "N 2"]:
        """Points of a crop in pixels of the image."""
        matrix = self.to_crop(pixels)
        return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    @property
    def is_usable(self) -> bool:
        """All its numbers are finite, and it has an area."""
        return bool(np.isfinite([*self.center, self.side, self.angle]).all() and self.side > 1)

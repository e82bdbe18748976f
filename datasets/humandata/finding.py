"""What a check of a HumanData file finds, and the file as the checks see it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from datasets.humandata.entries import entry_names
from datasets.humandata.file import HumanDataFile
from datasets.humandata.layout import FAMILIES, JOINTS, is_list, mask_names
from utils.errors import UserError

Severity = Literal["error", "warning", "info"]
"""error: a loader fails or trains on something wrong; warning: rows are lost, or it looks wrong."""

_SHOWN_ROWS: Final = 5
_LARGE_BYTES: Final = 32_000_000
_LARGE_REMEMBERED: Final = 2
"""Large entries kept in memory: a keypoint array is gigabytes, and two are compared."""


@dataclass(frozen=True)
class Finding:
    severity: Severity
    entry: str
    what: str
    advice: str = ""
    rows: int = 0
    """How many rows it concerns; 0 where it concerns the file."""
    first_rows: tuple[int, ...] = ()


def on_rows(
    severity: Severity, entry: str, bad: Bool[np.ndarray, " N"], what: str, advice: str
) -> Iterator[Finding]:
    """A finding if any row is marked."""
    rows = np.flatnonzero(bad)
    if len(rows):
        first = tuple(rows[:_SHOWN_ROWS].tolist())
        yield Finding(severity, entry, what, advice, len(rows), first)


class OpenedFile:
    """Entries of a file, of which any may be wrong: those that are not as they should be are None.

    Why they are None is told by the checks of the layout.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError where the container cannot be read."""
        self.path = path
        self.names = entry_names(path)
        self._file = HumanDataFile(path)
        self.unreadable: dict[str, str] = {}
        self._remembered: dict[str, Any] = {}
        row_entries = (self.get(key) for key in ("image_path", "bbox_xywh"))
        self.length = next((len(value) for value in row_entries if is_list(value)), 0)

    def get(self, key: str) -> Any:
        """None where the file has no such entry, an empty one, or one that cannot be read."""
        if key not in self._remembered:
            self._remembered[key] = self._read(key)
            large = [k for k, value in self._remembered.items() if _is_large(value)]
            for forgotten in large[:-_LARGE_REMEMBERED]:
                del self._remembered[forgotten]
        return self._remembered[key]

    def _read(self, key: str) -> Any:
        if key not in self.names:
            return None
        try:
            return self._file.get(key)
        except UserError as error:
            self.unreadable[key] = str(error)
            return None

    def dictionary(self, key: str) -> Mapping[str, Any]:
        value = self.get(key)
        return value if isinstance(value, Mapping) else {}

    def find(self, entry: str) -> Any:
        """An entry by its dotted name: "bbox_xywh", "smplx.betas"."""
        key, _, name = entry.partition(".")
        return self.dictionary(key).get(name) if name else self.get(key)

    def numbers(self, entry: str) -> Float32[np.ndarray, "N ..."] | None:
        """An entry that has a row of numbers a person; None if it is absent or has not."""
        array = as_numbers(self.find(entry))
        return array if array is not None and array.shape[:1] == (self.length,) else None

    def parameters(self) -> Iterator[str]:
        """Dotted names of all body parameters."""
        for family in FAMILIES:
            yield from (f"{family}.{name}" for name in self.dictionary(family))

    def boxes(self, key: str) -> Float32[np.ndarray, "N 5"] | None:
        boxes = self.numbers(key)
        if boxes is None or boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            return None
        return np.pad(boxes, [(0, 0), (0, 5 - boxes.shape[1])], constant_values=1)

    @property
    def image_size(self) -> Float32[np.ndarray, "N 2"]:
        """Width and height in pixels; zero where unknown."""
        sides = [self.numbers(f"meta.{name}") for name in ("width", "height")]
        whole = [
            np.zeros(self.length, np.float32)
            if side is None or side.size != self.length
            else np.nan_to_num(side.reshape(-1))
            for side in sides
        ]
        return np.stack(whole, axis=1)

    def camera(self, name: str) -> Float[np.ndarray, "N 2"] | None:
        """focal_length or principal_point in pixels, of the rows or of the whole file."""
        of_rows = self.numbers(f"meta.{name}")
        if of_rows is not None and of_rows.shape in ((self.length, 2), (self.length, 1)):
            return np.broadcast_to(of_rows, (self.length, 2))
        misc = self.dictionary("misc")
        of_file = as_numbers(misc.get(name, misc.get(_OTHER_NAMES[name])))
        if of_file is None or of_file.size not in (1, 2):
            return None
        return np.broadcast_to(of_file.reshape(-1), (self.length, 2))

    def mask(self, key: str) -> np.ndarray | None:
        """The mask of a keypoint array, of whatever length."""
        for name in mask_names(key):
            mask = self.get(name)
            if mask is not None:
                return np.asarray(mask)
        return None

    def keypoints(
        self, key: str
    ) -> tuple[Float32[np.ndarray, "N 190 D"], Bool[np.ndarray, "190"]] | None:
        """All joints of an array and which of them it has; None where its mask does not fit."""
        points = self.numbers(key)
        if points is None or points.ndim != 3 or points.shape[1] > JOINTS:
            return None
        stored, mask = points.shape[1], self.mask(key)
        present = np.arange(stored)
        if mask is not None and len(mask) != stored:
            present = np.flatnonzero(mask == 1)
        if len(present) != stored or present.max(initial=0) >= JOINTS:
            return None
        whole = np.zeros((self.length, JOINTS, points.shape[2]), np.float32)
        whole[:, present] = points
        exists = np.zeros(JOINTS, bool)
        exists[present] = True if mask is None or len(mask) != stored else mask == 1
        return whole, exists


_OTHER_NAMES: Final = {"focal_length": "focal_length", "principal_point": "princpt"}


def _is_large(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.nbytes > _LARGE_BYTES


def as_numbers(value: Any) -> Float32[np.ndarray, "..."] | None:
    """Numbers as an array; None if the value is absent, has others than numbers, or is uneven."""
    if value is None or isinstance(value, Mapping | str):
        return None
    try:
        return np.asarray(value, np.float32)
    except (ValueError, TypeError):
        return None

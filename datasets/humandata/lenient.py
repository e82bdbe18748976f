"""Reads HumanData files that may have errors, for checks and statistics."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Float32

from datasets.humandata.file import (
    FAMILIES,
    JOINTS,
    HumanDataFile,
    as_numbers,
    expanded,
    is_list,
    stated_flat_hands,
)
from utils.errors import UserError

_LARGE_BYTES: Final = 32_000_000
_LARGE_REMEMBERED: Final = 2
"""Large entries kept in memory: keypoint arrays have gigabytes, and two are compared."""
_OTHER_NAMES: Final = {"focal_length": "focal_length", "principal_point": "princpt"}
"""Names in `misc` of the camera of a whole file."""


class LenientFile(HumanDataFile):
    """A file whose invalid entries are None; `check_layout` reports why."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.unreadable: dict[str, str] = {}
        self._remembered: dict[str, Any] = {}
        row_entries = (self.get(key) for key in ("image_path", "bbox_xywh"))
        self.length = next((len(value) for value in row_entries if is_list(value)), 0)

    def get(self, key: str) -> Any:
        """None if the file has no such entry, an empty one, or one that cannot be read."""
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
            return super().get(key)
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
        """An entry that has one row of numbers per person; None if it is absent or invalid."""
        array = as_numbers(self.find(entry))
        fits = array is not None and self.length and array.shape[:1] == (self.length,)
        return array if fits else None

    def known_numbers(
        self, entries: Iterable[str]
    ) -> Iterator[tuple[str, Float32[np.ndarray, "N ..."]]]:
        """The valid entries that have one row of numbers per person, with their names."""
        for entry in entries:
            values = self.numbers(entry)
            if values is not None:
                yield entry, values

    def flat_hands(self) -> Bool[np.ndarray, " N"] | None:
        """flat_hand_mean of each row (`stated_flat_hands`)."""
        entries = {key: self.dictionary(key) for key in (*FAMILIES, "misc")}
        return stated_flat_hands({**entries, "image_path": range(self.length)})

    def parameters(self) -> Iterator[str]:
        """Dotted names of all body parameters."""
        for family in FAMILIES:
            yield from (f"{family}.{name}" for name in self.dictionary(family))

    def image_paths(self) -> np.ndarray | None:
        """One text per row; None if the entry is invalid."""
        value = self.get("image_path")
        if not is_list(value) or len(value) != self.length:
            return None
        return np.array(value) if all(isinstance(path, str) for path in value) else None

    def boxes(self, key: str) -> Float32[np.ndarray, "N 5"] | None:
        boxes = self.numbers(key)
        if boxes is None or boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            return None
        return np.pad(boxes, [(0, 0), (0, 5 - boxes.shape[1])], constant_values=1)

    @property
    def image_size(self) -> Float32[np.ndarray, "N 2"]:
        """Width and height in pixels; zero where unknown."""
        sides = [self.numbers(f"meta.{name}") for name in ("width", "height")]
        columns = [
            np.zeros(self.length, np.float32)
            if side is None or side.size != self.length
            else np.nan_to_num(side.reshape(-1))
            for side in sides
        ]
        return np.stack(columns, axis=1)

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

    def keypoints(
        self, key: str
    ) -> tuple[Float32[np.ndarray, "N 190 D"], Bool[np.ndarray, "190"]] | None:
        """All joints of an array, and which of them exist; None if its mask does not fit."""
        points = self.numbers(key)
        if points is None or points.ndim != 3 or points.shape[1] > JOINTS:
            return None
        mask = self.mask(key)
        try:
            present, _ = self.stored_joints(key, points.shape[1])
        except UserError:
            return None
        if present.max(initial=0) >= JOINTS:
            return None
        exists = np.zeros(JOINTS, bool)
        exists[present] = True if mask is None else mask[present] == 1
        return expanded(points, present, JOINTS), exists


def _is_large(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.nbytes > _LARGE_BYTES

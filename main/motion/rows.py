"""Rows of all people and frames, in memory-mapped files on the disk.

`RawRows` hold the network's estimates of each frame, `FinalRows` the result for the whole clip.
Memory does not grow with the length of a video: readers get copies of some rows or of one column,
and the pages of the file are released after use.
"""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

BODY_PARAMETERS: Final = {
    "global_orient": (3,),
    "body_pose": (63,),
    "left_hand_pose": (45,),
    "right_hand_pose": (45,),
    "jaw_pose": (3,),
    "betas": (10,),
    "expression": (10,),
    "transl": (3,),
}
PARAMETERS: Final = {**BODY_PARAMETERS, "focal": (2,), "princpt": (2,)}
"""Names and shapes of the network's parameters, and of the camera they refer to."""
ROTATIONS: Final = tuple(name for name in PARAMETERS if name.endswith(("_orient", "_pose")))
COLUMNS: Final = {
    **PARAMETERS,
    "box_xywh": (4,),
    "joints_3d_m": (137, 3),
    "joints_2d_px": (137, 2),
}
"""Final values in a result file for each frame, in the clip's camera."""
RAW_COLUMNS: Final = {f"raw_{name}": shape for name, shape in PARAMETERS.items()}
"""The parameters as the network estimated them, in the cameras of the crops."""
FLAGS: Final = {
    "truncation": "<f4",
    "occlusion": "<f4",
    "interpolated": "?",
    "out_of_range": "?",
}

KEYPOINT_COLUMNS: Final = {
    "keypoints_px": (137, 2),
    "keypoint_score": (137,),
    "keypoint_depth_m": (137,),
}
"""Joints that were found in the image; 0: unknown. Only some results have these columns."""


class KeypointSource(IntEnum):
    """Network or file that a keypoint comes from, on which its accuracy depends."""

    UNKNOWN = 0
    BODY = 1
    FEET = 2
    HAND = 3
    FACE = 4
    FILE = 5


class Keypoints(NamedTuple):
    """Joints of a person in an image, in the order of `human_models.joints.JOINTS`."""

    px: Float[np.ndarray, "137 2"]
    score: Float[np.ndarray, "137"]
    """From 0 to 1; 0: unknown."""
    depth_m: Float[np.ndarray, "137"]
    """Depth relative to the middle of the hips; 0: unknown."""
    source: UInt8[np.ndarray, "137"]
    """The `KeypointSource` of each joint."""

    @classmethod
    def unknown(cls) -> "Keypoints":
        return cls(np.zeros((137, 2)), np.zeros(137), np.zeros(137), np.zeros(137, np.uint8))

    def enter(
        self,
        places: Sequence[int],
        px: Float[np.ndarray, "N 2"],
        score: Float[np.ndarray, " N"],
        source: KeypointSource,
    ) -> None:
        """Set joints by their numbers, where the score is above 0 and all values are finite."""
        known = (score > 0) & np.isfinite(score) & np.isfinite(px).all(axis=1)
        joints = np.asarray(places)[known]
        self.px[joints], self.score[joints] = px[known], np.minimum(score[known], 1)
        self.source[joints] = source

    def write(self, row: np.void) -> None:
        """Write the keypoints into a row of `RAW_ROW`."""
        for name, values in zip((*KEYPOINT_COLUMNS, "keypoint_source"), self, strict=True):
            row[name] = values


PLACED: Final = {"placed_orient": (3,), "placed_pelvis_m": (3,), "truncation": ()}
"""A raw estimate in the clip's camera: orientation, pelvis, fraction outside the image."""
RAW_ROW: Final = np.dtype(
    [("track", "<i4"), ("frame_index", "<i4"), ("score", "<f4"), ("box_xywh", "<f4", (4,))]
    + [(name, "<f4", shape) for name, shape in PARAMETERS.items()]
    + [("joints_2d_px", "<f4", (137, 2))]
    + [(name, "<f4", shape) for name, shape in (PLACED | KEYPOINT_COLUMNS).items()]
    + [("keypoint_source", "u1", (137,))]
)
"""One person in one frame as estimated, in the camera of the crop and in that of the clip."""
FINAL_ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4"), ("score", "<f4")]
    + [(name, "<f4", shape) for name, shape in (COLUMNS | RAW_COLUMNS | KEYPOINT_COLUMNS).items()]
    + list(FLAGS.items())
)
"""One person in one frame with the values of the result files."""
WORLD_COLUMNS: Final = {
    "world_global_orient": (3,),
    "world_body_pose": (63,),
    "world_transl": (3,),
    "world_joints_3d_m": (137, 3),
    "world_from_camera": (4, 4),
    "camera_zoom": (),
    "camera_confidence": (),
}
"""Values that `main.motion.world` adds, in a world frame that does not move with the camera."""
WORLD_ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4")]
    + [(name, "<f4", shape) for name, shape in WORLD_COLUMNS.items()]
    + [("foot_contact", "?", (4,))]
)
"""World values for the final row of the same number."""
BLOCK: Final = 1024
"""Number of rows that a step holds in memory at a time."""


def grouped(
    keys: Int[np.ndarray, " N"], order: Int[np.ndarray, " N"]
) -> Iterator[tuple[int, Int[np.ndarray, " T"]]]:
    """Each key in ascending order, and the indices of its entries, sorted by `order`."""
    indices = np.lexsort((order, keys))
    present, starts = np.unique(keys[indices], return_index=True)
    return zip(present.tolist(), np.split(indices, starts[1:]), strict=True)


class _RowFile:
    """Rows of one type in an unnamed file, which is deleted when closed or at the process's end."""

    row_type: ClassVar[np.dtype]
    identity: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115
        self._count = 0
        self._mapped: np.ndarray = np.zeros(0, self.row_type)
        self._used_count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Add rows of `row_type` at the end."""
        assert rows.dtype == self.row_type
        self._file.write(rows.tobytes())
        self._count += rows.size

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in blocks: their numbers, and a view that is valid until the next block."""
        for start in range(0, len(self), BLOCK):
            block = slice(start, min(start + BLOCK, len(self)))
            yield block, self._map()[block]
            self._release_pages()

    def column(self, name: str, entries: int | slice | Sequence[int] | None = None) -> np.ndarray:
        """A copy of one column of all rows, or of some of its entries, such as a few joints."""
        chosen = ... if entries is None else entries
        kind = self.row_type[name]
        values = np.empty((len(self), *np.empty(kind.shape)[chosen].shape), kind.base)
        for block, rows in self.blocks():
            values[block] = rows[name][:, chosen] if kind.shape else rows[name]
        return values

    def take(self, rows: Int[np.ndarray, " N"] | int, name: str | None = None) -> np.ndarray:
        """A copy of the rows with some numbers, or of one of their columns."""
        mapped = self._map()
        taken = np.array((mapped if name is None else mapped[name])[rows])
        self._count_used(np.size(rows))
        return taken

    def put(self, rows: Int[np.ndarray, " N"], values: np.ndarray) -> None:
        """Overwrite the rows with some numbers."""
        self._map()[rows] = values
        self._count_used(len(rows))

    def by_identity(self) -> dict[int, Int[np.ndarray, " T"]]:
        """Numbers of the rows of each track or person, in the order of frames."""
        return dict(grouped(self.column(self.identity), self.column("frame_index")))

    def by_frame(self) -> Iterator[tuple[int, Int[np.ndarray, " P"]]]:
        """Each frame with people, and the numbers of its rows in the order of tracks or people."""
        return grouped(self.column("frame_index"), self.column(self.identity))

    def close(self) -> None:
        self._file.close()

    def _map(self) -> np.ndarray:
        if len(self._mapped) != self._count:
            self._file.flush()
            self._mapped = np.memmap(self._file, self.row_type, mode="r+", shape=(self._count,))
        return self._mapped

    def _count_used(self, count: int) -> None:
        self._used_count += count
        if self._used_count >= BLOCK:
            self._release_pages()

    def _release_pages(self) -> None:
        """Release the pages of the file; they are loaded again when they are used.

        Otherwise, memory grows with all rows that were ever used, until another program needs it.
        """
        self._used_count = 0
        mapped = getattr(self._mapped, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


class RawRows(_RowFile):
    """Estimates of single frames, `RAW_ROW`, with the numbers of their tracks."""

    row_type = RAW_ROW
    identity = "track"


class FinalRows(_RowFile):
    """People of the clip, `FINAL_ROW`, ordered by person and then by frame."""

    row_type = FINAL_ROW
    identity = "person"

    def set_column(self, name: str, values: np.ndarray) -> None:
        """Overwrite one column of all rows."""
        for block, rows in self.blocks():
            rows[name] = values[block]


class WorldRows(_RowFile):
    """World values, `WORLD_ROW`, in the order of the final rows."""

    row_type = WORLD_ROW
    identity = "person"

"""Rows of all people and frames in files on the disk, which are mapped into memory.

`RawRows` hold what the network says of each frame, `FinalRows` what is made of it when the clip is
known as a whole. Memory does not grow with the length of a video: whoever reads rows gets copies of
some of them or of one column, and what the file has in memory is given back to the system.
"""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

PARAMETERS: Final = {
    "global_orient": (3,),
    "body_pose": (63,),
    "left_hand_pose": (45,),
    "right_hand_pose": (45,),
    "jaw_pose": (3,),
    "betas": (10,),
    "expression": (10,),
    "transl": (3,),
    "focal": (2,),
    "princpt": (2,),
}
"""Name and shape of what the network gives, and of the camera it stands in."""
ROTATIONS: Final = tuple(name for name in PARAMETERS if name.endswith(("_orient", "_pose")))
COLUMNS: Final = {
    **PARAMETERS,
    "box_xywh": (4,),
    "joints_3d_m": (137, 3),
    "joints_2d_px": (137, 2),
}
"""What a result file has of every frame, as final values in the clip's camera."""
RAW_COLUMNS: Final = {f"raw_{name}": shape for name, shape in PARAMETERS.items()}
"""The same parameters as the network gave them, in the cameras of the crops."""
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
"""Joints that were found in the image itself; what is unknown is 0. Not all results have them."""


class KeypointSource(IntEnum):
    """What found a keypoint: how far it errs depends on it."""

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
    """0 to 1; 0: unknown."""
    depth_m: Float[np.ndarray, "137"]
    """Behind the middle of the hips, as seen from the camera; 0: unknown."""
    source: UInt8[np.ndarray, "137"]
    """What found each, `KeypointSource`."""

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
        """Write those of some joints that have a score above 0, if they are finite."""
        known = (score > 0) & np.isfinite(score) & np.isfinite(px).all(axis=1)
        joints = np.asarray(places)[known]
        self.px[joints], self.score[joints] = px[known], np.minimum(score[known], 1)
        self.source[joints] = source

    def write(self, row: np.void) -> None:
        """Write them into a row of `RAW_ROW`."""
        for name, values in zip((*KEYPOINT_COLUMNS, "keypoint_source"), self, strict=True):
            row[name] = values


PLACED: Final = {"placed_orient": (3,), "placed_pelvis_m": (3,), "truncation": ()}
"""A raw estimate in the clip's camera: orientation, pelvis, share of the body outside the image."""
RAW_ROW: Final = np.dtype(
    [("track", "<i4"), ("frame_index", "<i4"), ("score", "<f4"), ("box_xywh", "<f4", (4,))]
    + [(name, "<f4", shape) for name, shape in PARAMETERS.items()]
    + [("joints_2d_px", "<f4", (137, 2))]
    + [(name, "<f4", shape) for name, shape in (PLACED | KEYPOINT_COLUMNS).items()]
    + [("keypoint_source", "u1", (137,))]
)
"""One person in one frame as the network gave them, in the camera of the crop, and as placed."""
FINAL_ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4"), ("score", "<f4")]
    + [(name, "<f4", shape) for name, shape in (COLUMNS | RAW_COLUMNS | KEYPOINT_COLUMNS).items()]
    + list(FLAGS.items())
)
"""One person in one frame as the result files have them."""
WORLD_COLUMNS: Final = {
    "world_global_orient": (3,),
    "world_body_pose": (63,),
    "world_transl": (3,),
    "world_joints_3d_m": (137, 3),
    "world_from_camera": (4, 4),
    "camera_zoom": (),
    "camera_confidence": (),
}
"""What `main.motion.world` adds: people in a world that does not move with the camera."""
WORLD_ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4")]
    + [(name, "<f4", shape) for name, shape in WORLD_COLUMNS.items()]
    + [("foot_contact", "?", (4,))]
)
"""The same person in the same frame as the final row of the same number, in the world."""
BLOCK: Final = 1024
"""Rows that a step holds in memory at a time."""


class _RowFile:
    """Rows of one type; the file is unnamed and goes when it is closed, or with the process."""

    row_type: ClassVar[np.dtype]
    identity: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115
        self._count = 0
        self._mapped: np.ndarray = np.zeros(0, self.row_type)
        self._touched = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Add rows of `row_type` at the end."""
        assert rows.dtype == self.row_type
        self._file.write(rows.tobytes())
        self._count += rows.size

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in order, some at a time: their numbers, and the rows as long as they last."""
        for start in range(0, len(self), BLOCK):
            block = slice(start, min(start + BLOCK, len(self)))
            yield block, self._all()[block]
            self._give_back()

    def column(self, name: str, entries: int | slice | Sequence[int] | None = None) -> np.ndarray:
        """A copy of one column of all rows, or of some entries of it, such as a few joints."""
        chosen = ... if entries is None else entries
        kind = self.row_type[name]
        values = np.empty((len(self), *np.empty(kind.shape)[chosen].shape), kind.base)
        for block, rows in self.blocks():
            values[block] = rows[name][:, chosen] if kind.shape else rows[name]
        return values

    def take(self, rows: Int[np.ndarray, " N"] | int, name: str | None = None) -> np.ndarray:
        """A copy of some rows by their numbers, or of one column of them."""
        mapped = self._all()
        taken = np.array((mapped if name is None else mapped[name])[rows])
        self._touched += np.size(rows)
        if self._touched >= BLOCK:
            self._give_back()
        return taken

    def put(self, rows: Int[np.ndarray, " N"], values: np.ndarray) -> None:
        """Write some rows anew, by their numbers."""
        self._all()[rows] = values
        self._touched += len(rows)
        if self._touched >= BLOCK:
            self._give_back()

    def by_identity(self) -> dict[int, Int[np.ndarray, " T"]]:
        """The rows of each track or person, in the order of the frames."""
        identities = self.column(self.identity)
        order = np.lexsort((self.column("frame_index"), identities))
        present, starts = np.unique(identities[order], return_index=True)
        return dict(zip(present.tolist(), np.split(order, starts[1:]), strict=True))

    def by_frame(self) -> Iterator[tuple[int, Int[np.ndarray, " P"]]]:
        """Each frame that shows anyone, and its rows, in the order of tracks or people."""
        frames = self.column("frame_index")
        order = np.lexsort((self.column(self.identity), frames))
        present, starts = np.unique(frames[order], return_index=True)
        yield from zip(present.tolist(), np.split(order, starts[1:]), strict=True)

    def close(self) -> None:
        self._file.close()

    def _all(self) -> np.ndarray:
        if len(self._mapped) != self._count:
            self._file.flush()
            self._mapped = np.memmap(self._file, self.row_type, mode="r+", shape=(self._count,))
        return self._mapped

    def _give_back(self) -> None:
        """Let go of what is in memory; it comes from the file when it is touched again.

        Without, memory grows with all that was ever touched, until another program needs it.
        """
        self._touched = 0
        mapped = getattr(self._mapped, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


class RawRows(_RowFile):
    """Estimates of single frames, `RAW_ROW`, with the numbers that the tracker gave."""

    row_type = RAW_ROW
    identity = "track"


class FinalRows(_RowFile):
    """People of the clip, `FINAL_ROW`, one after the other, each in the order of frames."""

    row_type = FINAL_ROW
    identity = "person"

    def set_column(self, name: str, values: np.ndarray) -> None:
        """Write one column of all rows."""
        for block, rows in self.blocks():
            rows[name] = values[block]


class WorldRows(_RowFile):
    """The final rows in the world, `WORLD_ROW`, in their order."""

    row_type = WORLD_ROW
    identity = "person"

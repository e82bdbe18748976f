"""Estimates of all people and frames, a row each, in a file on the disk that is mapped into memory.

Memory does not grow with the length of a video: steps go over the rows in blocks.
"""

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int

from main.estimator import Person

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
COLUMNS: Final = {
    **PARAMETERS,
    "box_xywh": (4,),
    "joints_3d_m": (137, 3),
    "joints_2d_px": (137, 2),
}
"""What a result file has of every frame, as final values."""
RAW_COLUMNS: Final = {f"raw_{name}": shape for name, shape in PARAMETERS.items()}
"""The same parameters as the network gave them, in the cameras of the crops."""
FLAGS: Final = {
    "truncation": "<f4",
    "occlusion": "<f4",
    "interpolated": "?",
    "out_of_range": "?",
}
ROTATIONS: Final = tuple(name for name in PARAMETERS if name.endswith(("_orient", "_pose")))

ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4"), ("score", "<f4")]
    + [(name, "<f4", shape) for name, shape in (COLUMNS | RAW_COLUMNS).items()]
    + [("raw_joints_2d_px", "<f4", (137, 2)), ("foot_contact", "?", (4,))]
    + list(FLAGS.items())
)
BLOCK: Final = 1024
"""Rows that a step holds in memory at a time."""


def row_of(identity: int, frame_index: int, score: float, person: Person) -> np.ndarray:
    """An estimate as a row; its final values are the raw ones until they are refined."""
    row = np.zeros((), ROW)
    row["person"], row["frame_index"], row["score"] = identity, frame_index, score
    for name in COLUMNS:
        row[name] = getattr(person, name)
    for name in PARAMETERS:
        row[f"raw_{name}"] = getattr(person, name)
    row["raw_joints_2d_px"] = person.joints_2d_px
    return row


class RowFile:
    """Rows on the disk; the file goes when it is closed, or with the process."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115
        self.count = 0

    def append(self, rows: np.ndarray) -> None:
        self.file.write(rows.tobytes())
        self.count += rows.size

    def view(self) -> np.ndarray:
        """All rows so far; what is written into them is kept."""
        if not self.count:
            return np.zeros(0, ROW)
        self.file.flush()
        return np.memmap(self.file, ROW, mode="r+", shape=(self.count,))

    def close(self) -> None:
        self.file.close()


def blocks(rows: np.ndarray) -> Iterator[slice]:
    """Slices that cover all rows; the memory that one took is given back before the next."""
    for start in range(0, len(rows), BLOCK):
        yield slice(start, min(start + BLOCK, len(rows)))
        give_back(rows)


def give_back(rows: np.ndarray) -> None:
    """Let go of what a file's rows have in memory; it comes from the file when it is touched again.

    Without, memory grows with all that was ever touched, until somebody else needs it.
    """
    mapped = getattr(rows, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def read_column(rows: np.ndarray, name: str) -> np.ndarray:
    """A copy of one entry of all rows."""
    values = np.empty(rows.shape + rows.dtype[name].shape, rows.dtype[name].base)
    for block in blocks(rows):
        values[block] = rows[name][block]
    return values


def people_of(rows: np.ndarray) -> dict[int, Int[np.ndarray, " T"]]:
    """Each person's rows, in the order of the frames."""
    people = read_column(rows, "person")
    order = np.lexsort((read_column(rows, "frame_index"), people))
    present, starts = np.unique(people[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, starts[1:]), strict=True))


def frames_of(rows: np.ndarray) -> Iterator[tuple[int, Int[np.ndarray, " P"]]]:
    """Each frame that shows anyone, and its rows, in the order of people."""
    frames = read_column(rows, "frame_index")
    order = np.lexsort((read_column(rows, "person"), frames))
    present, starts = np.unique(frames[order], return_index=True)
    found = zip(present.tolist(), np.split(order, starts[1:]), strict=True)
    for number, one in enumerate(found, 1):
        yield one
        if number % BLOCK == 0:
            give_back(rows)


def runs_of(frames: Int[np.ndarray, " T"]) -> Iterator[slice]:
    """Stretches of consecutive frames."""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    for start, end in zip([0, *breaks], [*breaks, len(frames)], strict=True):
        yield slice(int(start), int(end))

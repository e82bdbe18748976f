"""Short absences of a person, filled with rows between the last and the next estimate."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int, Shaped

from main.tracks.rows import COLUMNS, RAW_COLUMNS, ROTATIONS, ROW, RowFile, people_of, read_column
from utils.smoothing import interpolate_axis_angles

LONGEST_S: Final = 0.5
"""Longer absences stay absences."""
_LINEAR: Final = (
    *(name for name in (*COLUMNS, *RAW_COLUMNS) if name.removeprefix("raw_") not in ROTATIONS),
    "raw_joints_2d_px",
    "truncation",
)


def fill_gaps(file: RowFile, fps: float) -> None:
    """Append rows, flagged `interpolated`, for every absence of at most half a second.

    Rotations go the shortest way at constant speed, all else in a straight line. Nothing was
    detected there, so the score is 0.
    """
    rows = file.view()
    frames = read_column(rows, "frame_index")
    for mine in people_of(rows).values():
        missing = np.diff(frames[mine]) - 1
        for k in np.flatnonzero((missing > 0) & (missing <= LONGEST_S * fps)).tolist():
            file.append(_between(rows[mine[k : k + 2]]))


def _between(ends: Shaped[np.ndarray, "2"]) -> np.ndarray:
    """Rows for all frames between two."""
    before, after = ends
    frames: Int[np.ndarray, " T"] = np.arange(
        int(before["frame_index"]) + 1, int(after["frame_index"])
    )
    shares: Float[np.ndarray, " T"] = (frames - before["frame_index"]) / (len(frames) + 1)
    rows = np.zeros(len(frames), ROW)
    rows["person"], rows["frame_index"] = before["person"], frames
    rows["interpolated"] = True
    for name in _LINEAR:
        weight = shares.reshape(-1, *[1] * before[name].ndim)
        rows[name] = (1 - weight) * before[name] + weight * after[name]
    for name in ROTATIONS:
        for column in (name, f"raw_{name}"):
            rows[column] = interpolate_axis_angles(before[column], after[column], shares)
    return rows

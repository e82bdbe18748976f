"""Feet on the floor: which touch it when, and where it is."""

import logging
from typing import Final

import numpy as np
from jaxtyping import Float

from human_models.joints import JOINTS
from main.tracks.rows import blocks, people_of, read_column, runs_of
from utils.floor import Plane, fit_floor

log = logging.getLogger(__name__)

FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""What the four columns of `foot_contact` are of."""
_FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
_TRUNK: Final = (JOINTS.index("pelvis"), JOINTS.index("neck"))
_SLOW_M_S: Final = 0.4
_NEAR_M: Final = 0.10
"""A slow foot at most so high above or below the plane touches it."""
_MOST_POINTS: Final = 20_000
_LEAST_POINTS: Final = 4


def find_floor(rows: np.ndarray, fps: float) -> Plane | None:
    """The ground that all people walk on, and `foot_contact` of all rows, from final joints.

    Heels and toes that are slow are taken to rest on something; the plane is fitted to most of
    them, near to across the people's trunks where the feet leave its slope open. The camera must
    stand still. None, with a warning, where no foot rests.
    """
    slow = _slow_feet(rows, fps)
    resting = np.argwhere(slow)
    resting = resting[:: max(1, len(resting) // _MOST_POINTS)]
    points = np.array([rows["joints_3d_m"][row, _FEET[foot]] for row, foot in resting.tolist()])
    if len(points) < _LEAST_POINTS:
        log.warning("--floor: no foot rests for a moment, so there is no floor to be found")
        return None
    plane = fit_floor(points, _trunks_up(rows))
    for block in blocks(rows):
        height = plane.height_of(rows["joints_3d_m"][block][:, _FEET])
        rows["foot_contact"][block] = slow[block] & (np.abs(height) < _NEAR_M)
    return plane


def _slow_feet(rows: np.ndarray, fps: float) -> np.ndarray:
    slow = np.zeros((len(rows), len(_FEET)), bool)
    feet = np.empty((len(rows), len(_FEET), 3), np.float32)
    for block in blocks(rows):
        feet[block] = rows["joints_3d_m"][block][:, _FEET]
    frames = read_column(rows, "frame_index")
    for mine in people_of(rows).values():
        for run in runs_of(frames[mine]):
            if run.stop - run.start > 1:
                speed = np.linalg.norm(np.gradient(feet[mine[run]], axis=0), axis=-1) * fps
                slow[mine[run]] = speed < _SLOW_M_S
    return slow


def _trunks_up(rows: np.ndarray) -> Float[np.ndarray, "3"]:
    """Median direction from pelvis to neck; the camera's own up where people lie about."""
    step = max(1, len(rows) // _MOST_POINTS)
    pelvis, neck = (rows["joints_3d_m"][::step, joint] for joint in _TRUNK)
    median = np.median(neck - pelvis, axis=0)
    return median if np.linalg.norm(median) > 0.2 else np.array([0.0, -1.0, 0.0])

"""Feet on the floor: which touch it when, and where it is."""

import logging
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from human_models.joints import JOINTS
from main.motion.rows import FinalRows
from utils.floor import Plane, fit_floor

log = logging.getLogger(__name__)

FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""What the four columns of `foot_contact` are about."""
_FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
_TRUNK: Final = (JOINTS.index("pelvis"), JOINTS.index("neck"))
_SLOW_M_S: Final = 0.4
_NEAR_M: Final = 0.10
"""A slow foot at most so high above or below the plane touches it."""
_MOST_POINTS: Final = 20_000
_LEAST_POINTS: Final = 4


class Floor(NamedTuple):
    """The ground, and which of `FOOT_JOINTS` touch it in each final row."""

    plane: Plane
    contacts: Bool[np.ndarray, "N 4"]


def find_floor(rows: FinalRows, fps: float) -> Floor | None:
    """The ground that all people walk on, from their final joints.

    Heels and toes that are slow are taken to rest on something; the plane is fitted to most of
    them, near to across the people's trunks where the feet leave its slope open. The camera must
    stand still. None, with a warning, where no foot rests.
    """
    feet = rows.column("joints_3d_m", _FEET)
    slow = _slow_feet(rows, feet, fps)
    resting = np.argwhere(slow)
    resting = resting[:: max(1, len(resting) // _MOST_POINTS)]
    if len(resting) < _LEAST_POINTS:
        log.warning("--floor: no foot rests for a moment, so there is no floor to be found")
        return None
    plane = fit_floor(feet[tuple(resting.T)], _trunks_up(rows))
    return Floor(plane, slow & (np.abs(plane.height_of(feet)) < _NEAR_M))


def _slow_feet(
    rows: FinalRows, feet: Float[np.ndarray, "N 4 3"], fps: float
) -> Bool[np.ndarray, "N 4"]:
    slow = np.zeros(feet.shape[:2], bool)
    frames = rows.column("frame_index")
    for mine in rows.by_identity().values():
        for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1):
            if len(run) > 1:
                speed = np.linalg.norm(np.gradient(feet[run], axis=0), axis=-1) * fps
                slow[run] = speed < _SLOW_M_S
    return slow


def _trunks_up(rows: FinalRows) -> Float[np.ndarray, "3"]:
    """Median direction from pelvis to neck; the camera's own up where people lie about."""
    step = max(1, len(rows) // _MOST_POINTS)
    pelvis, neck = (rows.column("joints_3d_m", joint)[::step] for joint in _TRUNK)
    median = np.median(neck - pelvis, axis=0)
    return median if np.linalg.norm(median) > 0.2 else np.array([0.0, -1.0, 0.0])

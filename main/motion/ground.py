"""The ground, and the feet that touch it under a camera that stands still."""

import logging
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from human_models.joints import JOINTS
from main.motion.rows import FinalRows

log = logging.getLogger(__name__)

_TOUCHING_M: Final = 0.05
"""Points farther from the plane than this count less and less (Cauchy's weights)."""
_LEAN: Final = 0.1
"""Deviation of the expected slope from the true one, by trunks."""
_INDEPENDENT: Final = 20
"""The points say at most as much as this many independent ones would."""
_PASSES: Final = 15
FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""What the four columns of `foot_contact` are about."""
FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
TRUNK: Final = (JOINTS.index("pelvis"), JOINTS.index("neck"))
SLOW_M_S: Final = 0.4
NEAR_M: Final = 0.10
"""A slow foot at most so high above or below the plane touches it."""
MOST_POINTS: Final = 20_000
LEAST_POINTS: Final = 4


class Plane(NamedTuple):
    """Points p with up @ p = height; `up` has length 1 and points away from the ground."""

    up: Float[np.ndarray, "3"]
    height: float

    def height_of(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N"]:
        """Metres above the plane."""
        return points @ self.up - self.height


def fit_floor(
    points: Float[np.ndarray, "N 3"], expected_up: Float[np.ndarray, "3"], lean: float = _LEAN
) -> Plane:
    """The plane that most points lie on, near to `expected_up` where they leave its slope open.

    Iteratively reweighted least squares of the height over the plane across `expected_up`, begun
    at the median height; a prior on the slope stands for people who stay at one place.

    Args:
        points: at least one; some may be off the ground.
        expected_up: any length but 0.
        lean: deviation of its slope from the true one.
    """
    axes = _axes(expected_up)  # rows: right, up, back
    local = points.astype(np.float64) @ axes.T
    centre = np.median(local, axis=0)
    across, height = local[:, ::2] - centre[::2], local[:, 1] - centre[1]
    design = np.column_stack([across, np.ones(len(points))])
    solution = np.zeros(3)
    for _ in range(_PASSES):
        residual = height - design @ solution
        weights = 1 / (1 + (residual / _TOUCHING_M) ** 2)
        weights *= min(1.0, _INDEPENDENT / max(float(weights.sum()), 1e-9))
        prior = np.diag([(_TOUCHING_M / lean) ** 2] * 2 + [1e-9])
        normal = design.T @ (weights[:, None] * design) + prior
        solution = np.linalg.solve(normal, design.T @ (weights * height))
    up = np.array([-solution[0], 1.0, -solution[1]]) @ axes
    up /= np.linalg.norm(up)
    on_plane = (centre + np.array([0, solution[2], 0])) @ axes
    return Plane(up, float(up @ on_plane))


def world_from_camera(plane: Plane) -> Float[np.ndarray, "4 4"]:
    """Rigid transform into a world with y up, the plane at y = 0 and the camera above its origin.

    x is the camera's right, levelled; z points from the scene back to the camera.
    """
    transform = np.eye(4)
    transform[:3, :3] = _axes(plane.up)
    transform[1, 3] = -plane.height
    return transform


def _axes(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and back; right-handed, in the camera's frame."""
    up = up.astype(np.float64) / np.linalg.norm(up)
    right = np.array([1.0, 0, 0]) - up[0] * up
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


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
    feet = rows.column("joints_3d_m", FEET)
    slow = _slow_feet(rows, feet, fps)
    resting = np.argwhere(slow)
    resting = resting[:: max(1, len(resting) // MOST_POINTS)]
    if len(resting) < LEAST_POINTS:
        log.warning("--floor: no foot rests for a moment, so there is no floor to be found")
        return None
    plane = fit_floor(feet[tuple(resting.T)], _trunks_up(rows))
    return Floor(plane, slow & (np.abs(plane.height_of(feet)) < NEAR_M))


def _slow_feet(
    rows: FinalRows, feet: Float[np.ndarray, "N 4 3"], fps: float
) -> Bool[np.ndarray, "N 4"]:
    slow = np.zeros(feet.shape[:2], bool)
    frames = rows.column("frame_index")
    for mine in rows.by_identity().values():
        for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1):
            if len(run) > 1:
                speed = np.linalg.norm(np.gradient(feet[run], axis=0), axis=-1) * fps
                slow[run] = speed < SLOW_M_S
    return slow


def _trunks_up(rows: FinalRows) -> Float[np.ndarray, "3"]:
    """Median direction from pelvis to neck; the camera's own up where people lie about."""
    step = max(1, len(rows) // MOST_POINTS)
    pelvis, neck = (rows.column("joints_3d_m", joint)[::step] for joint in TRUNK)
    median = np.median(neck - pelvis, axis=0)
    return median if np.linalg.norm(median) > 0.2 else np.array([0.0, -1.0, 0.0])

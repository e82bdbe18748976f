"""The ground plane under points that rest on it.

Camera frame: x right, y down, z forward; metres.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

_TOUCHING_M: Final = 0.05
"""Points farther from the plane than this count less and less (Cauchy's weights)."""
_LEAN: Final = 0.1
"""Deviation of the expected slope from the true one."""
_INDEPENDENT: Final = 20
"""The points say at most as much as this many independent ones would."""
_PASSES: Final = 15


class Plane(NamedTuple):
    """Points p with up @ p = height; `up` has length 1 and points away from the ground."""

    up: Float[np.ndarray, "3"]
    height: float

    def height_of(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N"]:
        """Metres above the plane."""
        return points @ self.up - self.height


def fit_floor(points: Float[np.ndarray, "N 3"], expected_up: Float[np.ndarray, "3"]) -> Plane:
    """The plane that most points lie on, near to `expected_up` where they leave its slope open.

    Iteratively reweighted least squares of the height over the plane across `expected_up`, begun
    at the median height; a prior on the slope stands for people who stay at one place.

    Args:
        points: at least one; some may be off the ground.
        expected_up: any length but 0.
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
        prior = np.diag([(_TOUCHING_M / _LEAN) ** 2] * 2 + [1e-9])
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

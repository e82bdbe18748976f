"""The ground that feet touch: a plane, and levels over it such as steps.

Lengths are metres. Points and directions are in the frame of the first camera of the clip.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_TOUCHING_M: Final = 0.05
"""Distance from the plane beyond which points have less and less weight (Cauchy's loss)."""
_SLOPE_SIGMA: Final = 0.05
"""Standard deviation of the slope of the ground against the expected up direction."""
_SIZE_SIGMA: Final = 0.04
"""Standard deviation of the estimated size of a body, relative to the size."""
_IMPLAUSIBLE: Final = 4
"""Number of standard deviations of the size beyond which heights are not explained by it."""
_INDEPENDENT: Final = 20
"""Largest total weight of the points, because their errors are correlated."""
_PASSES: Final = 15
"""Passes of reweighted least squares."""
_FITS: Final = 3
"""Alternating fits of the plane and of the levels over it."""
_TOUCHED: Final = 0.05
"""Share of a person's contacts from which the person touches a level."""
_BIN_M: Final = 0.03
"""Width of the bins of the histogram in which levels are found."""
_MIN_STEP_M, _MAX_STEP_M = 0.12, 0.55
"""Least height between two levels, and largest height from one to the next: two steps, if nobody
stands on the first one for long."""
_LEVEL_SHARE: Final = 0.1
"""Least share of all contacts that are on a level."""


class Plane(NamedTuple):
    """The points p with up @ p = height; `up` has length 1 and points away from the ground."""

    up: Float[np.ndarray, "3"]
    height: float

    def height_of(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N"]:
        """Heights of points above the plane."""
        return points @ self.up - self.height


def fit_floor(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> tuple[Plane, Float[np.ndarray, " N"]]:
    """Fit a plane to points, most of which lie on it, by iteratively reweighted least squares.

    The unknowns are the slope and height of the plane, and an offset of each person's points:
    somebody who is estimated too small seems to be nearer to the camera, and therefore higher. A
    prior on the slope determines it where all people stay at one place.

    Args:
        points: at least one, relative to the camera; some may be off the ground.
        owners: number of the person that each point belongs to.
        expected_up: expected normal of the plane, of any length but 0.

    Returns:
        The plane, and the offset of each point's owner.
    """
    axes = _axes(expected_up)  # rows: right, up, back
    local = points.astype(np.float64) @ axes.T
    centre = np.median(local, axis=0)
    across, height = local[:, ::2] - centre[::2], local[:, 1] - centre[1]
    people, number = np.unique(owners, return_inverse=True)
    design = np.column_stack([across, np.ones(len(points)), np.eye(len(people))[number]])
    solution = np.zeros(design.shape[1])
    sigmas = [_SLOPE_SIGMA, _SLOPE_SIGMA, 1e3, *[_offset_sigma_m(centre[1])] * len(people)]
    prior = (_TOUCHING_M / np.array(sigmas)) ** 2
    for _ in range(_PASSES):
        residual = height - design @ solution
        weights = 1 / (1 + (residual / _TOUCHING_M) ** 2)
        weights *= min(1.0, _INDEPENDENT / max(float(weights.sum()), 1e-9))
        normal = design.T @ (weights[:, None] * design) + np.diag(prior)
        solution = np.linalg.solve(normal, design.T @ (weights * height))
    up = np.array([-solution[0], 1.0, -solution[1]]) @ axes
    up /= np.linalg.norm(up)
    on_plane = (centre + np.array([0, solution[2], 0])) @ axes
    return Plane(up, float(up @ on_plane)), solution[3:][number]


def _offset_sigma_m(plane_height: float) -> float:
    """Standard deviation of the height of a person's feet, caused by the error of the size.

    Args:
        plane_height: height of the ground relative to the camera.
    """
    return max(_SIZE_SIGMA * abs(plane_height), 0.01)


def nearest_level(
    heights: Float[np.ndarray, "*N"], levels: Float[np.ndarray, " L"]
) -> Float[np.ndarray, "*N"]:
    """The level, or the plane itself, that is nearest to each height."""
    candidates = np.array([0.0, *levels])
    return candidates[np.abs(heights[..., None] - candidates).argmin(axis=-1)]


def find_levels(
    heights: Float[np.ndarray, " N"], owners: Int[np.ndarray, " N"], camera_m: float
) -> Float[np.ndarray, " L"]:
    """Heights at which there are many contacts, in ascending order; one of them is 0.

    A level must be near enough to another one to be climbed, and somebody must have contacts both
    on it and elsewhere: people who always are at one height may only have another size than
    estimated. Such an error does not explain heights far above the plane, where this is not
    required. It may explain any height below the plane, because children are often taken for
    adults, and people who sit for people who stand, so that they seem to be farther away and
    lower. Below the plane, "elsewhere" therefore means on a level that is already found.

    Args:
        heights: heights of contacts over the plane.
        owners: number of the person that each contact belongs to.
        camera_m: height of the camera over the plane.
    """
    levels: list[float] = [0.0]
    free = np.abs(heights) > _MIN_STEP_M
    while free.sum() > _LEVEL_SHARE * len(heights):
        bins = np.round(heights[free] / _BIN_M).astype(int)
        found = _BIN_M * np.bincount(bins - bins.min()).argmax() + _BIN_M * bins.min()
        distance = np.abs(heights - found)
        on_level = free & (distance < _MIN_STEP_M / 2)
        free &= distance > _MIN_STEP_M
        elsewhere = distance > _MIN_STEP_M / 2
        if found < 0:
            elsewhere &= np.abs(heights[:, None] - levels).min(axis=1) < _MIN_STEP_M / 2
        both = np.minimum(np.bincount(owners, on_level), np.bincount(owners, elsewhere))
        is_level = (both > _TOUCHED * np.bincount(owners)).any()
        is_level |= found > _IMPLAUSIBLE * _offset_sigma_m(camera_m)
        is_level &= np.abs(found - np.array(levels)).min() < _MAX_STEP_M
        if is_level and on_level.sum() > _LEVEL_SHARE * len(heights):
            levels.append(float(np.median(heights[on_level])))
    return np.array(sorted(levels))


class Ground(NamedTuple):
    """The floor, and heights of further levels over it; those of levels below are negative."""

    plane: Plane
    levels: Float[np.ndarray, " L"]


class GroundFit(NamedTuple):
    """A plane, and levels over it.

    Attributes:
        levels: heights over the plane in ascending order, with 0 among them.
        heights: heights of the contacts over the plane, without their owners' offsets.
        misfit: about twice the negative log likelihood of contacts and up direction.
    """

    plane: Plane
    levels: Float[np.ndarray, " L"]
    heights: Float[np.ndarray, " N"]
    misfit: float


def fit_ground(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> GroundFit:
    """Fit a plane and levels over it to contacts.

    The contacts of somebody who climbs steps also fit a slope. Therefore fits start both from a
    level and from a sloping plane, and the one with the smaller misfit is returned.

    Args:
        points: positions of contacts.
        owners: number of the person that each contact belongs to.
        expected_up: expected normal of the ground, of length 1.
    """
    level = Plane(expected_up, float(np.median(points @ expected_up)))
    starts = ((level, np.zeros(len(points))), fit_floor(points, owners, expected_up))
    tried = [_fit_levels(points, owners, plane, raised, expected_up) for plane, raised in starts]
    return min(tried, key=lambda fit: fit.misfit)


def _fit_levels(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    plane: Plane,
    offsets: Float[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> GroundFit:
    """Improve a plane, with offsets as in `fit_floor`, together with levels over it."""
    for fits in range(_FITS + 1):
        heights = plane.height_of(points) - offsets
        levels = find_levels(heights, owners, -plane.height)
        off = heights - nearest_level(heights, levels)
        if fits < _FITS:
            flat = points - (heights - off)[:, None] * expected_up
            plane, offsets = fit_floor(flat, owners, expected_up)
    slope = float(np.linalg.norm(np.cross(plane.up, expected_up))) / _SLOPE_SIGMA
    sizes = offsets[np.unique(owners, return_index=True)[1]] / _offset_sigma_m(plane.height)
    misfit = _INDEPENDENT * float(np.log1p((off / _TOUCHING_M) ** 2).mean())
    misfit += slope**2 + float((sizes**2).sum()) + len(levels)
    return GroundFit(plane, levels, heights, misfit)


def common_level(
    heights: Float[np.ndarray, " N"], owners: Int[np.ndarray, " N"], levels: Float[np.ndarray, " L"]
) -> float:
    """The lowest level that at least half of the people touch; the lowest of all if there is none.

    Args:
        heights: heights of contacts over the plane.
        owners: number of the person that each contact belongs to.
        levels: in ascending order, with 0 among them.
    """
    nearest = nearest_level(heights, levels)
    people = [nearest[owners == person] for person in np.unique(owners)]
    for level in levels.tolist():
        touching = [(levels_of_person == level).mean() > _TOUCHED for levels_of_person in people]
        if 2 * sum(touching) >= len(people):
            return float(level)
    return float(levels[0])


def world_from_camera(plane: Plane) -> Float[np.ndarray, "4 4"]:
    """The rigid transform from the camera into a world with y up and the plane at y = 0.

    The camera is above the origin; x is its right, made horizontal, and z points from the scene
    back to the camera.
    """
    transform = np.eye(4)
    transform[:3, :3] = _axes(plane.up)
    transform[1, 3] = -plane.height
    return transform


def _axes(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Right-handed axes in the camera's frame; the rows are right, up and back."""
    up = up.astype(np.float64) / np.linalg.norm(up)
    right = np.array([1.0, 0, 0]) - up[0] * up
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])

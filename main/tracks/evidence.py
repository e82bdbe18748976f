"""How likely two pieces of tracks show one person: logarithms of likelihood ratios.

Each kind of evidence compares "the same person" with "two people of this clip"; 0 says nothing,
positive speaks for the same. What is known weakens with the time between the pieces.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from main.tracks.camera import ClipCamera
from main.tracks.pieces import Pieces

Pairs = tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]
"""Numbers of the earlier and of the later piece."""

# Deviation of a place (x, y, z) after dt seconds: the estimate's noise, and what motion adds.
_PLACE_M: Final = np.array([0.12, 0.10, 0.20])
_DEPTH_SHARE: Final = 0.04
_DRIFT_M_S: Final = np.array([0.5, 0.15, 0.5])
_VELOCITY_LASTS_S: Final = 1.0
# Where somebody else might be: deviations about the middle of what is seen.
_ELSEWHERE_YZ_M: Final = (0.3, 1.5)

# Mean angle between two poses: of one person at once, of two people; both as (mean, deviation).
_POSE_SAME, _POSE_OTHER, _POSE_LASTS_S = (0.10, 0.06), (0.30, 0.10), 0.4
_HEADING_SAME, _HEADING_OTHER, _HEADING_LASTS_S = (0.15, 0.15), (1.40, 0.80), 1.5
_MOST: Final = 4.0
"""No single kind of evidence says more for a pair than this; against it, twice as much."""

_SHAPE_COMMON: Final = 0.25
"""Share of a shape's variance in a track that more frames do not average out."""
_SHAPE_ROWS: Final = 12.0
"""As many rows in sequence are worth one independent one."""
_SHAPE_TRUST: Final = 0.6
"""Components of a shape err together, so their evidence does not quite add up."""


class ShapeSpread(NamedTuple):
    """Variances of betas: within a track, and between people."""

    within: Float[np.ndarray, "10"]
    between: Float[np.ndarray, "10"]


def motion_evidence(pieces: Pieces, pairs: Pairs, camera: ClipCamera) -> Float[np.ndarray, " N"]:
    """Place and velocity, in space: the clip's camera makes them comparable."""
    first, then = pairs
    dt = pieces.start.time_s[then] - pieces.end.time_s[first]
    lasting = _VELOCITY_LASTS_S * -np.expm1(-dt / _VELOCITY_LASTS_S)
    velocity = (pieces.end.velocity[first] + pieces.start.velocity[then]) / 2
    error = pieces.start.position[then] - pieces.end.position[first] - velocity * lasting[:, None]
    depth = np.maximum(pieces.end.position[first, 2], 0.5)
    deviation = _PLACE_M + _DRIFT_M_S * dt[:, None]
    deviation[:, 2] += _DEPTH_SHARE * depth
    width = 2 * camera.princpt[0] / camera.focal[0] * depth
    elsewhere = np.stack(
        [width / math.sqrt(12), *(np.full_like(depth, s) for s in _ELSEWHERE_YZ_M)], axis=1
    )
    # After a long time one may be anywhere that others are.
    deviation = np.minimum(deviation, elsewhere * math.sqrt(2))
    same = -0.5 * (error / deviation) ** 2 - np.log(deviation)
    other = -0.5 * (error / (elsewhere * math.sqrt(2))) ** 2 - np.log(elsewhere * math.sqrt(2))
    return _limited((same - other).sum(axis=1), 2 * _MOST)


def pose_evidence(pieces: Pieces, pairs: Pairs, rows: np.ndarray) -> Float[np.ndarray, " N"]:
    """Pose and heading at the two ends."""
    first, then = pairs
    dt = pieces.start.time_s[then] - pieces.end.time_s[first]
    ends, starts = pieces.end.row[first], pieces.start.row[then]
    pose = _mean_angle(rows["body_pose"][ends], rows["body_pose"][starts])
    heading = _mean_angle(rows["global_orient"][ends], rows["global_orient"][starts])
    return _fading(pose, dt, _POSE_SAME, _POSE_OTHER, _POSE_LASTS_S) + _fading(
        heading, dt, _HEADING_SAME, _HEADING_OTHER, _HEADING_LASTS_S
    )


def _mean_angle(
    one: Float[np.ndarray, "N J3"], other: Float[np.ndarray, "N J3"]
) -> Float[np.ndarray, " N"]:
    if not len(one):
        return np.zeros(0)
    a, b = (Rotation.from_rotvec(pose.reshape(-1, 3)) for pose in (one, other))
    return (a.inv() * b).magnitude().reshape(len(one), -1).mean(axis=1)


def _fading(
    angle: Float[np.ndarray, " N"],
    dt: Float[np.ndarray, " N"],
    same: tuple[float, float],
    other: tuple[float, float],
    lasts_s: float,
) -> Float[np.ndarray, " N"]:
    """Two normal distributions, of which the first becomes the second in time."""
    fresh = np.exp(-dt / lasts_s)
    mean, deviation = (fresh * s + (1 - fresh) * o for s, o in zip(same, other, strict=True))
    ratio = -0.5 * ((angle - mean) / deviation) ** 2 - np.log(deviation)
    return _limited(ratio + 0.5 * ((angle - other[0]) / other[1]) ** 2 + math.log(other[1]), _MOST)


def shape_spread(
    betas: Float[np.ndarray, "P 10"],
    rows_worth: Float[np.ndarray, " P"],
    within: Float[np.ndarray, "10"],
) -> ShapeSpread:
    """How much people of this clip differ: variance of the pieces less that of their errors.

    A network that sees the same shape in everybody gives a variance near 0, and then shape is no
    evidence.
    """
    weights = np.minimum(rows_worth, 60.0)
    if len(betas) < 2 or weights.sum() <= 0:
        return ShapeSpread(within, np.zeros(10))
    mean = np.average(betas, axis=0, weights=weights)
    effective = weights.sum() ** 2 / (weights**2).sum()
    variance = np.average((betas - mean) ** 2, axis=0, weights=weights)
    variance *= effective / max(effective - 1, 0.5)
    error = np.average(_error(within, rows_worth), axis=0, weights=weights)
    return ShapeSpread(within, np.maximum(variance - error, 0.0))


def shape_evidence(pieces: Pieces, pairs: Pairs, spread: ShapeSpread) -> Float[np.ndarray, " N"]:
    """Betas of the same person differ by their errors, those of two people by much more."""
    first, then = pairs
    error = _error(spread.within, pieces.betas_rows)
    noise = np.maximum(error[first] + error[then], 1e-6)
    wide = noise + 2 * spread.between
    squared = (pieces.betas[first] - pieces.betas[then]) ** 2
    ratio = 0.5 * (squared / wide - squared / noise + np.log(wide / noise))
    return _limited(_SHAPE_TRUST * ratio.sum(axis=1), 2 * _MOST)


def _error(
    within: Float[np.ndarray, "10"], rows_worth: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P 10"]:
    """Variance of a piece's mean shape: neighbouring frames err alike, so it falls slowly."""
    independent = np.maximum(rows_worth / _SHAPE_ROWS, 0.5)
    return within * (_SHAPE_COMMON + (1 - _SHAPE_COMMON) / independent)[:, None]


def _limited(ratio: Float[np.ndarray, " N"], most: float) -> Float[np.ndarray, " N"]:
    return np.clip(ratio, -2 * most, most)

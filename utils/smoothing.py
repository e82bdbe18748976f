"""Series in time without their jitter and without lag: numbers, and rotations as rotations.

Every sample becomes the value at its own time of a straight line through its neighbours, fitted by
least squares with Gaussian weights (local linear regression; Fan and Gijbels, 1996). Away from the
ends and where all samples weigh the same this is the Gaussian mean; at ends and beside missing
samples it does not drag a movement behind, as a mean would. The kernel is symmetric: no lag.

Rotations are unit quaternions (x, y, z, w), brought to one sign along the series, since q and -q
are the same rotation, and normalised afterwards. For neighbours within some ten degrees their mean
is the mean rotation (Markley et al., 2007).
"""

from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.ndimage import correlate1d
from scipy.spatial.transform import Rotation

REACH: Final = 4.0
"""Samples farther away than this many standard deviations of the kernel do not count."""
_LEAST_SIGMA: Final = 0.2
"""In samples; a narrower kernel leaves everything as it is."""


def reach_of(sigma: float) -> int:
    """How many samples on each side a kernel of standard deviation `sigma` (in samples) uses."""
    return max(1, round(REACH * sigma))


def smooth(
    values: Float[np.ndarray, " T *C"], sigma: float, weights: Float[np.ndarray, " T"] | None = None
) -> Float[np.ndarray, " T *C"]:
    """Smooth numbers along the first axis.

    Args:
        values: samples at equal distances in time.
        sigma: standard deviation of the kernel, in samples; below 0.2 nothing changes.
        weights: how much each sample counts, 0 (as if missing) or more; None: all the same. Where
            nothing within reach counts, the value stays.
    """
    if sigma < _LEAST_SIGMA or len(values) < 2:
        return values.copy()
    offsets = np.arange(-reach_of(sigma), reach_of(sigma) + 1, dtype=np.float64)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    counts = np.ones(len(values)) if weights is None else weights.astype(np.float64)

    def moment(power: int, series: np.ndarray) -> np.ndarray:
        return correlate1d(series, kernel * offsets**power, axis=0, mode="constant")

    zeroth, first, second = (moment(power, counts) for power in (0, 1, 2))
    columns = values.reshape(len(values), -1).astype(np.float64)
    weighted = columns * counts[:, None]
    spread = zeroth * second - first**2
    # One sample alone determines no slope: the fit is a constant there.
    slope_known = spread > 1e-6 * np.maximum(zeroth, 1e-12) ** 2
    mean = moment(0, weighted) / np.maximum(zeroth, 1e-12)[:, None]
    line = (second[:, None] * moment(0, weighted) - first[:, None] * moment(1, weighted)) / (
        np.where(slope_known, spread, 1.0)[:, None]
    )
    fitted = np.where(slope_known[:, None], line, mean)
    result = np.where((zeroth > 1e-9)[:, None], fitted, columns)
    return result.reshape(values.shape).astype(values.dtype)


def align_signs(quaternions: Float[np.ndarray, "T *J 4"]) -> Float[np.ndarray, "T *J 4"]:
    """The same rotations, each quaternion in the half space of the one before it."""
    agrees = (quaternions[1:] * quaternions[:-1]).sum(axis=-1, keepdims=True) >= 0
    flips = np.cumprod(np.where(agrees, 1.0, -1.0), axis=0)
    return np.concatenate([quaternions[:1], quaternions[1:] * flips]).astype(quaternions.dtype)


def smooth_rotations(
    quaternions: Float[np.ndarray, "T *J 4"],
    sigma: float,
    weights: Float[np.ndarray, " T"] | None = None,
) -> Float[np.ndarray, "T *J 4"]:
    """Smooth unit quaternions along the first axis; see `smooth`."""
    smoothed = smooth(align_signs(quaternions), sigma, weights)
    length = np.linalg.norm(smoothed, axis=-1, keepdims=True)
    return np.where(length > 1e-6, smoothed / np.maximum(length, 1e-6), quaternions).astype(
        quaternions.dtype
    )


def smooth_axis_angles(
    axis_angles: Float[np.ndarray, "T J3"],
    sigma: float,
    weights: Float[np.ndarray, " T"] | None = None,
) -> Float[np.ndarray, "T J3"]:
    """Smooth axis-angle vectors (radians), joint after joint, as the rotations that they are."""
    if sigma < _LEAST_SIGMA or len(axis_angles) < 2:
        return axis_angles.copy()
    smoothed = smooth_rotations(quaternions_of(axis_angles), sigma, weights)
    return axis_angles_of(smoothed).astype(axis_angles.dtype)


def quaternions_of(axis_angles: Float[np.ndarray, "T J3"]) -> Float[np.ndarray, "T J 4"]:
    """Axis-angle vectors (radians), joint after joint, as unit quaternions (x, y, z, w)."""
    quaternions = Rotation.from_rotvec(axis_angles.reshape(-1, 3).astype(np.float64)).as_quat()
    return quaternions.reshape(len(axis_angles), -1, 4)


def axis_angles_of(quaternions: Float[np.ndarray, "T J 4"]) -> Float[np.ndarray, "T J3"]:
    """The inverse of `quaternions_of`; angles are at most pi."""
    vectors = Rotation.from_quat(quaternions.reshape(-1, 4)).as_rotvec()
    return vectors.reshape(len(quaternions), -1)


def interpolate_axis_angles(
    first: Float[np.ndarray, " J3"],
    last: Float[np.ndarray, " J3"],
    shares: Float[np.ndarray, " T"],
) -> Float[np.ndarray, "T J3"]:
    """Rotations between two, joint after joint on the shortest way at constant speed (slerp).

    Args:
        shares: of the way, 0 (at `first`) to 1 (at `last`).
    """
    start = Rotation.from_rotvec(first.reshape(-1, 3).astype(np.float64))
    step = (start.inv() * Rotation.from_rotvec(last.reshape(-1, 3).astype(np.float64))).as_rotvec()
    between = [(start * Rotation.from_rotvec(share * step)).as_rotvec() for share in shares]
    return np.stack(between).reshape(len(shares), -1).astype(first.dtype)

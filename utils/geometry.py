"""Rotations, distances between aligned points, and smoothing in time.

Rotations are 6D vectors, matrices or axis-angle vectors (radians), batched over any leading
dimensions.

Points to compare come in batches of N corresponding points in one unit and frame. For large batches
the coordinates are the first dimension, so that sums over points run along the memory.

Smoothing is local linear regression with Gaussian weights (Fan and Gijbels, 1996): each sample
becomes the value at its time of a line that is fitted to its neighbours by least squares. With
equal weights, away from the ends, this is the Gaussian mean. At ends and beside missing samples it
does not shorten a movement, as a mean would. The kernel is symmetric, so there is no lag. Series of
rotations are smoothed as unit quaternions (x, y, z, w), with consistent signs (q and -q are the
same rotation), and normalised afterwards, which approximates the mean rotation for angles up to
about ten degrees (Markley et al., 2007).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import correlate1d
from scipy.spatial.transform import Rotation
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rodrigues' formula.

    The angle is the norm of (axis_angle + 1e-8), as in the SMPL-X package, which keeps the
    gradient finite at zero.
    """
    angle = torch.linalg.vector_norm(axis_angle + 1e-8, dim=-1, keepdim=True)
    x, y, z = (axis_angle / angle).unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    sin, cos = angle.sin()[..., None], angle.cos()[..., None]
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sin * K + (1 - cos) * (K @ K)


def rotation_6d_to_matrix(rotation_6d: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 3 3"]:
    """Gram-Schmidt of the two columns of the (3, 2) view (Zhou et al., CVPR 2019)."""
    a1, a2 = rotation_6d.unflatten(-1, (3, 2)).unbind(-1)
    b1 = F.normalize(a1, dim=-1)
    b2 = F.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1)
    # dim is given: the default picks the first axis of length 3, which a batch of 3 has.
    b3 = torch.linalg.cross(b1, b2, dim=-1)
    return torch.stack([b1, b2, b3], dim=-1)


def matrix_to_quaternion(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """Unit quaternions (w, x, y, z), w >= 0.

    Of the four formulas, the one with the largest divisor is used (Shepperd, 1978).
    """
    m = matrix
    trace_of = torch.stack(
        [
            1 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2],
            1 + m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] + m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] - m[..., 1, 1] + m[..., 2, 2],
        ],
        dim=-1,
    )
    yz, zx, xy = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    xy_, zx_, yz_ = (m[..., i, j] + m[..., j, i] for i, j in ((1, 0), (0, 2), (2, 1)))
    w_first, x_first, y_first, z_first = trace_of.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([w_first, yz, zx, xy], -1),
            torch.stack([yz, x_first, xy_, zx_], -1),
            torch.stack([zx, xy_, y_first, yz_], -1),
            torch.stack([xy, zx_, yz_, z_first], -1),
        ],
        dim=-2,
    )
    best = trace_of.argmax(-1)[..., None, None].expand(*trace_of.shape[:-1], 1, 4)
    quaternion = F.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_axis_angle(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """Axis-angle vectors with angles in [0, pi]; NaN (from a degenerate matrix) becomes zero."""
    quaternion = matrix_to_quaternion(matrix)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    squared = vector.square().sum(-1, keepdim=True)
    tiny = squared < 1e-14  # the ratio tends to 2; the gradient of the norm at 0 is undefined
    sine = torch.where(tiny, torch.ones_like(squared), squared).sqrt()
    ratio = torch.where(tiny, torch.full_like(sine, 2.0), 2 * torch.atan2(sine, w) / sine)
    return torch.nan_to_num(ratio * vector, nan=0.0)


def rotation_6d_to_axis_angle(rotation_6d: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 3"]:
    """Axis-angle vectors (radians) of the 6D rotations that the network's heads output."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(rotation_6d))


class CentredPoints(NamedTuple):
    """Points relative to their centroid, which float32 represents more precisely."""

    points: Float[Tensor, "B 3 N"]
    """float32, relative to the centroid."""
    centroid: Float[Tensor, "B 3 1"]
    """float64."""


def centred_in_place(points: Float[Tensor, "B 3 N"]) -> CentredPoints:
    """The points relative to their centroid; reuses the memory of `points`.

    Raises:
        ValueError: a coordinate is not finite.
    """
    centroid = points.mean(2, keepdim=True)
    if not centroid.isfinite().all():
        raise ValueError("points to compare must be finite numbers")
    return CentredPoints(points.sub_(centroid).float(), centroid.double())


def rooted_distances(
    predicted: CentredPoints,
    true: CentredPoints,
    roots: tuple[Float[Tensor, "B 3 1"], Float[Tensor, "B 3 1"]],
) -> Float[Tensor, "B N"]:
    """Distances after both sets are made relative to their roots (predicted and true, float64)."""
    offset = (predicted.centroid - roots[0]) - (true.centroid - roots[1])
    return _lengths((predicted.points - true.points).add_(offset.float()))


def aligned_distances(predicted: CentredPoints, true: CentredPoints) -> Float[Tensor, "B N"]:
    """Distances after the similarity transform that best aligns the prediction with the truth."""
    similarity = similarity_of_centred(predicted.points, true.points)
    return _lengths(torch.baddbmm(true.points, similarity, predicted.points, beta=-1))


def _lengths(vectors: Float[Tensor, "B 3 N"]) -> Float[Tensor, "B N"]:
    x, y, z = vectors.unbind(1)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def align_similarity(
    source: Float[Tensor, "B N 3"],
    target: Float[Tensor, "B N 3"],
    points: Float[Tensor, "B M 3"] | None = None,
    *,
    with_scale: bool = True,
) -> Float[Tensor, "B M 3"]:
    """Each source after the similarity transform (without reflection) that fits its target best.

    A source whose points all coincide is moved to the target's centroid.

    Args:
        points: if given, these are transformed in place of the source.
        with_scale: False uses a rotation and a translation only.

    Returns:
        The transformed points in the source's dtype.

    Raises:
        ValueError: a coordinate is not finite.
    """
    start, end = source.double().mT, target.double().mT
    middle, centroid = start.mean(2, keepdim=True), end.mean(2, keepdim=True)
    similarity = similarity_of_centred(start - middle, end - centroid, with_scale=with_scale)
    moved = similarity @ ((source if points is None else points).double().mT - middle)
    return (moved + centroid).mT.to(source.dtype)


def similarity_of_centred(
    source: Float[Tensor, "B 3 N"], target: Float[Tensor, "B 3 N"], *, with_scale: bool = True
) -> Float[Tensor, "B 3 3"]:
    """Rotation times scale that aligns each source best with its target (Umeyama, 1991).

    Points are relative to their centroids. Sums over points have the precision of the points
    (float32 needs `exact_products`); the rest is computed in float64.

    Raises:
        ValueError: a coordinate is not finite.
    """
    covariance = (source @ target.mT).double()
    variance = torch.linalg.vector_norm(source, dim=(1, 2)).double().square()
    if not (covariance.isfinite().all() and variance.isfinite().all()):
        raise ValueError("points to align must be finite numbers")

    U, singular_values, Vt = torch.linalg.svd(covariance)
    # If the best orthogonal matrix is a reflection, the sign of the smallest axis is changed.
    signs = torch.ones_like(singular_values)
    signs[:, 2] = torch.linalg.det(U @ Vt).sign()
    rotation = Vt.mT @ (signs[:, :, None] * U.mT)
    if not with_scale:
        return rotation.to(source.dtype)
    # The scale has no effect on a source without extent.
    scale = (signs * singular_values).sum(1) / variance.where(variance > 0, 1.0)
    return (scale[:, None, None] * rotation).to(source.dtype)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Compute float32 matrix products in full precision in the block, also under autocast."""
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(outside)


REACH: Final = 4.0
"""The kernel is truncated at this many standard deviations."""
_LEAST_SIGMA: Final = 0.2
"""Standard deviation, in samples, below which smoothing does nothing."""


def reach_of(sigma: float) -> int:
    """Number of samples on each side in a kernel of standard deviation `sigma` (in samples)."""
    return max(1, round(REACH * sigma))


def smooth(
    values: Float[np.ndarray, " T *C"], sigma: float, weights: Float[np.ndarray, " T"] | None = None
) -> Float[np.ndarray, " T *C"]:
    """Smooth values along the first axis by local linear regression.

    Args:
        values: samples at equal intervals of time.
        sigma: standard deviation of the kernel, in samples; below 0.2 nothing changes.
        weights: weight of each sample, 0 for a missing one; None: all equal. A value is kept if
            all samples in the kernel have weight 0.
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
    # A single sample determines no slope, so the fit is a constant.
    slope_known = spread > 1e-6 * np.maximum(zeroth, 1e-12) ** 2
    mean = moment(0, weighted) / np.maximum(zeroth, 1e-12)[:, None]
    line = (second[:, None] * moment(0, weighted) - first[:, None] * moment(1, weighted)) / (
        np.where(slope_known, spread, 1.0)[:, None]
    )
    fitted = np.where(slope_known[:, None], line, mean)
    result = np.where((zeroth > 1e-9)[:, None], fitted, columns)
    return result.reshape(values.shape).astype(values.dtype)


def align_signs(quaternions: Float[np.ndarray, "T *J 4"]) -> Float[np.ndarray, "T *J 4"]:
    """The same rotations, with signs such that dot products of successive quaternions are >= 0."""
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
    """Smooth rotations along the first axis, given as axis-angle vectors (radians) per joint.

    Angles of the result are at most pi. See `smooth`.
    """
    if sigma < _LEAST_SIGMA or len(axis_angles) < 2:
        return axis_angles.copy()
    quaternions = Rotation.from_rotvec(axis_angles.reshape(-1, 3).astype(np.float64)).as_quat()
    smoothed = smooth_rotations(quaternions.reshape(len(axis_angles), -1, 4), sigma, weights)
    vectors = Rotation.from_quat(smoothed.reshape(-1, 4)).as_rotvec()
    return vectors.reshape(axis_angles.shape).astype(axis_angles.dtype)


def interpolate_axis_angles(
    first: Float[np.ndarray, " J3"], last: Float[np.ndarray, " J3"], shares: Float[np.ndarray, " T"]
) -> Float[np.ndarray, "T J3"]:
    """Spherical linear interpolation between two sets of axis-angle vectors (radians) per joint.

    Args:
        shares: positions from 0 (`first`) to 1 (`last`).
    """
    start = Rotation.from_rotvec(first.reshape(-1, 3).astype(np.float64))
    step = (start.inv() * Rotation.from_rotvec(last.reshape(-1, 3).astype(np.float64))).as_rotvec()
    between = [(start * Rotation.from_rotvec(share * step)).as_rotvec() for share in shares]
    return np.stack(between).reshape(len(shares), -1).astype(first.dtype)

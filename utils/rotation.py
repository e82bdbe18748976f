"""Rotations: 6D, matrices and axis-angle vectors (radians), batched over any leading dimensions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
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

    Of the four ways to divide, the one with the largest divisor is taken (Shepperd, 1978).
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
    """Axis times angle, angle in [0, pi]; NaN (from a degenerate matrix) becomes zero."""
    quaternion = matrix_to_quaternion(matrix)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    squared = vector.square().sum(-1, keepdim=True)
    tiny = squared < 1e-14  # the ratio's limit is 2; the norm's gradient at 0 is not defined
    sine = torch.where(tiny, torch.ones_like(squared), squared).sqrt()
    ratio = torch.where(tiny, torch.full_like(sine, 2.0), 2 * torch.atan2(sine, w) / sine)
    return torch.nan_to_num(ratio * vector, nan=0.0)


def rotation_6d_to_axis_angle(rotation_6d: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 3"]:
    """Through the matrix; this is what the network's heads mean."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(rotation_6d))

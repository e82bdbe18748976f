"""Posing a body: from joint rotations and blend weights to points in space.

Points are kept with the coordinate before the point, (B, 3, V), so that the arithmetic runs
along the vertices; that is what makes it fast.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ancestor_steps(parents: Sequence[int]) -> Int[Tensor, "S joints_and_world"]:
    """For each joint its ancestor 1, 2, 4, ... generations up, until all are past the root.

    Number J stands for the world, above the root. `parents` lists parents first, the root's
    is -1.
    """
    world = len(parents)
    up = torch.tensor([world if parent < 0 else parent for parent in [*parents, -1]])
    steps = []
    while bool((up < world).any()):
        steps.append(up)
        up = up[up]
    return torch.stack(steps)


def forward_kinematics(
    rotations: Float[Tensor, "B J 3 3"],
    rest_joints: Float[Tensor, "B J 3"],
    parents: Int[Tensor, " J-1"],
    steps: Int[Tensor, "S J+1"],
) -> Float[Tensor, "B J 3 4"]:
    """Rigid transform [R | t] of each joint's frame into the body's frame, metres.

    Args:
        rotations: of each joint relative to its parent.
        rest_joints: positions in the rest pose.
        parents: of every joint but the first.
        steps: of `ancestor_steps`. A chain of products is computed by doubling: after k steps
            each transform has taken in 2^k generations, so 4 products serve the 11 of SMPL-X.
    """
    root, rest = rest_joints[:, :1], rest_joints[:, 1:]
    offsets = torch.cat([root, rest - rest_joints.index_select(1, parents)], dim=1)
    to_parent = torch.cat([rotations, offsets[..., None]], dim=-1)
    identity = torch.eye(4, dtype=rotations.dtype, device=rotations.device)
    bottom_rows = identity[3].expand(*to_parent.shape[:2], 1, 4)
    world = identity.expand(len(to_parent), 1, 4, 4)
    transforms = torch.cat([torch.cat([to_parent, bottom_rows], dim=2), world], dim=1)
    for ancestors in steps:
        transforms = transforms.index_select(1, ancestors) @ transforms
    return transforms[:, :-1, :3]


def skinning_transforms(
    transforms: Float[Tensor, "B J 3 4"], rest_joints: Float[Tensor, "B J 3"]
) -> Float[Tensor, "B J 3 4"]:
    """Transforms that carry a point of the rest pose along with each joint."""
    rotations, positions = transforms[..., :3], transforms[..., 3:]
    return torch.cat([rotations, positions - rotations @ rest_joints[..., None]], dim=-1)


def linear_blend_skinning(
    points: Float[Tensor, "B 3 V"],
    transforms: Float[Tensor, "B J 3 4"],
    weights: Float[Tensor, "J V"],
) -> Float[Tensor, "B 3 V"]:
    """Move each point by the weighted mean of the joints' transforms (Loper et al., 2015)."""
    batch, joints = transforms.shape[:2]
    columns = transforms.permute(3, 0, 2, 1).reshape(-1, joints) @ weights
    column_x, column_y, column_z, moved = columns.view(4, batch, 3, -1).unbind(0)
    for column, axis in ((column_x, 0), (column_y, 1), (column_z, 2)):
        moved = torch.addcmul(moved, column, points[:, None, axis])
    return moved


def interpolate(
    points: Float[Tensor, "B 3 V"],
    corners: Int[Tensor, "B L 3"],
    barycentrics: Float[Tensor, "B L 3"],
) -> Float[Tensor, "B 3 L"]:
    """Points inside triangles, given by three vertices each and their weights."""
    index = corners.flatten(1)[:, None].expand(-1, 3, -1)
    return (points.gather(2, index).unflatten(2, (-1, 3)) * barycentrics[:, None]).sum(-1)


def contour_row(neck: Float[Tensor, "B 3 3"], rows: int = 79) -> Int[Tensor, " B"]:
    """Row of the table of contour points that fits the turn of the head.

    The outline of a face moves over the skin as the head turns about the vertical axis. Rows
    0 to 39 are for turns of 0 to -39 degrees and rows 40 to 78 for +1 to +39 degrees; further
    turns take the last row of their side.

    Args:
        neck: rotation of the neck in the body's frame (the head's own is not counted).
        rows: of the table: one more than twice the largest turn.
    """
    neck = neck.detach()
    turn = torch.atan2(-neck[:, 2, 0], torch.hypot(neck[:, 0, 0], neck[:, 1, 0]))
    largest = rows // 2
    degrees = torch.rad2deg(-turn).nan_to_num(0.0).clamp(-largest - 1, largest).round().long()
    return torch.where(degrees < 0, (largest - degrees).clamp(max=rows - 1), degrees)

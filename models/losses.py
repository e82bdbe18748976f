"""The published losses: distances between predictions and a batch of targets, term by term.

All are mean absolute differences; the mean is over all elements of a sample, including unknown ones
(mask 0) as zeros. Targets and masks are those of collated training samples: `target_*`, `meta_*` of
the published code.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from configs.schema import Config, ModelConfig, Protocol
from human_models.joints import BODY_JOINTS, JOINT_PARTS, JOINTS, POSE_JOINTS, RIG_PARENTS, SIDES
from models.smplest_x import HeadOutputs, PosedBody, part_relative, root_relative
from utils.geometry import axis_angle_to_matrix, rotation_6d_to_matrix


def _from_pelvis(joint: str) -> list[int]:
    """Indices of this joint and its ancestors, the pelvis first."""
    chain = [BODY_JOINTS.index(joint)]
    while (parent := RIG_PARENTS[chain[0]]) >= 0:
        chain.insert(0, parent)
    return chain


_PELVIS: Final = JOINTS.index("pelvis")
_HANDS: Final = slice(JOINT_PARTS["left_hand"].start, JOINT_PARTS["right_hand"].stop)
_WRISTS: Final = [POSE_JOINTS.index(f"{side}_wrist") for side in SIDES]
_THUMBS: Final = [POSE_JOINTS.index(f"{side}_thumb1") for side in SIDES]
_WRIST_CHAINS: Final = [_from_pelvis(f"{side}_wrist") for side in SIDES]


def training_losses(
    heads: HeadOutputs,
    posed: PosedBody,
    targets: Mapping[str, Tensor],
    config: Config,
    protocol: Protocol = "correct",
) -> dict[str, Float[Tensor, " B"]]:
    """Each term of the loss for each sample, weighted by `config.train`.

    The loss is the sum of the means of the terms. Computed in float32 also under autocast.

    Args:
        posed: the body of the heads (`pose_body`); its vertices are not needed.
        targets: a batch of `datasets.targets.Targets`.
        protocol: with "published", part-relative joints of samples without 3D joints are pulled to
            zero, and global rotations of hands are compared with both kinds of ground truth,
            whichever the sample has, in the proportion of the batch.
    """
    train = config.train
    with torch.autocast(heads.body_root_pose.device.type, enabled=False):
        heads = HeadOutputs(*(output.float() for output in heads))
        # Not by axis-angle vectors, which are not smooth at an angle of pi.
        pose = rotation_6d_to_matrix(heads.rotations_6d)
        true_pose = axis_angle_to_matrix(targets["target_smplx_pose"].unflatten(1, (-1, 3)))
        terms = {
            **_parameter_losses(pose, true_pose, heads, targets, config),
            **_joint_losses(posed, targets, config, protocol),
        }
        wrists = _wrist_targets(true_pose, targets, protocol)
        hand_roots = rotation_6d_to_matrix(heads.hand_root_pose.unflatten(1, (2, 6)))
        terms["hand_root"] = train.hand_root_weight * wrists.loss(hand_roots)
        if not train.no_chain_hand_loss:
            # The root has its own terms; this one is only for its descendants.
            chained = _wrist_rotations(torch.cat([pose[:, :1].detach(), pose[:, 1:]], dim=1))
            terms["hand_root_chain"] = train.hand_root_weight * wrists.loss(chained)
    return terms


def _masked_l1(
    predicted: Float[Tensor, "B ..."], target: Float[Tensor, "B ..."], known: Float[Tensor, "B ..."]
) -> Float[Tensor, " B"]:
    return ((predicted - target).abs() * known).flatten(1).mean(1)


def _parameter_losses(
    pose: Float[Tensor, "B 53 3 3"],
    true_pose: Float[Tensor, "B 53 3 3"],
    heads: HeadOutputs,
    targets: Mapping[str, Tensor],
    config: Config,
) -> dict[str, Float[Tensor, " B"]]:
    train = config.train
    rotations = pose.flatten(1), true_pose.flatten(1), targets["meta_smplx_pose_valid"]
    orient = (values[:, :9] for values in rotations)
    shape_known, expression_known = (
        targets[f"meta_smplx_{name}_valid"][:, None] for name in ("shape", "expr")
    )
    shape = _masked_l1(heads.body_shape, targets["target_smplx_shape"], shape_known)
    expression = _masked_l1(heads.face_expression, targets["target_smplx_expr"], expression_known)
    return {
        "smplx_orient": train.smplx_orient_weight * _masked_l1(*orient),
        "smplx_pose": train.smplx_pose_weight * _masked_l1(*rotations),
        "smplx_shape": train.smplx_shape_weight * shape,
        "smplx_expr": expression,
    }


def _joint_losses(
    posed: PosedBody, targets: Mapping[str, Tensor], config: Config, protocol: Protocol
) -> dict[str, Float[Tensor, " B"]]:
    train = config.train
    in_crop = targets["meta_joint_trunc"]
    has_3d = targets["meta_is_3D"][:, None, None]
    from_pelvis = (
        root_relative(posed.joints),
        targets["target_joint_cam"],
        in_crop * has_3d * in_crop[:, _PELVIS, None],
    )
    from_part_root = (
        part_relative(posed.joints),
        targets["target_smplx_joint_cam"],
        in_crop if protocol == "published" else in_crop * has_3d,
    )
    in_grid = (
        _in_grid(posed.joints_2d, config.model),
        targets["target_joint_img"][..., :2],
        in_crop,
    )
    terms = {
        "joint_cam": train.smplx_kps_3d_weight * _masked_l1(*from_pelvis),
        "smplx_joint_cam": train.smplx_kps_3d_weight * _masked_l1(*from_part_root),
        "joint_proj": train.smplx_kps_2d_weight * _masked_l1(*in_grid),
    }
    if train.hand_loss:
        for name, joints in (("hand_align", from_pelvis), ("hand_pose", from_part_root)):
            hands = (values[:, _HANDS] for values in joints)
            terms[name] = train.smplx_hand_kps_3d_weight * _masked_l1(*hands)
    return terms


def _in_grid(joints_px: Float[Tensor, "B 137 2"], model: ModelConfig) -> Float[Tensor, "B 137 2"]:
    """From pixels of the network's input to cells of the grid for supervising 2D joints."""
    _, grid_height, grid_width = model.output_hm_shape
    height, width = model.input_body_shape
    x, y = joints_px.unbind(2)
    return torch.stack([x * (grid_width / width), y * (grid_height / height)], dim=2)


def _wrist_rotations(pose: Float[Tensor, "B J 3 3"]) -> Float[Tensor, "B 2 3 3"]:
    """Rotations of the wrists in the camera's frame: products along the chain from the pelvis."""
    local = pose.unbind(1)
    both_sides = zip(*_WRIST_CHAINS, strict=True)
    return reduce(torch.matmul, (_stacked(local, joints) for joints in both_sides))


def _stacked(by_joint: Sequence[Tensor], joints: Sequence[int]) -> Float[Tensor, "B J ..."]:
    """Some joints, selected without an index tensor, for which the device would have to wait."""
    return torch.stack([by_joint[joint] for joint in joints], dim=1)


class _WristTargets(NamedTuple):
    """True rotations of the wrists in the camera's frame, from bodies and from hands alone.

    Weights of unknown hands are 0.
    """

    of_body: Float[Tensor, "B 2 3 3"]
    of_hand: Float[Tensor, "B 2 3 3"]
    body_weight: Float[Tensor, "B 2"]
    hand_weight: Float[Tensor, "B 2"]

    def loss(self, predicted: Float[Tensor, "B 2 3 3"]) -> Float[Tensor, " B"]:
        """Sum over both hands."""
        by_body = (predicted - self.of_body).abs().mean((2, 3)) * self.body_weight
        by_hand = (predicted - self.of_hand).abs().mean((2, 3)) * self.hand_weight
        return (by_body + by_hand).sum(1)


def _wrist_targets(
    true_pose: Float[Tensor, "B 53 3 3"], targets: Mapping[str, Tensor], protocol: Protocol
) -> _WristTargets:
    """Targets from bodies for samples with the pelvis in the crop, else from hands alone."""
    hand_roots = torch.cat([targets["target_lhand_root"], targets["target_rhand_root"]], dim=1)
    known = targets["meta_smplx_pose_valid"][:, ::9].unbind(1)
    body_weight, hand_weight = _stacked(known, _WRISTS), _stacked(known, _THUMBS)
    has_body = targets["meta_joint_trunc"][:, _PELVIS]
    if protocol == "published":
        has_body = has_body.mean(0, keepdim=True)
    else:
        hand_weight = hand_weight * hand_roots.any(2)  # a root of zeros is unknown
    return _WristTargets(
        of_body=_wrist_rotations(true_pose),
        of_hand=axis_angle_to_matrix(hand_roots),
        body_weight=body_weight * has_body,
        hand_weight=hand_weight * (1 - has_body),
    )

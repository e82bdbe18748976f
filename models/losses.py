"""Losses: distances between predictions and a batch of targets, term by term.

All are mean absolute differences; the mean is over all elements of a sample, including unknown ones
(mask 0) as zeros. Targets and masks are those of collated training samples: `target_*`, `meta_*` of
the published code.

The second half is auxiliary supervision. A network that regresses only rotations from random
weights predicts the mean pose for a long time. Finding joints in the image is learned in minutes,
and helps to learn rotations. The config can therefore add three kinds of supervision: joints on the
feature map (as in ViTPose, Xu et al., NeurIPS 2022), positions of joints in the pose tokens of the
decoder, and attention of the pose tokens to their joints, which learns slowly from random weights
(Meng et al., Conditional DETR, ICCV 2021).
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from configs.schema import Config, ModelConfig, Protocol
from human_models.joints import BODY_JOINTS, JOINT_PARTS, JOINTS, POSE_JOINTS, RIG_PARENTS, SIDES
from models.smplest_x import (
    DEPTH_UNIT_M,
    HEADS,
    UNSUPERVISED_HEADS,
    HeadOutputs,
    KeypointHead,
    PosedBody,
    SMPLestX,
    TokenDecoder,
    cell_of,
    observed_keypoints,
    part_relative,
    root_relative,
)
from models.vit import ViT
from utils.devices import constants, picked, runs_of
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

    The loss is the sum of the means of the terms. `posed` is the body of the heads (`pose_body`);
    its vertices are not needed. Computed in float32 also under autocast.

    With "published", part-relative joints of samples without 3D joints are pulled to zero, and
    global rotations of hands are compared with both kinds of ground truth, whichever the sample
    has, in the proportion of the batch.
    """
    train = config.train
    with torch.autocast(heads.body_root_pose.device.type, enabled=False):
        heads = HeadOutputs(*(output.float() for output in heads))
        pose = _pose_matrices(heads)
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


def _pose_matrices(heads: HeadOutputs) -> Float[Tensor, "B 53 3 3"]:
    """Rotations of `joints.POSE_JOINTS`.

    They are computed directly from the 6D representation, because axis-angle vectors are not
    smooth at an angle of pi.
    """
    parts = (heads.body_root_pose, heads.body_pose, heads.hand_pose, heads.face_jaw_pose)
    return rotation_6d_to_matrix(torch.cat(parts, dim=1).unflatten(1, (-1, 6)))


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


NETWORK: Final = "network."
"""Prefix of the names of weights of the published network."""
_TOKENS_OF_JOINTS: Final = ("body_root_pose", "body_pose", "hand_pose", "face_jaw_pose")
"""Heads with one token per joint, in the order of `joints.POSE_JOINTS`."""
_PLACED: Final = [name for name in POSE_JOINTS if name in JOINTS]
PLACED_JOINTS: Final = [JOINTS.index(name) for name in _PLACED]
PLACED_POSES: Final = [POSE_JOINTS.index(name) for name in _PLACED]
"""Joints that are both regressed as rotations and supervised as points: indices of either."""


def _pose_tokens() -> list[int]:
    start, of_heads = 0, {}
    for head in HEADS:
        of_heads[head.name] = range(start, start + head.tokens)
        start += head.tokens
    return [token for name in _TOKENS_OF_JOINTS for token in of_heads[name]]


POSE_TOKENS: Final = _pose_tokens()
"""The task token of each rotation, in the order of `joints.POSE_JOINTS`."""
_PLACED_TOKENS: Final = runs_of([POSE_TOKENS[pose] for pose in PLACED_POSES])
"""Task tokens of joints that are supervised as points."""
_PLACED_JOINTS, _PLACED_POSES = runs_of(PLACED_JOINTS), runs_of(PLACED_POSES)
_ALL_POSE_TOKENS: Final = runs_of(POSE_TOKENS)


class TokenJointHead(nn.Module):
    """Estimates the position of the joint of each pose token."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.place = nn.Linear(token_dim, 3)

    def forward(self, tokens: Float[Tensor, "B 80 O"]) -> Float[Tensor, "B 53 3"]:
        """x, y from the middle of the crop in its width and height; depth from the pelvis, metres.

        Computed in float32 also under autocast.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            return self.place(picked(tokens, _ALL_POSE_TOKENS).float())


class AttentionScores:
    """Scores of the first head of each cross-attention in the last forward pass.

    Scores of image tokens before the softmax are scores of the cells of the crop that may contain
    the joint of a token, and are supervised as such.
    """

    def __init__(self, decoder: TokenDecoder, head_dim: int) -> None:
        self._head_dim, self._layers = head_dim, len(decoder.layers)
        self._projected: dict[tuple[int, str], Tensor] = {}
        for k, layer in enumerate(decoder.layers):
            attention = layer.get_submodule("cross_attention")
            for name in ("to_q", "to_kv"):
                keep = partial(self._keep, (k, name))
                attention.get_submodule(name).register_forward_hook(keep)

    def _keep(self, key: tuple[int, str], module: nn.Module, _: object, projected: Tensor) -> None:
        if module.training:
            self._projected[key] = projected[..., : self._head_dim].float()

    def scores(self) -> Float[Tensor, "L B J N"]:
        """Scores in L layers, of J = len(PLACED_JOINTS) tokens for N image tokens.

        Computed in float32 also under autocast.
        """
        of_layers = []
        for k in range(self._layers):
            queries, keys = self._projected[k, "to_q"], self._projected[k, "to_kv"]
            with torch.autocast(queries.device.type, enabled=False):
                of_layers.append(picked(queries, _PLACED_TOKENS) @ keys.mT)
        return torch.stack(of_layers) * self._head_dim**-0.5


class SupervisedOutputs(NamedTuple):
    heads: HeadOutputs
    keypoints: Float[Tensor, "B 137 4 h w"] | None
    token_joints: Float[Tensor, "B 53 3"] | None
    attention: Float[Tensor, "L B J N"] | None
    """Scores of the cells; None in evaluation. See `AttentionScores`."""


class SupervisedSMPLestX(nn.Module):
    """The network, with the auxiliary heads that have a weight in the config."""

    def __init__(self, network: SMPLestX, config: Config) -> None:
        super().__init__()
        self.network = network
        model, train = config.model, config.train
        self._wants_keypoints = train.keypoint_weight > 0
        beside = self._wants_keypoints and network.keypoint_head is None
        self.keypoint_head = KeypointHead(model.encoder_config.embed_dim) if beside else None
        self.token_joint_head = (
            TokenJointHead(model.decoder_config.dim_out) if train.token_joint_weight else None
        )
        self._attention = (
            AttentionScores(network.decoder, model.decoder_config.head_dim)
            if train.attention_weight
            else None
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> SupervisedOutputs:
        tokens, keypoints, feature_map = self.network.tokens(images)
        if self.keypoint_head is not None:
            keypoints = self.keypoint_head(feature_map)
        return SupervisedOutputs(
            self.network.regress(tokens),
            keypoints if self._wants_keypoints else None,
            self.token_joint_head(tokens) if self.token_joint_head else None,
            self._attention.scores() if self._attention and self.training else None,
        )


class KeypointNetwork(nn.Module):
    """An encoder that learns to find joints, without task tokens, as pre-training in ViTPose."""

    def __init__(self, encoder: ViT, channels: int, head: KeypointHead | None = None) -> None:
        """`head`: an existing head of the encoder."""
        super().__init__()
        self.network = nn.ModuleDict({"encoder": encoder})
        encoder.task_tokens.requires_grad_(False)
        self.keypoint_head = KeypointHead(channels) if head is None else head

    @property
    def encoder(self) -> ViT:
        encoder = self.network["encoder"]
        assert isinstance(encoder, ViT)
        return encoder

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 137 4 h w"]:
        return self.keypoint_head(self.encoder.feature_map(images))


class LiftingNetwork(nn.Module):
    """A network whose lifter and heads learn to lift joints to 3D, without pictures."""

    def __init__(self, network: SMPLestX) -> None:
        """Raises ValueError if the network has no lifter."""
        super().__init__()
        if network.lifter is None:
            raise ValueError("a network without a lifter")
        self.network = network.requires_grad_(False)
        network.lifter.requires_grad_(True)
        network.lifter.to_query.requires_grad_(False)  # for the decoder, which is not used
        for name, head in network.heads.items():
            head.requires_grad_(name not in UNSUPERVISED_HEADS)

    def forward(self, keypoints: Float[Tensor, "B 137 4"]) -> HeadOutputs:
        return self.network.lift(keypoints)


def keypoint_loss(
    predicted: Float[Tensor, "B 137 4 h w"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the right cell, and errors of position (cells) and depth (half metres).

    Body, hands and face have equal weights; depth counts if there are 3D joints.
    """
    height, width = predicted.shape[-2:]
    places, known = places_in_crop(targets, config)
    right = cell_of(places, height, width)
    miss = F.cross_entropy(
        predicted[:, :, 0].flatten(2).flatten(0, 1), right.flatten(), reduction="none"
    )
    observed = observed_keypoints(predicted)
    away = (observed[..., :2] + 0.5 - places).abs()
    place = (away * constants((width, height), away)).mean(-1)
    depth = (observed[..., 2] - targets["target_joint_cam"][..., 2]).abs() / DEPTH_UNIT_M
    error = miss.unflatten(0, right.shape) + place + depth * targets["meta_is_3D"][:, None]
    parts = [
        (error * known)[:, part].sum(1) / known[:, part].sum(1).clamp(min=1)
        for part in JOINT_PARTS.values()
    ]
    return torch.stack(parts).mean(0)


def token_joint_loss(
    predicted: Float[Tensor, "B 53 3"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Mean absolute error of positions in the crop, and of depths if there are 3D joints."""
    places, known = places_in_crop(targets, config)
    depth = picked(targets["target_joint_cam"], _PLACED_JOINTS)[..., 2:]
    target = torch.cat([picked(places, _PLACED_JOINTS) - 0.5, depth], dim=2)
    seen = picked(known, _PLACED_JOINTS)[..., None].float()
    weight = torch.cat([seen.expand(-1, -1, 2), seen * targets["meta_is_3D"][:, None, None]], dim=2)
    return ((picked(predicted, _PLACED_POSES) - target).abs() * weight).sum(2).mean(1)


def attention_loss(
    scores: Float[Tensor, "L B J N"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the cell with the joint, averaged over joints in the crop and layers."""
    encoder = config.encoder_config
    grid = [side // encoder.patch_size for side in encoder.img_size]
    places, known = places_in_crop(targets, config)
    right = cell_of(picked(places, _PLACED_JOINTS), *grid).expand(len(scores), -1, -1)
    miss = F.cross_entropy(scores.flatten(0, 2), right.flatten(), reduction="none")
    seen = picked(known, _PLACED_JOINTS)
    of_sample = miss.unflatten(0, right.shape).mean(0) * seen
    return of_sample.sum(1) / seen.sum(1).clamp(min=1)


def places_in_crop(
    targets: Mapping[str, Tensor], config: ModelConfig
) -> tuple[Float[Tensor, "B 137 2"], Bool[Tensor, "B 137"]]:
    """Positions of joints as shares of the crop's width and height, and which are inside."""
    _, height, width = config.output_hm_shape
    joints = targets["target_joint_img"][..., :2]
    places = joints / constants((width, height), joints)
    inside = ((places >= 0) & (places < 1)).all(-1)
    return places, inside & (targets["meta_joint_valid"][..., 0] > 0)

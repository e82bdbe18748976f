"""Auxiliary supervision: the networks as training has them, with more heads, and their losses.

A network that regresses only rotations from random weights predicts the mean pose for a long time.
Finding joints in the image is learned in minutes, and helps to learn rotations. The config can
therefore add three kinds of supervision: joints on the feature map (as in ViTPose, Xu et al.,
NeurIPS 2022), positions of joints in the pose tokens of the decoder, and attention of the pose
tokens to their joints, which learns slowly from random weights (Meng et al., Conditional DETR, ICCV
2021).
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from configs.schema import Config, ModelConfig
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS
from models.smplest_x import (
    DEPTH_UNIT_M,
    HEADS,
    ROTATION_HEADS,
    UNSUPERVISED_HEADS,
    HeadOutputs,
    KeypointHead,
    SMPLestX,
    TokenDecoder,
    cell_of,
    observed_keypoints,
)
from models.vit import ViT
from utils.devices import constants, picked, runs_of

NETWORK: Final = "network."
"""Prefix of the names of weights of the published network."""
_PLACED: Final = [name for name in POSE_JOINTS if name in JOINTS]
PLACED_JOINTS: Final = [JOINTS.index(name) for name in _PLACED]
PLACED_POSES: Final = [POSE_JOINTS.index(name) for name in _PLACED]
"""Joints that are both regressed as rotations and supervised as points: indices of either."""
_HEAD_OF_TOKEN: Final = [head.name for head in HEADS for _ in range(head.tokens)]
POSE_TOKENS: Final = [
    token for name in ROTATION_HEADS for token, head in enumerate(_HEAD_OF_TOKEN) if head == name
]
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
    """What the losses compare with the targets; None without the respective loss."""

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
        lacks_head = self._wants_keypoints and network.keypoint_head is None
        self.keypoint_head = KeypointHead(model.encoder_config.embed_dim) if lacks_head else None
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

    def __init__(self, encoder: ViT, head: KeypointHead | None = None) -> None:
        """
        Args:
            head: an existing head of the encoder.
        """
        super().__init__()
        self.network = nn.ModuleDict({"encoder": encoder})
        encoder.task_tokens.requires_grad_(False)
        self.keypoint_head = head or KeypointHead(encoder.task_tokens.shape[2])

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
        super().__init__()
        assert network.lifter is not None
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
    positions, known = positions_in_crop(targets, config)
    cells = cell_of(positions, height, width)
    cell_loss = F.cross_entropy(
        predicted[:, :, 0].flatten(2).flatten(0, 1), cells.flatten(), reduction="none"
    )
    observed = observed_keypoints(predicted)
    offsets = (observed[..., :2] + 0.5 - positions).abs()
    offset = (offsets * constants((width, height), offsets)).mean(-1)
    depth = (observed[..., 2] - targets["target_joint_cam"][..., 2]).abs() / DEPTH_UNIT_M
    error = cell_loss.unflatten(0, cells.shape) + offset + depth * targets["meta_is_3D"][:, None]
    parts = [
        (error * known)[:, part].sum(1) / known[:, part].sum(1).clamp(min=1)
        for part in JOINT_PARTS.values()
    ]
    return torch.stack(parts).mean(0)


def token_joint_loss(
    predicted: Float[Tensor, "B 53 3"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Mean absolute error of positions in the crop, and of depths if there are 3D joints."""
    positions, known = positions_in_crop(targets, config)
    depth = picked(targets["target_joint_cam"], _PLACED_JOINTS)[..., 2:]
    target = torch.cat([picked(positions, _PLACED_JOINTS) - 0.5, depth], dim=2)
    seen = picked(known, _PLACED_JOINTS)[..., None].float()
    weight = torch.cat([seen.expand(-1, -1, 2), seen * targets["meta_is_3D"][:, None, None]], dim=2)
    return ((picked(predicted, _PLACED_POSES) - target).abs() * weight).sum(2).mean(1)


def attention_loss(
    scores: Float[Tensor, "L B J N"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the cell with the joint, averaged over joints in the crop and layers."""
    encoder = config.encoder_config
    grid = [side // encoder.patch_size for side in encoder.img_size]
    positions, known = positions_in_crop(targets, config)
    cells = cell_of(picked(positions, _PLACED_JOINTS), *grid).expand(len(scores), -1, -1)
    cell_loss = F.cross_entropy(scores.flatten(0, 2), cells.flatten(), reduction="none")
    seen = picked(known, _PLACED_JOINTS)
    of_sample = cell_loss.unflatten(0, cells.shape).mean(0) * seen
    return of_sample.sum(1) / seen.sum(1).clamp(min=1)


def positions_in_crop(
    targets: Mapping[str, Tensor], config: ModelConfig
) -> tuple[Float[Tensor, "B 137 2"], Bool[Tensor, "B 137"]]:
    """Positions of joints as shares of the crop's width and height, and which are inside."""
    _, height, width = config.output_hm_shape
    joints = targets["target_joint_img"][..., :2]
    positions = joints / constants((width, height), joints)
    inside = ((positions >= 0) & (positions < 1)).all(-1)
    return positions, inside & (targets["meta_joint_valid"][..., 0] > 0)

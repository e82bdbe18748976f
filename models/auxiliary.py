"""Heads that only training has, and their losses: joints before parameters.

A network that regresses rotations alone from random weights stays with the mean pose for long. What
finds joints in the image is learned in minutes, and rotations are learned from it: the feature map
points at joints (as ViTPose, Xu et al., NeurIPS 2022, learns), and the decoder's pose tokens tell
where their joints are.
"""

from collections.abc import Mapping
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from configs.schema import ModelConfig
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS
from models.heads import HEADS

_TOKENS_OF_JOINTS: Final = ("body_root_pose", "body_pose", "hand_pose", "face_jaw_pose")
"""Heads whose tokens stand for a joint each, in the order of `joints.POSE_JOINTS`."""
_PLACED: Final = [name for name in POSE_JOINTS if name in JOINTS]


class KeypointHead(nn.Module):
    """Scores of the feature map's cells for every joint, and the place within the cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, 3 * len(JOINTS), kernel_size=1)

    def forward(self, feature_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 137 3 h w"]:
        """Score, and offset x and y from the cell's middle in cells."""
        return self.final_layer(feature_map).float().unflatten(1, (-1, 3))


class TokenJointHead(nn.Module):
    """Where the joint of each pose token is."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.place = nn.Linear(token_dim, 3)
        starts = {}
        start = 0
        for head in HEADS:
            starts[head.name] = range(start, start + head.tokens)
            start += head.tokens
        self._tokens = [token for name in _TOKENS_OF_JOINTS for token in starts[name]]

    def forward(self, tokens: Float[Tensor, "B 80 O"]) -> Float[Tensor, "B 53 3"]:
        """x, y from the crop's middle in its widths and heights; depth from the pelvis, metres."""
        return self.place(tokens[:, self._tokens].float())


def keypoint_loss(
    predicted: Float[Tensor, "B 137 3 h w"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the right cell plus the offset's error in cells; body, hands, face alike."""
    height, width = predicted.shape[-2:]
    places, known = places_in_crop(targets, config)
    cells = places * places.new_tensor([width, height])
    column, row = (
        cells[..., k].floor().clamp(0, size - 1).long() for k, size in enumerate((width, height))
    )
    scores, offsets = predicted[:, :, 0].flatten(2), predicted[:, :, 1:].flatten(3)
    right = row * width + column
    miss = F.cross_entropy(scores.flatten(0, 1), right.flatten(), reduction="none")
    offset = offsets.gather(3, right[..., None, None].expand(-1, -1, 2, -1))[..., 0]
    middle = torch.stack([column, row], dim=-1) + 0.5
    error = miss.unflatten(0, right.shape) + (offset - (cells - middle)).abs().mean(-1)
    parts = [
        (error * known)[:, part].sum(1) / known[:, part].sum(1).clamp(min=1)
        for part in JOINT_PARTS.values()
    ]
    return torch.stack(parts).mean(0)


def found_keypoints(
    predicted: Float[Tensor, "B 137 3 h w"], config: ModelConfig
) -> Float[Tensor, "B 137 2"]:
    """Where the best cell of each joint says it is, in pixels of the network's input."""
    height, width = predicted.shape[-2:]
    scores, offsets = predicted[:, :, 0].flatten(2), predicted[:, :, 1:].flatten(3)
    best = scores.argmax(2)
    offset = offsets.gather(3, best[..., None, None].expand(-1, -1, 2, -1))[..., 0]
    cells = torch.stack([best % width, best // width], dim=-1) + 0.5 + offset
    input_height, input_width = config.input_body_shape
    return cells * cells.new_tensor([input_width / width, input_height / height])


def token_joint_loss(
    predicted: Float[Tensor, "B 53 3"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Mean absolute error of places in the crop, and of depths where there are 3D joints."""
    joints = [JOINTS.index(name) for name in _PLACED]
    tokens = [POSE_JOINTS.index(name) for name in _PLACED]
    places, known = places_in_crop(targets, config)
    depth = targets["target_joint_cam"][:, joints, 2:]
    target = torch.cat([places[:, joints] - 0.5, depth], dim=2)
    seen = known[:, joints, None].float()
    weight = torch.cat([seen.expand(-1, -1, 2), seen * targets["meta_is_3D"][:, None, None]], dim=2)
    return ((predicted[:, tokens] - target).abs() * weight).sum(2).mean(1)


def places_in_crop(
    targets: Mapping[str, Tensor], config: ModelConfig
) -> tuple[Float[Tensor, "B 137 2"], Bool[Tensor, "B 137"]]:
    """Places of the joints as shares of the crop's width and height, and which are in it."""
    _, height, width = config.output_hm_shape
    joints = targets["target_joint_img"][..., :2]
    places = joints / joints.new_tensor([width, height])
    inside = ((places >= 0) & (places < 1)).all(-1)
    return places, inside & (targets["meta_joint_valid"][..., 0] > 0)

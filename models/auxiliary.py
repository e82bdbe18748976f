"""Heads that only training has, and their losses: joints before parameters.

A network that regresses rotations alone from random weights stays with the mean pose for long. What
finds joints in the image is learned in minutes, and rotations are learned from it: the feature map
points at joints (as ViTPose, Xu et al., NeurIPS 2022, learns), and the decoder's pose tokens say
where their joints are.
"""

from collections.abc import Mapping
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from configs.schema import ModelConfig
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS
from models.heads import HEADS

_TOKENS_OF_JOINTS: Final = ("body_root_pose", "body_pose", "hand_pose", "face_jaw_pose")
"""Heads whose tokens stand for a joint each, in the order of `joints.POSE_JOINTS`."""
DEPTH_UNIT_M: Final = 0.5
_PLACED: Final = [name for name in POSE_JOINTS if name in JOINTS]
PLACED_JOINTS: Final = [JOINTS.index(name) for name in _PLACED]
PLACED_POSES: Final = [POSE_JOINTS.index(name) for name in _PLACED]
"""Joints that are both regressed as rotations and supervised as points; as points, as rotations."""


def _pose_tokens() -> list[int]:
    start, of_heads = 0, {}
    for head in HEADS:
        of_heads[head.name] = range(start, start + head.tokens)
        start += head.tokens
    return [token for name in _TOKENS_OF_JOINTS for token in of_heads[name]]


POSE_TOKENS: Final = _pose_tokens()
"""The task token of each rotation, in the order of `joints.POSE_JOINTS`."""


class KeypointHead(nn.Module):
    """Scores of the feature map's cells for every joint, the place within the cell, the depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, 4 * len(JOINTS), kernel_size=1)

    def forward(self, feature_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 137 4 h w"]:
        """Score; x and y from the cell's middle in cells; depth from the pelvis in half metres."""
        return self.final_layer(feature_map).float().unflatten(1, (len(JOINTS), 4))


class TokenJointHead(nn.Module):
    """Where the joint of each pose token is."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.place = nn.Linear(token_dim, 3)

    def forward(self, tokens: Float[Tensor, "B 80 O"]) -> Float[Tensor, "B 53 3"]:
        """x, y from the crop's middle in its widths and heights; depth from the pelvis, metres."""
        return self.place(tokens[:, POSE_TOKENS].float())


def keypoint_loss(
    predicted: Float[Tensor, "B 137 4 h w"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the right cell plus, in it, the errors of place and depth.

    Body, hands and face weigh alike; depth counts where there are 3D joints.
    """
    height, width = predicted.shape[-2:]
    places, known = places_in_crop(targets, config)
    cells = places * places.new_tensor([width, height])
    right = cell_of(places, height, width)
    miss = F.cross_entropy(
        predicted[:, :, 0].flatten(2).flatten(0, 1), right.flatten(), reduction="none"
    )
    there = at_cells(predicted[:, :, 1:], right)
    offset = (there[..., :2] - (cells - middles(right, width))).abs().mean(-1)
    depth = (there[..., 2] - targets["target_joint_cam"][..., 2] / DEPTH_UNIT_M).abs()
    error = miss.unflatten(0, right.shape) + offset + depth * targets["meta_is_3D"][:, None]
    parts = [
        (error * known)[:, part].sum(1) / known[:, part].sum(1).clamp(min=1)
        for part in JOINT_PARTS.values()
    ]
    return torch.stack(parts).mean(0)


def found_keypoints(
    predicted: Float[Tensor, "B 137 4 h w"], config: ModelConfig
) -> Float[Tensor, "B 137 2"]:
    """Where the best cell of each joint says it is, in pixels of the network's input."""
    height, width = predicted.shape[-2:]
    best = predicted[:, :, 0].flatten(2).argmax(2)
    offset = at_cells(predicted[:, :, 1:3], best)
    cells = middles(best, width) + offset
    input_height, input_width = config.input_body_shape
    return cells * cells.new_tensor([input_width / width, input_height / height])


def cell_of(places: Float[Tensor, "B J 2"], height: int, width: int) -> Int[Tensor, "B J"]:
    """The cell of a grid over the crop, row by row; places outside have the nearest."""
    column, row = (
        (places[..., k] * size).floor().clamp(0, size - 1).long()
        for k, size in enumerate((width, height))
    )
    return row * width + column


def middles(cells: Int[Tensor, "*B"], width: int) -> Float[Tensor, "*B 2"]:
    """x, y of cells' middles, in cells."""
    return torch.stack([cells % width, cells // width], dim=-1) + 0.5


def at_cells(
    values: Float[Tensor, "B 137 C h w"], cells: Int[Tensor, "B 137"]
) -> Float[Tensor, "B 137 C"]:
    """Values of one cell a joint."""
    chosen = cells[:, :, None, None].expand(-1, -1, values.shape[2], 1)
    return values.flatten(3).gather(3, chosen)[..., 0]


def token_joint_loss(
    predicted: Float[Tensor, "B 53 3"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Mean absolute error of places in the crop, and of depths where there are 3D joints."""
    places, known = places_in_crop(targets, config)
    depth = targets["target_joint_cam"][:, PLACED_JOINTS, 2:]
    target = torch.cat([places[:, PLACED_JOINTS] - 0.5, depth], dim=2)
    seen = known[:, PLACED_JOINTS, None].float()
    weight = torch.cat([seen.expand(-1, -1, 2), seen * targets["meta_is_3D"][:, None, None]], dim=2)
    return ((predicted[:, PLACED_POSES] - target).abs() * weight).sum(2).mean(1)


def places_in_crop(
    targets: Mapping[str, Tensor], config: ModelConfig
) -> tuple[Float[Tensor, "B 137 2"], Bool[Tensor, "B 137"]]:
    """Places of the joints as shares of the crop's width and height, and which are in it."""
    _, height, width = config.output_hm_shape
    joints = targets["target_joint_img"][..., :2]
    places = joints / joints.new_tensor([width, height])
    inside = ((places >= 0) & (places < 1)).all(-1)
    return places, inside & (targets["meta_joint_valid"][..., 0] > 0)

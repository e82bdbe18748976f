"""A network to start training from: random weights, and heads that predict an average person.

Regressing from the average pose and a camera that frames it is learned far sooner than from a
random one (Kanazawa et al., CVPR 2018, start their regressor there).
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ModelConfig
from human_models.body import BodyModel
from human_models.joints import BODY_JOINTS
from models.decoder import Heads
from models.posing import BodyParameters, camera_depth, pose_body
from models.smplest_x import SMPLestX
from utils.rotation import axis_angle_to_matrix

_WEIGHT_STD: Final = 0.02  # of ViTs since BERT
_HEAD_STD: Final = 1e-3
_FRAMED: Final = 0.8
"""Share of the crop's height that the average person fills."""
_LOWERED_ARM_RAD: Final = 1.1
_LOWERED_ARMS: Final = {"left_shoulder": -_LOWERED_ARM_RAD, "right_shoulder": _LOWERED_ARM_RAD}


def initial_network(config: ModelConfig, body: BodyModel) -> SMPLestX:
    """Random weights from torch's generator; heads at the average person, see `average_person`."""
    network = SMPLestX(config)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_WEIGHT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if network.lifter is not None:
        # The lifter decides first: its queries, and what the decoder adds, begin as zero.
        nn.init.zeros_(network.lifter.to_query.weight)
        nn.init.zeros_(network.decoder.token_projection.weight)
    encoder = network.encoder
    for embedding in (encoder.task_tokens, encoder.pos_embed, network.decoder.pos_embedding):
        nn.init.trunc_normal_(embedding, std=_WEIGHT_STD)
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = _places(*encoder.grid, config.encoder_config.embed_dim)
    _set_heads(network.heads, average_person(body, config), config)
    return network


def _places(height: int, width: int, dim: int) -> Float[Tensor, "N D"]:
    """Sines and cosines of the rows and columns of patches (He et al., CVPR 2022).

    Where places are known from the start, finding joints is learned much sooner.
    """
    waves = 10_000 ** -(torch.arange(dim // 4) / (dim / 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phases = [place.reshape(-1, 1) * waves for place in (rows, columns)]
    parts = [wave(phase) for phase in phases for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(parts, dim=1), (0, dim % 4))


@torch.no_grad()
def average_person(body: BodyModel, config: ModelConfig) -> BodyParameters:
    """Someone of mean shape who stands upright, arms lowered, facing and filling the crop."""
    pose = torch.zeros(len(BODY_JOINTS) - 1, 3)
    for joint, angle in _LOWERED_ARMS.items():
        pose[BODY_JOINTS.index(joint) - 1, 2] = angle
    person = BodyParameters(
        # Half a turn about x: the body's y points up, the camera's down.
        global_orient=torch.tensor([[math.pi, 0, 0]]),
        body_pose=pose.reshape(1, -1),
        left_hand_pose=torch.zeros(1, 45),
        right_hand_pose=torch.zeros(1, 45),
        jaw_pose=torch.zeros(1, 3),
        betas=torch.zeros(1, 10),
        expression=torch.zeros(1, 10),
        transl=torch.zeros(1, 3),
    )
    joints = pose_body(person, body, config, want_vertices=False).joints[0]
    top, bottom = joints.amin(0), joints.amax(0)
    depth = config.focal[1] * (bottom - top)[1] / (_FRAMED * config.input_body_shape[0])
    middle = (top + bottom) / 2
    return person._replace(transl=torch.stack([-middle[0], -middle[1], depth])[None])


def _rotations_6d(axis_angles: Float[Tensor, "1 A"]) -> Float[Tensor, " R"]:
    return axis_angle_to_matrix(axis_angles.reshape(-1, 3))[..., :2].reshape(-1)


@torch.no_grad()
def _set_heads(heads: Heads, person: BodyParameters, config: ModelConfig) -> None:
    x, y, depth = person.transl[0]
    camera = torch.stack([x, y, torch.logit(depth / camera_depth(config))])
    hands = torch.cat([person.left_hand_pose, person.right_hand_pose], dim=1)
    no_rotation = _rotations_6d(torch.zeros(1, 3))
    biases = {
        "body_root_pose": _rotations_6d(person.global_orient),
        "body_pose": _rotations_6d(person.body_pose),
        "body_shape": person.betas[0],
        "body_cam": camera,
        "hand_root_pose": no_rotation.repeat(2),
        "hand_pose": _rotations_6d(hands),
        "hand_cam": torch.zeros(6),
        "face_root_pose": no_rotation,
        "face_expression": person.expression[0],
        "face_jaw_pose": _rotations_6d(person.jaw_pose),
        "face_cam": torch.zeros(3),
    }
    for name, head in heads.items():
        assert isinstance(head, nn.Linear)
        nn.init.trunc_normal_(head.weight, std=_HEAD_STD)
        head.bias.copy_(biases[name])

"""From head outputs to a body in front of the crop's camera."""

import math
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from configs.schema import ModelConfig
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS_FROM_MODEL, PART_ROOTS
from models.smplest_x import HeadOutputs
from utils.camera import project
from utils.devices import constants, picked, runs_of
from utils.geometry import rotation_6d_to_axis_angle

_FROM_MODEL: Final = runs_of(JOINTS_FROM_MODEL)


class BodyParameters(NamedTuple):
    """SMPL-X parameters, one row per person.

    Rotations are axis-angle vectors in radians, joint after joint in the order of the rig; those of
    hands are relative to the mean hand (flat_hand_mean=False). `transl` is in metres in the crop's
    camera frame: x right, y down, z forward.
    """

    global_orient: Float[Tensor, "B 3"]
    body_pose: Float[Tensor, "B 63"]
    left_hand_pose: Float[Tensor, "B 45"]
    right_hand_pose: Float[Tensor, "B 45"]
    jaw_pose: Float[Tensor, "B 3"]
    betas: Float[Tensor, "B 10"]
    expression: Float[Tensor, "B 10"]
    transl: Float[Tensor, "B 3"]


class PosedBody(NamedTuple):
    """A body in the crop's camera frame (metres) and its projection (pixels of the input)."""

    vertices: Float[Tensor, "B V 3"] | None
    joints: Float[Tensor, "B 137 3"]
    joints_2d: Float[Tensor, "B 137 2"]


def _axis_angles(rotations_6d: Float[Tensor, "B R"]) -> Float[Tensor, "B A"]:
    return rotation_6d_to_axis_angle(rotations_6d.unflatten(-1, (-1, 6))).flatten(1)


def camera_depth(config: ModelConfig) -> float:
    """Depth in metres at which `camera_3d_size` metres fill the crop (mean of its two sides)."""
    height, width = config.input_body_shape
    return math.sqrt(math.prod(config.focal) * config.camera_3d_size**2 / (height * width))


def camera_translation(camera: Float[Tensor, "B 3"], config: ModelConfig) -> Float[Tensor, "B 3"]:
    """(x, y, gamma) -> translation in metres, at sigmoid(gamma) of `camera_depth`."""
    depth = camera_depth(config) * camera[:, 2:].sigmoid()
    return torch.cat([camera[:, :2], depth], dim=1)


def body_parameters(heads: HeadOutputs, config: ModelConfig) -> BodyParameters:
    """What the heads mean, in the units that the body model takes."""
    # All joints at once: in small batches the number of calls decides, not the arithmetic.
    parts = (heads.body_root_pose, heads.body_pose, heads.hand_pose, heads.face_jaw_pose)
    rotations = _axis_angles(torch.cat(parts, dim=1))
    sizes = [part.shape[1] // 2 for part in parts]
    global_orient, body_pose, hand_pose, jaw_pose = rotations.split(sizes, dim=1)
    left_hand_pose, right_hand_pose = hand_pose.chunk(2, dim=1)
    return BodyParameters(
        global_orient=global_orient,
        body_pose=body_pose,
        left_hand_pose=left_hand_pose,
        right_hand_pose=right_hand_pose,
        jaw_pose=jaw_pose,
        betas=heads.body_shape,
        expression=heads.face_expression,
        transl=camera_translation(heads.body_cam, config),
    )


def pose_body(
    parameters: BodyParameters, body: BodyModel, config: ModelConfig, *, want_vertices: bool
) -> PosedBody:
    """Run the body model and project the 137 joints with the crop's camera."""
    output = body(**parameters._asdict(), want_vertices=want_vertices)
    joints = picked(output.joints, _FROM_MODEL)
    focal, princpt = constants(config.focal, joints), constants(config.princpt, joints)
    return PosedBody(output.vertices, joints, project(joints, focal, princpt))


def root_relative(joints: Float[Tensor, "B 137 3"]) -> Float[Tensor, "B 137 3"]:
    """Joints relative to the pelvis."""
    return joints - joints[:, PART_ROOTS["body"], None]


def part_relative(joints: Float[Tensor, "B 137 3"]) -> Float[Tensor, "B 137 3"]:
    """Body joints relative to the pelvis, hands to their wrists, the face to the neck."""
    parts = [
        joints[:, part] - joints[:, PART_ROOTS[name], None] for name, part in JOINT_PARTS.items()
    ]
    return torch.cat(parts, dim=1)

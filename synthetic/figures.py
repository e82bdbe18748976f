"""Posing of dressed people in batches: bodies, clothes and joints, and the meshes to draw."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32
from torch import Tensor

from human_models.body import (
    BodyModel,
    forward_kinematics,
    linear_blend_skinning,
    skinning_transforms,
)
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from human_models.joints import RIG_JOINTS
from synthetic.appearance import Look, face_features
from synthetic.textures import Texture
from synthetic.wardrobe import Wardrobe
from utils.geometry import axis_angle_to_matrix
from utils.mesh import vertex_normals

_HEAD: Final = RIG_JOINTS.index("head")


class BodyParameters(NamedTuple):
    """SMPL-X parameters of one person: axis-angle in radians, hands relative to the mean hand."""

    global_orient: Float32[np.ndarray, "3"]
    body_pose: Float32[np.ndarray, "21 3"]
    left_hand_pose: Float32[np.ndarray, "15 3"]
    right_hand_pose: Float32[np.ndarray, "15 3"]
    jaw_pose: Float32[np.ndarray, "3"]
    betas: Float32[np.ndarray, "10"]
    expression: Float32[np.ndarray, "10"]


class Figure(NamedTuple):
    """A posed person without translation, metres, in the target frame of `global_orient`."""

    points: Float32[np.ndarray, "P 3"]
    """The body's vertices, then those of all clothes of the wardrobe."""
    joints: Float32[np.ndarray, "144 3"]
    """In the order of MODEL_JOINTS."""
    head: Float32[np.ndarray, "3 3"]
    """Rotation of the head relative to the rest pose."""


class Figures:
    """The open body and its wardrobe, which pose batches of people."""

    def __init__(self) -> None:
        data = read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx", "neutral")
        self.data = data
        self.body = BodyModel(data).eval()
        self.features = face_features(data)
        self.wardrobe = Wardrobe(data, self.features["scalp"])
        self.rest_joints = self.rest_joints_of(np.zeros(10, np.float32))
        self._template = torch.from_numpy(self.wardrobe.template.T.reshape(-1).copy())
        directions = self.wardrobe.shape_directions.transpose(2, 1, 0).reshape(10, -1)
        self._directions = torch.from_numpy(directions.copy())
        self._weights = torch.from_numpy(self.wardrobe.weights.T.copy())

    @torch.inference_mode()
    def pose(self, people: list[BodyParameters]) -> list[Figure]:
        """Pose all `people` in one batch; the figures are in the same order."""
        parameters = _stacked(people)
        output = self.body(**parameters)
        assert output.vertices is not None
        transforms, head = self._transforms(parameters)
        shaped = torch.addmm(self._template, parameters["betas"], self._directions)
        clothes = linear_blend_skinning(shaped.unflatten(1, (3, -1)), transforms, self._weights)
        points = torch.cat([output.vertices, clothes.transpose(1, 2)], dim=1).numpy()
        joints = output.joints.numpy()
        return [Figure(*one) for one in zip(points, joints, head.numpy(), strict=True)]

    @torch.inference_mode()
    def rest_joints_of(self, betas: Float32[np.ndarray, "10"]) -> Float32[np.ndarray, "55 3"]:
        """Joints of a body of the given shape in the rest pose, metres."""
        return self.body.rest_joints(torch.from_numpy(betas[None]))[0].numpy()

    def _transforms(self, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Skinning transforms of each joint, and the rotation of the head."""
        body, count = self.body, len(parameters["betas"])
        eyes = parameters["jaw_pose"].new_zeros(count, 6)
        order = ("global_orient", "body_pose", "jaw_pose", "", "left_hand_pose", "right_hand_pose")
        pose = torch.cat([parameters[name] if name else eyes for name in order], dim=1)
        rotations = axis_angle_to_matrix(pose.unflatten(1, (-1, 3)) + body.mean_pose)
        rest = body.rest_joints(parameters["betas"], parameters["expression"])
        world = forward_kinematics(rotations, rest, body.parents_but_root, body.steps)
        return skinning_transforms(world, rest), world[:, _HEAD, :, :3]


def _stacked(people: list[BodyParameters]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.stack([getattr(one, name).reshape(-1) for one in people]))
        for name in BodyParameters._fields
    }


class Mesh(NamedTuple):
    """An object or a dressed person in the camera frame (metres: x right, y down, z forward)."""

    points: Float32[np.ndarray, "V 3"]
    normals: Float32[np.ndarray, "V 3"]
    """Outward; of length about 1, because the bumps of clothes are added."""
    tint: Float32[np.ndarray, "V 3"]
    """RGB by which the texture is multiplied."""
    uv: Float32[np.ndarray, "V 2"]
    """Texture coordinates; the texture repeats at every integer."""
    gloss: Float32[np.ndarray, " V"]
    faces: Int32[np.ndarray, "F 3"]
    two_sided: Bool[np.ndarray, " F"]
    texture: Int32[np.ndarray, " V"]
    """Index in `textures`; the same at all corners of a face."""
    textures: tuple[Texture, ...]


_LOOK_FIELDS: Final = ("tint", "uv", "gloss", "faces", "two_sided", "texture", "textures")
"""Fields of `Look` that a mesh takes over, in the order of `Mesh`."""


def person_mesh(figure: Figure, look: Look, transl: Float32[np.ndarray, "3"]) -> Mesh:
    """The mesh of a posed body with clothes and hair, moved by `transl` (metres)."""
    points = figure.points[look.points]
    normals = vertex_normals(points, look.faces)
    points += normals * look.thickness[:, None]
    if look.hair is not None and look.hair_faces is not None:
        hair = slice(len(points) - len(look.hair), None)
        points[hair] += look.hair @ figure.head.T
        normals[hair] = vertex_normals(points[hair], look.hair_faces)
    normals[len(normals) - len(look.bumps) :] += look.bumps
    return Mesh(points + transl, normals, *(getattr(look, name) for name in _LOOK_FIELDS))


class PosedPerson(NamedTuple):
    """A dressed person in the camera frame."""

    parameters: BodyParameters
    figure: Figure
    transl: Float32[np.ndarray, "3"]
    """Translation of the figure, metres."""
    mesh: Mesh


def gather(meshes: Sequence[Mesh]) -> Mesh:
    """Join one or more meshes, in their order."""
    points = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    textures = np.cumsum([0, *(len(mesh.textures) for mesh in meshes)])
    shifted = [
        mesh._replace(
            faces=mesh.faces + np.int32(points[i]), texture=mesh.texture + np.int32(textures[i])
        )
        for i, mesh in enumerate(meshes)
    ]
    joined = {
        name: np.concatenate([getattr(mesh, name) for mesh in shifted])
        for name in Mesh._fields
        if name != "textures"
    }
    return Mesh(**joined, textures=tuple(texture for mesh in meshes for texture in mesh.textures))

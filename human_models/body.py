"""SMPL-X and SMPL as differentiable layers: pose and shape in, mesh and joints out.

Implemented from the papers (Loper et al. 2015, Pavlakos et al. 2019); results equal those of the
`smplx` package with use_pca=False, flat_hand_mean=False, use_face_contour=True.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from human_models.files import BodyData, Gender, ModelFolder, Rig, read_body
from human_models.joints import RIG_JOINTS, SMPL_SURFACE_VERTICES, SMPLX_SURFACE_VERTICES
from utils.geometry import axis_angle_to_matrix

ROTATED_JOINTS: Final = {
    "smplx": {
        "global_orient": 1,
        "body_pose": 21,
        "jaw_pose": 1,
        "leye_pose": 1,
        "reye_pose": 1,
        "left_hand_pose": 15,
        "right_hand_pose": 15,
    },
    "smpl": {"global_orient": 1, "body_pose": 23},
}
"""Parameters that rotate joints, in the order of the rig, with the number of joints of each."""
_SURFACE_VERTICES: Final = {"smplx": SMPLX_SURFACE_VERTICES, "smpl": SMPL_SURFACE_VERTICES}


class BodyOutput(NamedTuple):
    """Joints and vertices in metres, in the frame of the model (y up), moved by `transl`.

    Joints are `joints.MODEL_JOINTS` (144) for SMPL-X; the rig's 24 and 21 surface points for SMPL.
    """

    vertices: Float[Tensor, "B V 3"] | None
    joints: Float[Tensor, "B K 3"]


class BodyModel(nn.Module):
    """SMPL-X or SMPL, depending on its data. It has only buffers, which are not saved.

    Joints without the mesh are much faster: the joints of the rig are linear in the shape, and only
    the few hundred vertices that other joints are computed from need to be posed.
    """

    def __init__(self, data: BodyData) -> None:
        super().__init__()
        self.rig: Rig = data.rig
        self.gender: Gender = data.gender
        self.name = data.name
        self.num_betas = data.shape_directions.shape[-1]
        self.num_expression = data.expression_directions.shape[-1]
        self.parents = data.parents
        self.vertex_count = len(data.template)

        self._constant("faces", data.faces)
        self._constant("mean_pose", _mean_pose(data))
        self._constant("parents_but_root", np.array(data.parents[1:]))
        self.register_buffer("steps", ancestor_steps(data.parents), persistent=False)

        regressor = data.joint_regressor.astype(np.float64)
        shape_directions = np.concatenate(
            [data.shape_directions, data.expression_directions], axis=2
        )
        self._constant("rest_template", (regressor @ data.template).reshape(-1))
        self._constant(
            "rest_directions",
            np.einsum("jv,vck->kjc", regressor, shape_directions, optimize=True).reshape(
                shape_directions.shape[2], -1
            ),
        )

        surface = np.array(list(_SURFACE_VERTICES[data.rig].values()))
        needed = [surface, *(lm.corners.ravel() for lm in (data.landmarks, data.contour) if lm)]
        vertices = np.unique(np.concatenate(needed))
        everything = np.arange(len(data.template))
        self.mesh = _SkinnedPoints(data, everything)
        self.joint_points = _SkinnedPoints(data, vertices)
        self._constant("joint_vertices", vertices)
        self._constant("surface", np.searchsorted(vertices, surface))
        self.has_landmarks = data.landmarks is not None
        for name, landmarks in (("landmark", data.landmarks), ("contour", data.contour)):
            if landmarks is not None:
                self._constant(f"{name}_corners", np.searchsorted(vertices, landmarks.corners))
                self._constant(f"{name}_barycentrics", landmarks.barycentrics)

    faces: Int[Tensor, "F 3"]
    mean_pose: Float[Tensor, "J 3"]
    parents_but_root: Int[Tensor, " J-1"]
    steps: Int[Tensor, "S J+1"]
    rest_template: Float[Tensor, " J*3"]
    rest_directions: Float[Tensor, "C J*3"]
    joint_vertices: Int[Tensor, " P"]
    surface: Int[Tensor, "21"]
    landmark_corners: Int[Tensor, "51 3"]
    landmark_barycentrics: Float[Tensor, "51 3"]
    contour_corners: Int[Tensor, "79 17 3"]
    contour_barycentrics: Float[Tensor, "79 17 3"]

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, _tensor(value), persistent=False)

    def forward(
        self,
        *,
        global_orient: Float[Tensor, "B 3"],
        body_pose: Float[Tensor, "B body"],
        betas: Float[Tensor, "B S"],
        expression: Float[Tensor, "B E"] | None = None,
        jaw_pose: Float[Tensor, "B 3"] | None = None,
        leye_pose: Float[Tensor, "B 3"] | None = None,
        reye_pose: Float[Tensor, "B 3"] | None = None,
        left_hand_pose: Float[Tensor, "B 45"] | None = None,
        right_hand_pose: Float[Tensor, "B 45"] | None = None,
        transl: Float[Tensor, "B 3"] | None = None,
        want_vertices: bool = True,
    ) -> BodyOutput:
        """Pose the body; omitted parameters are zero.

        Rotations are axis-angle vectors in radians, relative to the parent joint; those of the
        hands are relative to the model's mean hand. body_pose has 21 joints for SMPL-X (63
        numbers) and 23 for SMPL (69). transl is in metres and moves everything.

        With want_vertices=False only the joints are computed, with the same result. The precision
        is that of the model (float32 by default), also under autocast.

        Raises:
            ValueError: a parameter's shape is wrong or the model has no such parameter.
        """
        given = {
            "global_orient": global_orient,
            "body_pose": body_pose,
            "jaw_pose": jaw_pose,
            "leye_pose": leye_pose,
            "reye_pose": reye_pose,
            "left_hand_pose": left_hand_pose,
            "right_hand_pose": right_hand_pose,
        }
        with torch.autocast(betas.device.type, enabled=False):
            pose = self._pose(given)
            shape = self._shape(betas, expression, len(pose))
            rotations = axis_angle_to_matrix(pose + self.mean_pose)
            world, transforms, features = self._posed(rotations, shape)
            vertices = None
            if want_vertices:
                mesh = self.mesh(features, transforms)
                points = mesh.index_select(2, self.joint_vertices)
                vertices = mesh.transpose(1, 2).contiguous()
            else:
                points = self.joint_points(features, transforms)
            joints = self._joints(points, world)
            if transl is not None:
                translation = self._checked("transl", transl, len(pose), 3)[:, None]
                joints = joints + translation
                vertices = None if vertices is None else vertices + translation
        return BodyOutput(vertices, joints)

    def joints_of_rotations(
        self,
        rotations: Float[Tensor, "B J 3 3"],
        betas: Float[Tensor, "B S"],
        expression: Float[Tensor, "B E"],
    ) -> tuple[Float[Tensor, "B K 3"], Float[Tensor, "B J 3 4"]]:
        """Joints as `forward` returns them, and the transform [R | t] of each joint of the rig.

        Args:
            rotations: of all joints of the rig relative to their parents, including the mean hand.
        """
        world, transforms, features = self._posed(
            rotations, self._shape(betas, expression, len(rotations))
        )
        return self._joints(self.joint_points(features, transforms), world), world

    def _posed(
        self, rotations: Float[Tensor, "B J 3 3"], shape: Float[Tensor, "B C"]
    ) -> tuple[Float[Tensor, "B J 3 4"], Float[Tensor, "B J 3 4"], Float[Tensor, "B K"]]:
        """Transforms of the joints, transforms for skinning, and features that move points."""
        rest_joints = self._rest_joints(shape)
        world = forward_kinematics(rotations, rest_joints, self.parents_but_root, self.steps)
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        features = torch.cat([shape, (rotations[:, 1:] - identity).flatten(1)], dim=1)
        return world, skinning_transforms(world, rest_joints), features

    def rest_joints(
        self, betas: Float[Tensor, "B S"], expression: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B J 3"]:
        """Joints of the rig in the rest pose, metres."""
        return self._rest_joints(self._shape(betas, expression, len(betas)))

    def _rest_joints(self, shape: Float[Tensor, "B K"]) -> Float[Tensor, "B J 3"]:
        joints = torch.addmm(self.rest_template, shape, self.rest_directions)
        return joints.unflatten(1, (-1, 3))

    def _pose(self, parameters: dict[str, Tensor | None]) -> Float[Tensor, "B J 3"]:
        parts = ROTATED_JOINTS[self.rig]
        absent = [
            name for name, value in parameters.items() if value is not None and name not in parts
        ]
        if absent:
            raise ValueError(f"{self.rig} has no {absent[0]}")
        orient = parameters["global_orient"]
        assert orient is not None
        rotations = [
            self.mean_pose.new_zeros(len(orient), joints * 3)
            if (value := parameters[name]) is None
            else self._checked(name, value, len(orient), joints * 3)
            for name, joints in parts.items()
        ]
        return torch.cat(rotations, dim=1).unflatten(1, (-1, 3))

    def _shape(
        self, betas: Float[Tensor, "B S"], expression: Float[Tensor, "B E"] | None, batch: int
    ) -> Float[Tensor, "B C"]:
        if expression is None:
            expression = betas.new_zeros(batch, self.num_expression)
        betas = self._checked("betas", betas, batch, self.num_betas)
        expression = self._checked("expression", expression, batch, self.num_expression)
        return torch.cat([betas, expression], dim=1)

    def _checked(self, name: str, value: Tensor, batch: int, size: int) -> Tensor:
        if value.shape != (batch, size):
            raise ValueError(f"{name} must be ({batch}, {size}), got {tuple(value.shape)}")
        return value.to(self.mean_pose.dtype)

    def _joints(
        self, points: Float[Tensor, "B 3 P"], world: Float[Tensor, "B J 3 4"]
    ) -> Float[Tensor, "B K 3"]:
        groups = [world[..., 3].transpose(1, 2), points.index_select(2, self.surface)]
        if self.has_landmarks:
            row = contour_row(world[:, RIG_JOINTS.index("neck"), :, :3], len(self.contour_corners))
            fixed = (self.landmark_corners, self.landmark_barycentrics)
            contour = (self.contour_corners[row], self.contour_barycentrics[row])
            corners, barycentrics = (
                torch.cat([same_for_all.expand(len(row), -1, -1), by_row], dim=1)
                for same_for_all, by_row in zip(fixed, contour, strict=True)
            )
            groups.append(interpolate(points, corners, barycentrics))
        return torch.cat(groups, dim=2).transpose(1, 2).contiguous()


class _SkinnedPoints(nn.Module):
    """Some vertices of a body, with the data for posing them."""

    template: Float[Tensor, " 3*V"]
    directions: Float[Tensor, "K 3*V"]  # K shape, expression and pose features
    weights: Float[Tensor, "J V"]

    def __init__(self, data: BodyData, vertices: Int[np.ndarray, " V"]) -> None:
        super().__init__()
        directions = np.concatenate(
            [data.shape_directions, data.expression_directions, data.pose_directions], axis=2
        )[vertices]
        for name, value in (
            ("template", data.template[vertices].T.reshape(-1)),
            ("directions", directions.transpose(2, 1, 0).reshape(directions.shape[2], -1)),
            ("weights", data.weights[vertices].T),
        ):
            self.register_buffer(name, _tensor(value), persistent=False)

    def forward(
        self, features: Float[Tensor, "B K"], transforms: Float[Tensor, "B J 3 4"]
    ) -> Float[Tensor, "B 3 V"]:
        shaped = torch.addmm(self.template, features, self.directions).unflatten(1, (3, -1))
        return linear_blend_skinning(shaped, transforms, self.weights)


def _tensor(value: np.ndarray) -> Tensor:
    dtype = np.float32 if value.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.array(value, dtype=dtype, order="C"))


def _mean_pose(data: BodyData) -> Float[np.ndarray, "J 3"]:
    mean = np.zeros((len(data.parents), 3))
    for side, hand in data.hands_mean.items():
        first = RIG_JOINTS.index(f"{side}_index1")
        mean[first : first + 15] = hand.reshape(15, 3)
    return mean


class BodyLibrary:
    """Body models of one folder, each read on first use."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        self._models: dict[tuple[Rig, Gender], BodyModel] = {}

    def smplx(self, gender: Gender = "neutral") -> BodyModel:
        return self._model("smplx", gender)

    def smpl(self, gender: Gender = "neutral") -> BodyModel:
        return self._model("smpl", gender)

    def _model(self, rig: Rig, gender: Gender) -> BodyModel:
        if (rig, gender) not in self._models:
            self._models[rig, gender] = BodyModel(read_body(self.folder, rig, gender))
        return self._models[rig, gender]


# ---- posing: from joint rotations and blend weights to points in space
#
# Points have the layout (B, 3, V), so that arithmetic runs along the vertices, which is fast.


def ancestor_steps(parents: Sequence[int]) -> Int[Tensor, "S joints_and_world"]:
    """For each joint, its ancestors 1, 2, 4, ... generations up, until all are past the root.

    Index J is the world, above the root. In `parents`, parents precede children, and the parent of
    the root is -1.
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
        steps: of `ancestor_steps`. Products of chains are computed by doubling: after k steps,
            each transform includes 2^k generations, so 4 products suffice for the 11 of SMPL-X.
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
    """Transforms that move a point of the rest pose with each joint."""
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
    column_x, column_y, column_z, skinned = columns.view(4, batch, 3, -1).unbind(0)
    for column, axis in ((column_x, 0), (column_y, 1), (column_z, 2)):
        skinned = torch.addcmul(skinned, column, points[:, None, axis])
    return skinned


def interpolate(
    points: Float[Tensor, "B 3 V"],
    corners: Int[Tensor, "B L 3"],
    barycentrics: Float[Tensor, "B L 3"],
) -> Float[Tensor, "B 3 L"]:
    """Points inside triangles, from their three vertices and barycentric weights."""
    index = corners.flatten(1)[:, None].expand(-1, 3, -1)
    return (points.gather(2, index).unflatten(2, (-1, 3)) * barycentrics[:, None]).sum(-1)


def contour_row(neck: Float[Tensor, "B 3 3"], rows: int) -> Int[Tensor, " B"]:
    """The row of the table of contour points for the rotation of the head.

    The outline of a face moves over the skin as the head turns about the vertical axis. Rows
    0 to 39 are for 0 to -39 degrees, and rows 40 to 78 for +1 to +39 degrees; larger angles use the
    last row of their side.

    Args:
        neck: rotation of the neck in the body's frame (the rotation of the head is ignored).
        rows: of the table: one more than twice the largest angle.
    """
    neck = neck.detach()
    turn = torch.atan2(-neck[:, 2, 0], torch.hypot(neck[:, 0, 0], neck[:, 1, 0]))
    largest = rows // 2
    degrees = torch.rad2deg(-turn).nan_to_num(0.0).clamp(-largest - 1, largest).round().long()
    return torch.where(degrees < 0, (largest - degrees).clamp(max=rows - 1), degrees)

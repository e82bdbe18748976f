"""The error vector that refinement solves for, its covariance, and the joints' derivatives by it.

An error vector is the correction that turns an estimated body into another one: a rotation vector
for each joint, in radians, in the axes of the camera for the root and in the joint's own axes for
the others; then the differences of betas and expression; then the change of position.
"""

import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from human_models.body import BodyModel
from human_models.joints import (
    BODY_JOINTS,
    HAND_JOINTS,
    JOINTS,
    JOINTS_FROM_MODEL,
    RIG_JOINTS,
    RIG_PARENTS,
    SIDES,
)
from main.motion.camera import PELVIS, ClipCamera
from utils.errors import UserError
from utils.files import atomic_path, open_input
from utils.geometry import axis_angle_to_matrix, matrix_to_axis_angle

ROTATION_COLUMNS: Final = {
    "placed_orient": ("pelvis",),
    "body_pose": BODY_JOINTS[1:],
    "left_hand_pose": HAND_JOINTS["left"],
    "right_hand_pose": HAND_JOINTS["right"],
    "jaw_pose": ("jaw",),
}
"""Columns of rows with rotations, and the joints they rotate, in the order of the error vector."""
ROTATED_NAMES: Final = tuple(name for names in ROTATION_COLUMNS.values() for name in names)
ROTATED: Final = [RIG_JOINTS.index(name) for name in ROTATED_NAMES]
"""Numbers of the rig's joints that the error vector rotates: all but the eyes."""
BETAS, EXPRESSION = 10, 10
# Entries of the error vector.
ROTATIONS: Final = slice(0, 3 * len(ROTATED))
SHAPE: Final = slice(ROTATIONS.stop, ROTATIONS.stop + BETAS + EXPRESSION)
POSITION: Final = slice(SHAPE.stop, SHAPE.stop + 3)
"""Change of the pelvis's position: x and y in the image, in units of the longer side of the box,
and the logarithm of the depth."""
VARIABLES: Final = POSITION.stop
DEPTH_JOINTS: Final = [
    JOINTS.index(f"{side}_{name}") for name in ("shoulder", "knee", "ankle") for side in SIDES
]
"""Joints whose depth is compared with the estimate of a keypoint network."""
MIN_DEPTH_M: Final = 0.2
"""Least depth in a projection; points that are nearer or behind the camera are given this one."""
ERRORS_NAME: Final = "errors.npz"
"""File of a model's measured errors, beside its weights."""
_JAW: Final = 3 * ROTATED_NAMES.index("jaw")
"""Number of the entry of the error vector that opens the mouth."""
_MIN_JAW_SIGMA: Final = 0.2
"""Least standard deviation of that entry, in radians: synthetic people hardly open their mouths."""


class NetworkErrors(NamedTuple):
    """The covariance of a network's error vector, as basis @ basis.T."""

    basis: Float[Tensor, "182 K"]

    @classmethod
    def read(cls, path: Path, scale: float = 1.0) -> "NetworkErrors":
        """Read measured errors and multiply them by `scale`.

        Raises:
            UserError: the file is missing, cannot be read or has other contents.
        """
        try:
            with open_input(path) as file, np.load(file, allow_pickle=False) as content:
                basis = np.asarray(content["basis"], np.float32)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UserError(
                f"{path}: not a file of a network's errors; measure them again"
            ) from None
        if basis.ndim != 2 or len(basis) != VARIABLES or not np.isfinite(basis).all():
            raise UserError(f"{path}: 'basis' must be ({VARIABLES}, K) finite numbers")
        return cls(torch.from_numpy(basis * np.float32(scale)))

    @classmethod
    def measured(
        cls, errors: Float[np.ndarray, "N 182"], explained: float = 0.98
    ) -> "NetworkErrors":
        """Compute the errors from error vectors of estimates with known truth.

        Of the matrix of correlations, the largest principal components are kept that together
        explain the share `explained` of the variance.
        """
        covariance = errors.T @ errors / len(errors)
        deviation = np.sqrt(np.diag(covariance)) + 1e-9
        values, axes = np.linalg.eigh(covariance / deviation[:, None] / deviation)
        values, axes = values[::-1].clip(0), axes[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), explained)) + 1
        deviation[_JAW] = max(deviation[_JAW], _MIN_JAW_SIGMA)
        basis = deviation[:, None] * axes[:, :kept] * np.sqrt(values[:kept])
        return cls(torch.from_numpy(basis.astype(np.float32)))

    def write(self, path: Path) -> None:
        """Write a file in half precision, which is more precise than the measurement."""
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, allow_pickle=False, basis=self.basis.numpy().astype(np.float16)
            )

    def with_known_shape(self) -> "NetworkErrors":
        """The same errors without those of the betas."""
        basis = self.basis.clone()
        basis[SHAPE.start : SHAPE.start + BETAS] = 0
        return NetworkErrors(basis)


class Limits(NamedTuple):
    """Limits of joints.

    Attributes:
        entries: numbers of entries of the joints' rotation vectors, in the order of `ROTATED`.
        low, high: bounds of these entries, in radians.
    """

    entries: list[int]
    low: Float[Tensor, " L"]
    high: Float[Tensor, " L"]


def joint_limits() -> Limits:
    """Limits of elbows, knees and fingers without the thumb; 0 is a straight finger."""
    rows: list[tuple[int, float, float]] = []
    for side, sign in (("left", 1), ("right", -1)):
        bends = {f"{side}_knee": (0, 1, -3, 155), f"{side}_elbow": (1, -sign, -5, 150)}
        for finger in HAND_JOINTS[side]:
            if "thumb" not in finger:
                bends[finger] = (2, -sign, -20, 100)
        for name, (axis, direction, *bounds) in bends.items():
            low, high = sorted(direction * bound for bound in bounds)
            rows.append((3 * ROTATED_NAMES.index(name) + axis, low, high))
    ranges = torch.tensor([row[1:] for row in rows]).deg2rad()
    return Limits([row[0] for row in rows], ranges[:, 0], ranges[:, 1])


class Observed(NamedTuple):
    """Estimates of the network for some people, in the clip's camera, and their keypoints.

    Attributes:
        rotations: of the rig's joints relative to their parents, with the mean hand added.
        shape: betas and expression.
        pelvis_m: position of the pelvis.
        size_px: longer side of the box.
        keypoints_px: in the order of `JOINTS`.
        sigma_px: standard deviation of a keypoint that is right; infinite where it is unknown.
        wrong: probability that a keypoint is wrong.
        outward: for x and y, 1 or -1 where the keypoint is at the image's right or lower, or left
            or upper edge, and the joint may be anywhere beyond it; otherwise 0.
        depth_m: depth of `DEPTH_JOINTS` relative to the pelvis, away from the camera; 0: unknown.
    """

    rotations: Float[Tensor, "B 55 3 3"]
    shape: Float[Tensor, "B 20"]
    pelvis_m: Float[Tensor, "B 3"]
    size_px: Float[Tensor, " B"]
    keypoints_px: Float[Tensor, "B 137 2"]
    sigma_px: Float[Tensor, "B 137"]
    wrong: Float[Tensor, "B 137"]
    outward: Float[Tensor, "B 137 2"]
    depth_m: Float[Tensor, "B D"]

    def take(self, rows: Tensor) -> "Observed":
        return Observed(*(values[rows] for values in self))


class Posed(NamedTuple):
    """Bodies after a correction, with what the derivatives there are computed from.

    Attributes:
        rotations: of the rig's joints relative to their parents.
        shape: betas and expression.
        world: poses of the rig's joints in the body's frame, up to the body's translation.
        pelvis_m, joints_m: in the clip's camera; the joints in the order of `JOINTS`.
        axes: columns are the axes of rotation of the error vector's entries for each joint.
    """

    rotations: Float[Tensor, "B 55 3 3"]
    shape: Float[Tensor, "B 20"]
    world: Float[Tensor, "B 55 3 4"]
    pelvis_m: Float[Tensor, "B 3"]
    joints_m: Float[Tensor, "B P 3"]
    axes: Float[Tensor, "B 53 3 3"]


class Skeleton:
    """Joints of bodies, and their first derivatives by the error vector.

    The derivatives of the rig's joints are exact. For points on the surface, they follow from the
    skinning weights, without the pose-dependent corrections of the surface.
    """

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        count, components = len(RIG_JOINTS), BETAS + EXPRESSION
        surface = body.joint_points
        directions = surface.directions[:components].unflatten(1, (3, -1)).transpose(1, 2)
        weights = [torch.eye(count), surface.weights.T[body.surface]]
        moves = [
            body.rest_directions.unflatten(1, (count, 3)),
            directions[:, body.surface],
        ]
        for corners, barycentrics in (
            (body.landmark_corners, body.landmark_barycentrics),
            (body.contour_corners[0], body.contour_barycentrics[0]),
        ):
            weights.append((surface.weights.T[corners] * barycentrics[..., None]).sum(1))
            moves.append((directions[:, corners] * barycentrics[..., None]).sum(2))
        chosen = list(JOINTS_FROM_MODEL)
        self.weights = torch.cat(weights)[chosen]
        # Derivatives of the rest pose by betas and expression: (points, xyz, entry).
        self.rest_moves = torch.cat(moves, dim=1)[:, chosen].permute(1, 2, 0)
        self.rig_moves = moves[0].permute(1, 2, 0)
        ancestors = torch.eye(count)  # row: joint; column: 1 for itself and its ancestors
        for joint, parent in enumerate(RIG_PARENTS):
            if parent >= 0:
                ancestors[joint] += ancestors[parent]
        self.ancestors = ancestors
        self.rotated_share = (self.weights @ ancestors)[:, ROTATED]
        self.parents = torch.tensor([max(parent, 0) for parent in RIG_PARENTS])
        self.bone_moves = self.rig_moves - self.rig_moves[self.parents]

    def pose(self, seen: Observed, errors: Float[Tensor, "B 182"], camera: ClipCamera) -> Posed:
        """The network's bodies, corrected by the error vectors `errors`."""
        vectors = errors[:, ROTATIONS].unflatten(1, (-1, 3))
        steps = axis_angle_to_matrix(vectors)
        rotations = seen.rotations.clone()
        rotations[:, ROTATED] = seen.rotations[:, ROTATED] @ steps
        rotations[:, 0] = steps[:, 0] @ seen.rotations[:, 0]
        shape = seen.shape + errors[:, SHAPE]
        betas, expression = shape.split([BETAS, EXPRESSION], dim=1)
        joints, world = self.body.joints_of_rotations(rotations, betas, expression)
        joints = joints[:, list(JOINTS_FROM_MODEL)]
        pelvis = _moved_pelvis(seen, errors[:, POSITION], camera)
        joints = joints - joints[:, PELVIS, None] + pelvis[:, None]
        # Errors of the root are in the camera's axes, those of other joints in the joint's own.
        axes = world[:, ROTATED, :, :3] @ _right_jacobian(vectors)
        axes[:, 0] = _right_jacobian(-vectors[:, 0])
        return Posed(rotations, shape, world, pelvis, joints, axes)

    def derivatives(
        self,
        posed: Posed,
        rays: Float[Tensor, "B R 3"],
        points: Int[Tensor, " R"],
        units: Float[Tensor, "B 2"],
    ) -> Float[Tensor, "B R 182"]:
        """Derivatives of coordinates of joints by the error vector.

        Args:
            rays: directions in the clip's camera, along which the coordinates are taken.
            points: number in `JOINTS` of the joint that belongs to each ray.
            units: metres that the pelvis moves for one unit of the position's x and y.
        """
        result = rays.new_empty(len(rays), len(points), VARIABLES)
        # ray . (axis x (point - origin)) = (point x ray) . axis + ray . (origin x axis), so all
        # derivatives are one matrix product, with six numbers for each ray and for each axis.
        offsets = posed.joints_m[:, points] - posed.pelvis_m[:, None]
        lever = torch.linalg.cross(offsets, rays, dim=-1)
        origins = posed.world[:, ROTATED, :, 3] - posed.world[:, :1, :, 3]
        moments = torch.linalg.cross(origins[..., None].expand_as(posed.axes), posed.axes, dim=2)
        screws = torch.cat([posed.axes, moments], dim=2).transpose(1, 2).flatten(2)
        rotating = torch.cat([lever, rays], dim=-1) @ screws
        shares = self.rotated_share[points].repeat_interleave(3, 1)
        torch.mul(rotating, shares, out=result[..., ROTATIONS])

        orientations = posed.world[..., :3]
        bones = torch.einsum("bjxy,jyc->bjxc", orientations[:, self.parents], self.bone_moves)
        joints = (self.ancestors @ bones.flatten(2)).unflatten(2, (3, -1))
        translations = joints - torch.einsum("bjxy,jyc->bjxc", orientations, self.rig_moves)
        weights = self.weights[points]
        moves = (weights @ translations.flatten(2)).unflatten(2, (3, -1))
        skinned = (weights @ orientations.flatten(2)).unflatten(2, (3, 3))
        moves = moves + torch.einsum("bpxy,pyc->bpxc", skinned, self.rest_moves[points])
        result[..., SHAPE] = (rays[..., None] * moves).sum(dim=2)

        result[..., POSITION.start : POSITION.start + 2] = rays[..., :2] * units[:, None]
        result[..., POSITION.start + 2] = (rays @ posed.pelvis_m[..., None])[..., 0]
        return result


def _moved_pelvis(
    seen: Observed, change: Float[Tensor, "B 3"], camera: ClipCamera
) -> Float[Tensor, "B 3"]:
    """Positions in metres after a `change` in the units of `POSITION`."""
    depth = seen.pelvis_m[:, 2:] * change[:, 2:].exp()
    ray = seen.pelvis_m[:, :2] / seen.pelvis_m[:, 2:]
    ray = ray + change[:, :2] * seen.size_px[:, None] / change.new_tensor(camera.focal)
    return torch.cat([ray * depth, depth], dim=1)


def _right_jacobian(vectors: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The right Jacobian J of SO(3): exp(v + d) = exp(v) exp(J d) to first order in d."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = vectors.square().sum(-1).add(1e-12).sqrt()[..., None, None]
    small = angle < 1e-2
    first = torch.where(small, 0.5 - angle**2 / 24, (1 - angle.cos()) / angle**2)
    second = torch.where(small, 1 / 6 - angle**2 / 120, (angle - angle.sin()) / angle**3)
    return torch.eye(3) - first * cross + second * (cross @ cross)


def error_vector(
    estimated: Observed,
    rotations: Float[Tensor, "B 55 3 3"],
    shape: Float[Tensor, "B 20"],
    pelvis_m: Float[Tensor, "B 3"],
    camera: ClipCamera,
) -> Float[Tensor, "B 182"]:
    """The error vectors with which `Skeleton.pose` turns estimates into the given bodies.

    Args:
        rotations, shape, pelvis_m: of the true bodies, as in `Observed`.
    """
    rotation_errors = estimated.rotations.transpose(-1, -2) @ rotations
    rotation_errors[:, 0] = rotations[:, 0] @ estimated.rotations[:, 0].transpose(-1, -2)
    true, estimate = (pelvis[:, :2] / pelvis[:, 2:] for pelvis in (pelvis_m, estimated.pelvis_m))
    across = (true - estimate) * pelvis_m.new_tensor(camera.focal) / estimated.size_px[:, None]
    deeper = (pelvis_m[:, 2:] / estimated.pelvis_m[:, 2:]).log()
    vectors = matrix_to_axis_angle(rotation_errors[:, ROTATED]).flatten(1)
    return torch.cat([vectors, shape - estimated.shape, across, deeper], dim=1)


def read_rotations(rows: np.ndarray) -> Float[np.ndarray, "N 53 3"]:
    """The rotation vectors of `ROTATED` in raw rows, relative to the mean pose."""
    vectors = np.concatenate([rows[name] for name in ROTATION_COLUMNS], axis=1)
    return vectors.reshape(len(rows), -1, 3)


def write_rotations(rows: np.ndarray, vectors: Float[np.ndarray, "N 53 3"]) -> None:
    """Write rotation vectors, relative to the mean pose, into raw rows, in place."""
    first = 0
    for name, joints in ROTATION_COLUMNS.items():
        rows[name] = vectors[:, first : first + len(joints)].reshape(len(rows), -1)
        first += len(joints)

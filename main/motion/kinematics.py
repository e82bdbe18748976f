"""Bodies as refinement varies them, and where their joints go when they change.

The error vector leads from an estimate to a body: a rotation vector of each joint, about the
camera's axes for the root and the joint's own for the others (radians); then the differences of
betas and expression; then that of the place.
"""

from typing import Final, NamedTuple

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
from utils.geometry import axis_angle_to_matrix, matrix_to_axis_angle

ROTATING: Final = {
    "placed_orient": ("pelvis",),
    "body_pose": BODY_JOINTS[1:],
    "left_hand_pose": HAND_JOINTS["left"],
    "right_hand_pose": HAND_JOINTS["right"],
    "jaw_pose": ("jaw",),
}
"""Columns of rows that turn joints, and which, in the order of the error vector."""
TURNED_NAMES: Final = tuple(name for names in ROTATING.values() for name in names)
TURNED: Final = [RIG_JOINTS.index(name) for name in TURNED_NAMES]
"""Joints of the rig that the error vector turns; the eyes stay as they are."""
BETAS, EXPRESSION = 10, 10
# Entries of the error vector.
TURNS: Final = slice(0, 3 * len(TURNED))
SHAPE: Final = slice(TURNS.stop, TURNS.stop + BETAS + EXPRESSION)
PLACE: Final = slice(SHAPE.stop, SHAPE.stop + 3)
"""The pelvis in the image (x, y), in longer sides of the box, and the logarithm of its depth."""
VARIABLES: Final = PLACE.stop
DEEP: Final = [
    JOINTS.index(f"{side}_{name}") for name in ("shoulder", "knee", "ankle") for side in SIDES
]
"""Joints whose depth is compared with what a keypoint network says of it."""
NEAREST_M: Final = 0.2
"""Depth of what is nearer, or behind the camera, when it is projected."""


class Limits(NamedTuple):
    """Entries of rotation vectors that joints keep between two bounds, radians."""

    entries: list[int]
    least: Float[Tensor, " L"]
    most: Float[Tensor, " L"]


def joint_limits() -> Limits:
    """Elbows, knees and the fingers but the thumb bend one way; fingers are counted from flat."""
    rows: list[tuple[int, float, float]] = []
    for side, sign in (("left", 1), ("right", -1)):
        bends = {f"{side}_knee": (0, 1, -3, 155), f"{side}_elbow": (1, -sign, -5, 150)}
        for finger in HAND_JOINTS[side]:
            if "thumb" not in finger:
                bends[finger] = (2, -sign, -20, 100)
        for name, (axis, way, *bounds) in bends.items():
            least, most = sorted(way * bound for bound in bounds)
            rows.append((3 * TURNED_NAMES.index(name) + axis, least, most))
    ranges = torch.tensor([row[1:] for row in rows]).deg2rad()
    return Limits([row[0] for row in rows], ranges[:, 0], ranges[:, 1])


class Observed(NamedTuple):
    """People as the network sees them, in the clip's camera, and keypoints of them.

    Attributes:
        rotations: of the rig's joints relative to their parents, the mean hand included.
        pelvis_m: in the clip's camera.
        size_px: the longer side of the box.
        sigma_px: error of a keypoint that is right; infinite where it is unknown.
        wrong: probability that a keypoint is not.
        outward: 1 or -1 along an axis of the image whose end is at the keypoint, in which direction
            the joint may be anywhere; else 0.
        depth_m: of the joints `DEEP` behind the pelvis, as seen from the camera; 0: unknown.
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
    """Bodies at an error vector: what the linearisation is made of."""

    rotations: Float[Tensor, "B 55 3 3"]
    shape: Float[Tensor, "B 20"]
    world: Float[Tensor, "B 55 3 4"]
    pelvis_m: Float[Tensor, "B 3"]
    joints_m: Float[Tensor, "B P 3"]
    """In the clip's camera."""
    turns: Float[Tensor, "B 53 3 3"]
    """The axes about which the entries of the error vector turn the joints, as columns."""


class Skeleton:
    """Where joints go when a body's parameters change, to first order.

    Joints of the rig are exact. Points on the surface turn with the joints by their weights of
    skinning; what their pose corrections change is left out.
    """

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        count, components = len(RIG_JOINTS), BETAS + EXPRESSION
        surface = body.joint_points
        directions = surface.directions[:components].unflatten(1, (3, -1)).transpose(1, 2)
        weights = [torch.eye(count), surface.weights.T[body.surface]]
        moved = [
            body.rest_directions.unflatten(1, (count, 3)),
            directions[:, body.surface],
        ]
        for corners, shares in (
            (body.landmark_corners, body.landmark_barycentrics),
            (body.contour_corners[0], body.contour_barycentrics[0]),
        ):
            weights.append((surface.weights.T[corners] * shares[..., None]).sum(1))
            moved.append((directions[:, corners] * shares[..., None]).sum(2))
        chosen = list(JOINTS_FROM_MODEL)
        self.weights = torch.cat(weights)[chosen]
        # How the shape's entries move points and joints of the body at rest: (points, xyz, entry).
        self.rest_moves = torch.cat(moved, dim=1)[:, chosen].permute(1, 2, 0)
        self.rig_moves = moved[0].permute(1, 2, 0)
        above = torch.eye(count)
        for joint, parent in enumerate(RIG_PARENTS):
            if parent >= 0:
                above[joint] += above[parent]
        self.above = above
        self.turned_by = (self.weights @ above)[:, TURNED]
        self.parents = torch.tensor([max(parent, 0) for parent in RIG_PARENTS])
        self.bone_moves = self.rig_moves - self.rig_moves[self.parents]

    def pose(self, seen: Observed, errors: Float[Tensor, "B 182"], camera: ClipCamera) -> Posed:
        """Bodies that are `errors` away from the network's."""
        vectors = errors[:, TURNS].unflatten(1, (-1, 3))
        steps = axis_angle_to_matrix(vectors)
        rotations = seen.rotations.clone()
        rotations[:, TURNED] = seen.rotations[:, TURNED] @ steps
        rotations[:, 0] = steps[:, 0] @ seen.rotations[:, 0]
        shape = seen.shape + errors[:, SHAPE]
        betas, expression = shape.split([BETAS, EXPRESSION], dim=1)
        joints, world = self.body.joints_of_rotations(rotations, betas, expression)
        joints = joints[:, list(JOINTS_FROM_MODEL)]
        pelvis = _moved_pelvis(seen, errors[:, PLACE], camera)
        joints = joints - joints[:, PELVIS, None] + pelvis[:, None]
        # The root errs in the camera's axes, every other joint in its own.
        turns = world[:, TURNED, :, :3] @ _right_jacobian(vectors)
        turns[:, 0] = _right_jacobian(-vectors[:, 0])
        return Posed(rotations, shape, world, pelvis, joints, turns)

    def derivatives(
        self,
        posed: Posed,
        rays: Float[Tensor, "B R 3"],
        points: Int[Tensor, " R"],
        units: Float[Tensor, "B 2"],
    ) -> Float[Tensor, "B R 182"]:
        """How the error vector moves points along `rays`.

        Args:
            rays: directions in the clip's camera.
            points: of each ray, the number of a joint in JOINTS.
            units: metres by which the place's x and y move the pelvis, per unit.
        """
        result = rays.new_empty(len(rays), len(points), VARIABLES)
        # ray . (axis x (point - origin)) = (point x ray) . axis + ray . (origin x axis), so that
        # all pairs are one product of six numbers for each ray and six for each axis.
        offsets = posed.joints_m[:, points] - posed.pelvis_m[:, None]
        lever = torch.linalg.cross(offsets, rays, dim=-1)
        origins = posed.world[:, TURNED, :, 3] - posed.world[:, :1, :, 3]
        moments = torch.linalg.cross(origins[..., None].expand_as(posed.turns), posed.turns, dim=2)
        screws = torch.cat([posed.turns, moments], dim=2).transpose(1, 2).flatten(2)
        turning = torch.cat([lever, rays], dim=-1) @ screws
        shares = self.turned_by[points].repeat_interleave(3, 1)
        torch.mul(turning, shares, out=result[..., TURNS])

        axes = posed.world[..., :3]
        bones = torch.einsum("bjxy,jyc->bjxc", axes[:, self.parents], self.bone_moves)
        joints = (self.above @ bones.flatten(2)).unflatten(2, (3, -1))
        held = joints - torch.einsum("bjxy,jyc->bjxc", axes, self.rig_moves)
        weights = self.weights[points]
        moves = (weights @ held.flatten(2)).unflatten(2, (3, -1))
        carried = (weights @ axes.flatten(2)).unflatten(2, (3, 3))
        moves = moves + torch.einsum("bpxy,pyc->bpxc", carried, self.rest_moves[points])
        result[..., SHAPE] = (rays[..., None] * moves).sum(dim=2)

        result[..., PLACE.start : PLACE.start + 2] = rays[..., :2] * units[:, None]
        result[..., PLACE.start + 2] = (rays @ posed.pelvis_m[..., None])[..., 0]
        return result


def _moved_pelvis(
    seen: Observed, place: Float[Tensor, "B 3"], camera: ClipCamera
) -> Float[Tensor, "B 3"]:
    depth = seen.pelvis_m[:, 2:] * place[:, 2:].exp()
    ray = seen.pelvis_m[:, :2] / seen.pelvis_m[:, 2:]
    ray = ray + place[:, :2] * seen.size_px[:, None] / place.new_tensor(camera.focal)
    return torch.cat([ray * depth, depth], dim=1)


def _right_jacobian(vectors: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """J with exp(v + d) = exp(v) exp(J d) for small d."""
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
    """What leads from estimates to a truth; `Skeleton.pose` takes it."""
    steps = estimated.rotations.transpose(-1, -2) @ rotations
    steps[:, 0] = rotations[:, 0] @ estimated.rotations[:, 0].transpose(-1, -2)
    rays, known = (pelvis[:, :2] / pelvis[:, 2:] for pelvis in (pelvis_m, estimated.pelvis_m))
    across = (rays - known) * pelvis_m.new_tensor(camera.focal) / estimated.size_px[:, None]
    deeper = (pelvis_m[:, 2:] / estimated.pelvis_m[:, 2:]).log()
    turns = matrix_to_axis_angle(steps[:, TURNED]).flatten(1)
    return torch.cat([turns, shape - estimated.shape, across, deeper], dim=1)

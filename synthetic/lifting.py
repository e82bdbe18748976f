"""People as their joints alone, without pictures: endless samples that teach what 2D joints mean.

Poses, hands, faces and shapes are those of the drawn people, newly mixed for every sample and seen
by cameras like theirs. The keypoints of a sample are simulated detections: the true joints with the
errors of a keypoint network. A batch is a function of its seed.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from configs.schema import ModelConfig
from human_models.body import BodyModel
from human_models.joints import (
    COCO_KEYPOINTS,
    HAND_KEYPOINTS,
    JOINTS,
    JOINTS_FROM_MODEL,
    POSE_JOINTS,
    POSE_PARAMETERS,
    POSE_PARTS,
    ROOTS_OF_JOINTS,
    SIDES,
    joint_places,
    mirror_permutation,
)
from synthetic.arms import draw_hand
from synthetic.poses import Poser
from synthetic.rendering import FILM_HEIGHT_MM, FILM_WIDTH_MM
from utils.geometry import axis_angle_to_matrix, matrix_to_axis_angle

_PELVIS, _NECK, _HEAD = (JOINTS.index(name) for name in ("pelvis", "neck", "face2"))
_ARMS: Final = [
    POSE_JOINTS.index(f"{side}_{joint}")
    for side in SIDES
    for joint in ("collar", "shoulder", "elbow", "wrist")
]
_HANDS: Final = slice(POSE_PARTS["left_hand"].start, POSE_PARTS["right_hand"].stop)
_MIRRORED: Final = mirror_permutation(POSE_JOINTS)
_JAW: Final = POSE_JOINTS.index("jaw")
_OTHER_ARMS, _OTHER_HANDS = 0.3, 0.5
"""Chances that arms, and hands, are those of another pose."""
_NOISE_RAD: Final = 0.06
_MOST_BETA: Final = 2.5
_PERSON_M: Final = 1.7
_SKIN_M: Final = 0.05
"""Distance of a body's outline from its joints."""
_BOX_SCALE: Final = 1.2
"""Size of the crop relative to the box of the outline."""


class Poses(NamedTuple):
    """Drawn poses: y up, facing z."""

    root: Float[Tensor, "N 3 3"]
    pose: Float[Tensor, "N 53 3"]
    """`joints.POSE_JOINTS`, axis-angle; zero for the root and the jaw."""
    lift_m: Float[Tensor, " N"]
    """Height of the lowest point above the floor."""


def draw_poses(rest_joints: Float[np.ndarray, "55 3"], seed: int, count: int) -> Poses:
    """Poses and hands of `count` people, which `People` mixes."""
    rng, poser = np.random.default_rng(seed), Poser(rest_joints.astype(np.float32))
    roots, poses, lifts = [], [], []
    for _ in range(count):
        drawn = poser.draw(rng)
        pose = np.zeros((len(POSE_JOINTS), 3), np.float32)
        pose[POSE_PARTS["body"]][1:] = drawn.body
        for side, shape in zip(SIDES, drawn.hands, strict=True):
            pose[POSE_PARTS[f"{side}_hand"]] = draw_hand(rng, side, shape)
        roots.append(drawn.root)
        poses.append(pose)
        lifts.append(drawn.lift_m)
    numbers = (np.stack(roots), np.stack(poses), np.array(lifts))
    return Poses(*(torch.from_numpy(values).float() for values in numbers))


class _Person(NamedTuple):
    pose: Float[Tensor, "B 53 3"]
    """The root turned to the camera's frame."""
    betas: Float[Tensor, "B 10"]
    expression: Float[Tensor, "B 10"]


class _Stages(NamedTuple):
    """Cameras over a floor, and the places of people on it."""

    from_world: Float[Tensor, "B 3 3"]
    height_m: Float[Tensor, " B"]
    right_m: Float[Tensor, " B"]
    away_m: Float[Tensor, " B"]
    """Distances to the right of the camera and in front of it along the floor."""


class People:
    """Draws batches of people before cameras."""

    def __init__(self, poses: Poses, body: BodyModel, model: ModelConfig) -> None:
        """`body` is on the device on which batches are made."""
        device = body.mean_pose.device
        self._poses = Poses(*(values.to(device) for values in poses))
        self._body, self._model = body, model
        self._roots = torch.tensor(ROOTS_OF_JOINTS, device=device)
        self._draw = Draw(device)

    @torch.no_grad()
    def batch(self, size: int, seed: int) -> dict[str, Tensor]:
        """Targets of training (`datasets.targets.Targets`), and `keypoints` as a network finds them
        (B 137 4, see `simulate_detections`). All joints are known, also those outside the crop.
        """
        self._draw.restart(seed)
        person, joints = self._placed(size)
        places, inside = self._crop(joints)
        from_pelvis = joints - joints[:, _PELVIS, None]
        cells, height, width = self._model.output_hm_shape
        depth = (from_pelvis[..., 2:] / (self._model.body_3d_size / 2) + 1) / 2 * cells
        one, zero = places.new_ones(size), places.new_zeros(size, dtype=torch.long)
        known, no_root = places.new_ones(*places.shape[:2], 1), places.new_zeros(size, 1, 3)
        valid = ("meta_smplx_shape_valid", "meta_smplx_expr_valid", "meta_is_3D")
        return {
            "keypoints": simulate_detections(places, from_pelvis[..., 2], inside, self._draw),
            "target_joint_img": torch.cat([places * places.new_tensor([width, height]), depth], 2),
            "target_joint_cam": from_pelvis,
            "target_smplx_joint_cam": joints - joints[:, self._roots],
            "target_smplx_pose": person.pose.flatten(1),
            "target_smplx_shape": person.betas,
            "target_smplx_expr": person.expression,
            **dict.fromkeys(("target_lhand_root", "target_rhand_root"), no_root),
            **dict.fromkeys(("meta_joint_valid", "meta_joint_trunc"), known),
            "meta_smplx_pose_valid": places.new_ones(size, 9 * len(POSE_JOINTS)),
            **dict.fromkeys(valid, one),
            **dict.fromkeys(("dataset", "unreadable"), zero),
        }

    def _stages(self, size: int) -> _Stages:
        """Random cameras; see `rendering.draw_focal_mm` and `rendering.draw_stage`."""
        draw = self._draw
        kind = draw.uniform(size)
        wide, telephoto = 24 * (85 / 24) ** (kind / 0.8), 85 * (300 / 85) ** ((kind - 0.8) / 0.2)
        focal = torch.where(kind < 0.8, wide, telephoto)
        fills = (math.log(0.3) + math.log(1.1 / 0.3) * draw.uniform(size)).exp()
        away = (_PERSON_M * focal / FILM_HEIGHT_MM / fills).clamp(1.4, 60)
        right = away * draw.uniform(size, -0.42, 0.42) * FILM_WIDTH_MM / focal
        kind = draw.uniform(size)
        height = (1.45 + 0.3 * draw.normal(size)).clamp(0.6, 2.2)
        height = torch.where(kind > 0.78, draw.uniform(size, 0.15, 0.9), height)
        height = torch.where(kind > 0.9, draw.uniform(size, 2.0, 4.5), height)
        offset, film = draw.uniform(size, -1, 1), FILM_HEIGHT_MM / focal
        to_people = torch.atan2(height - 0.9, away)
        level = (math.radians(4) * offset).clamp(to_people - film / 4, to_people + film / 4)
        pitch = torch.where(kind < 0.45, level, to_people + 0.18 * offset * film)
        roll = torch.deg2rad(torch.where(draw.chance(size, 0.35), 12.0, 2.0) * draw.normal(size))
        # Half a turn about x: the world's y points up, the camera's down.
        return _Stages(_about("z", roll) @ _about("x", pitch + math.pi), height, right, away)

    def _placed(self, size: int) -> tuple[_Person, Float[Tensor, "B 137 3"]]:
        """People on a floor, and their joints in the camera's frame, metres."""
        draw, (from_world, height, right, away) = self._draw, self._stages(size)
        row = draw.below(size, len(self._poses.pose))
        yaw = torch.where(
            draw.chance(size, 0.5),
            torch.deg2rad(45 * draw.normal(size)),
            draw.uniform(size, -math.pi, math.pi),
        )
        pose, root = self._pose(row)
        pose[:, 0] = matrix_to_axis_angle(from_world @ _about("y", yaw) @ root)
        betas = draw.normal(size, 10).clamp(-_MOST_BETA, _MOST_BETA)
        expression = draw.normal(size, 10) * draw.uniform(size, 0, 1.3)[:, None]
        person = _Person(pose, betas, expression)

        joints = self._joints(person)
        up = from_world[:, :, 1]
        lowest = (joints @ up[:, :, None]).amin((1, 2)) - _SKIN_M / 2
        pelvis = joints[:, _PELVIS]
        floor = from_world @ torch.stack([right, torch.zeros_like(away), -away], 1)[..., None]
        along_floor = pelvis - up * (up * pelvis).sum(1, keepdim=True)
        rise = up * (self._poses.lift_m[row] - height - lowest)[:, None]
        return person, joints + (floor[..., 0] - along_floor + rise)[:, None]

    def _pose(self, row: Tensor) -> tuple[Float[Tensor, "B 53 3"], Float[Tensor, "B 3 3"]]:
        """A pose of the pool with another's arms or hands now and then, noise and a jaw, and the
        rotation of its root; half of them are mirrored."""
        draw, size, poses = self._draw, len(row), self._poses.pose
        pose, root = poses[row], self._poses.root[row]
        for chance, joints in ((_OTHER_ARMS, _ARMS), (_OTHER_HANDS, _HANDS)):
            other = torch.where(draw.chance(size, chance), draw.below(size, len(poses)), row)
            pose[:, joints] = poses[other][:, joints]
        noise = _NOISE_RAD * draw.uniform(size)[:, None, None] * draw.normal(*pose.shape)
        pose = pose + noise
        pose[:, _JAW] = 0.02 * draw.normal(size, 3)
        pose[:, _JAW, 0] = (0.02 + 0.1 * draw.normal(size)).clamp(0, 0.4)
        pose[:, _JAW, 2] = 0
        mirror = draw.chance(size, 0.5)[:, None, None]
        pose = torch.where(mirror, pose[:, _MIRRORED] * pose.new_tensor([1, -1, -1]), pose)
        flip = root.new_tensor([-1, 1, 1]).diag()
        return pose, torch.where(mirror, flip @ root @ flip, root)

    def _joints(self, person: _Person) -> Float[Tensor, "B 137 3"]:
        pose = {name: person.pose[:, part].flatten(1) for name, part in POSE_PARAMETERS.items()}
        posed = self._body(
            **pose, betas=person.betas, expression=person.expression, want_vertices=False
        )
        return posed.joints[:, JOINTS_FROM_MODEL]

    def _crop(self, joints: Float[Tensor, "B 137 3"]) -> tuple[Float[Tensor, "B 137 2"], Tensor]:
        """Places as shares of the crop's width and height, and whether the crop and the picture
        have them; the border of some pictures cuts people, as in `crops`."""
        draw, size = self._draw, len(joints)
        depth = joints[..., 2:].clamp(min=0.1)
        flat = joints[..., :2] / depth
        # The head's top is as far from its joint as the neck is.
        crown = 2 * flat[:, _HEAD] - flat[:, _NECK]
        outline = torch.cat([flat, crown[:, None]], dim=1)
        skin = _SKIN_M / depth.mean(1)
        low, high = outline.amin(1) - skin, outline.amax(1) + skin
        extent, cut = high - low, draw.chance(size, 0.28)
        left, top, right, bottom = (
            torch.where(cut & draw.chance(size, chance), draw.uniform(size, 0.05, most), 0.0)
            for chance, most in ((0.2, 0.4), (0.08, 0.4), (0.2, 0.4), (0.65, 0.7))
        )
        first, last = torch.stack([left, top], 1), torch.stack([right, bottom], 1)
        low, high = low + first * extent, high - last * extent
        margin = (_BOX_SCALE - 1) / 2 * (high - low)
        inside = ((flat >= low[:, None]) | (first == 0)[:, None]) & (
            (flat <= high[:, None]) | (last == 0)[:, None]
        )
        low, high = low - margin * (first == 0), high + margin * (last == 0)
        width, height = (high - low).unbind(1)
        aspect = self._model.input_img_shape[1] / self._model.input_img_shape[0]
        side = torch.maximum(height, width / aspect) * (1 + 0.08 * draw.normal(size)).clamp(
            0.8, 1.25
        )
        crop = side[:, None] * side.new_tensor([aspect, 1.0])
        middle = (low + high) / 2 + 0.02 * draw.normal(size, 2) * crop
        places = (flat - middle[:, None]) / crop[:, None] + 0.5
        return places, (inside & (places > 0) & (places < 1)).all(2)


def _about(axis: str, angle: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Rotations by radians."""
    return axis_angle_to_matrix(angle[:, None] * angle.new_tensor([axis == k for k in "xyz"]))


class Draw:
    """Random numbers on one device, from a seed that can be set again."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._generator = device, torch.Generator(device)

    def restart(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def uniform(self, size: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " B"]:
        draws = torch.rand(size, generator=self._generator, device=self._device)
        return low + (high - low) * draws

    def normal(self, *shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=self._generator, device=self._device)

    def chance(self, size: int, share: float) -> Bool[Tensor, " B"]:
        """True for such a share."""
        return self.uniform(size) < share

    def below(self, size: int, end: int) -> Int[Tensor, " B"]:
        return torch.randint(end, (size,), generator=self._generator, device=self._device)


class _Group(NamedTuple):
    """Joints whose errors are correlated, and how large these are."""

    joints: list[int]
    error: float
    """Median of the expected error, as a share of the crop's height."""
    spread: float
    """Standard deviation of the expected error's logarithm."""
    shared: float
    """Share of the squared error that all joints of the group have in common."""
    depth: float
    """Detected over true depth: a network that learns medians shrinks what it is unsure of."""
    depth_noise_m: float


def _starting_with(*starts: str) -> list[int]:
    return [k for k, name in enumerate(JOINTS) if name.startswith(starts)]


def _of_sides(*parts: str) -> list[int]:
    """Joints of both sides whose names begin with a part."""
    return _starting_with(*(f"{side}_{part}" for side in SIDES for part in parts))


_FOOT: Final = ("big_toe", "small_toe", "heel")


def _groups_of_side(side: str) -> list[_Group]:
    foot = _starting_with(*(f"{side}_{part}" for part in ("ankle", *_FOOT)))
    hand = joint_places(HAND_KEYPOINTS[side])
    return [
        _Group(joint_places([f"{side}_knee"]), 0.048, 0.99, 0.0, 0.43, 0.11),
        _Group(foot, 0.053, 1.26, 0.59, 0.47, 0.185),
        _Group(joint_places([f"{side}_elbow"]), 0.046, 1.2, 0.0, 0.65, 0.11),
        _Group(hand, 0.055, 1.5, 0.64, 0.51, 0.155),
    ]


_TORSO: Final = joint_places(
    ("pelvis", "left_hip", "right_hip", "neck", "left_shoulder", "right_shoulder")
)
_HEAD_JOINTS: Final = sorted(_starting_with("face", "nose") + _of_sides("ear", "eye"))
GROUPS: Final = (
    _Group(_TORSO, 0.0165, 1.5, 0.41, 0.655, 0.063),
    _Group(_HEAD_JOINTS, 0.0072, 1.68, 0.26, 0.71, 0.103),
    *(group for side in SIDES for group in _groups_of_side(side)),
)
_COCO: Final = joint_places(COCO_KEYPOINTS)
_FEET: Final = _of_sides(*_FOOT)
_UPPER: Final = [k for k in _COCO if not JOINTS[k].endswith(("hip", "knee", "ankle"))]
_SUBSETS: Final = (
    _COCO,
    _COCO + _FEET,
    *(_COCO + joint_places(HAND_KEYPOINTS[side]) for side in SIDES),
    _UPPER,
)
"""Joints that other keypoint networks detect, or that remain where only a part is seen."""
_LEG_JOINTS: Final = _of_sides("hip", "knee", "ankle", *_FOOT)
_ARM_JOINTS: Final = [
    j
    for group in GROUPS
    if JOINTS[group.joints[0]].endswith(("elbow", "wrist"))
    for j in group.joints
]
_MIRRORED_JOINTS: Final = mirror_permutation(JOINTS)
SWAPPED_SIDES: Final = ((list(range(len(JOINTS))), 0.05), (_LEG_JOINTS, 0.06), (_ARM_JOINTS, 0.035))
"""Groups of joints in which left and right may be confused, and the probability."""
_SUBSET: Final = 0.15
"""Probability that a sample has only the joints of one of `_SUBSETS`, without depths."""
_MOST_MISSING: Final = 0.15
"""Largest share of joints that are missing one by one."""
_OCCLUDED: Final = 0.1
"""Probability that an object covers a part of the crop."""
_ERROR_OUTSIDE: Final = 0.12
"""Median of the expected error of joints outside the crop."""
_LARGEST_ERROR: Final = 0.25
"""Upper bound of expected errors, which large ones approach."""
_FINEST: Final = 0.014
"""Median error where none is expected, as a share of the crop's height."""
_ERROR_OF_EXPECTED: Final = 0.82
"""Increase of the median error per unit of expected error."""
_MEDIAN_OF_LENGTH: Final = math.sqrt(2 * math.log(2))
"""Median length of a vector in the plane whose components are standard normal."""
_ASPECT: Final = 0.75
"""Width of the crop over its height."""


class _Tables(NamedTuple):
    """The number of every joint's group, and the group's parameters."""

    group: Int[Tensor, " J"]
    error: Float[Tensor, " J"]
    spread: Float[Tensor, " J"]
    shared: Float[Tensor, " J"]
    depth: Float[Tensor, " J"]
    depth_noise_m: Float[Tensor, " J"]


def _tables() -> _Tables:
    group = torch.zeros(len(JOINTS), dtype=torch.long)
    for number, members in enumerate(GROUPS):
        group[members.joints] = number
    columns = [torch.tensor(column)[group] for column in list(zip(*GROUPS, strict=True))[1:]]
    return _Tables(group, *columns)


_TABLES: Final = _tables()


def simulate_detections(
    places: Float[Tensor, "B 137 2"],
    depth_m: Float[Tensor, "B 137"],
    inside: Bool[Tensor, "B 137"],
    draw: Draw,
) -> Float[Tensor, "B 137 4"]:
    """Joints as a keypoint network detects them: inaccurate, of varying confidence, or missing.

    The constants are those of an encoder of the demo network, measured on 1,200 synthetic people of
    the training split that it had not seen (`python -m benchmarks.detections`). For these people
    the simulation agrees with the encoder within 10 % in the medians of expected errors, the
    shares of swapped sides, and the distances where errors below 0.16 are expected; above,
    distances are 20 % too short. The spreads of expected errors are up to 14 % too small for
    single joints. Hands and feet are 20 to 40 % too far off in the median. Errors in photographs
    have not been measured.

    Args:
        places: shares of the crop's width and height.
        depth_m: from the pelvis.
        inside: joints that the crop shows.

    Returns:
        x, y, depth and expected error of each joint, as `models.smplest_x.Lifter` takes them.
    """
    table = _Tables(*(values.to(places.device) for values in _TABLES))
    places, depth_m, mistaken = _swap_sides(places, depth_m, draw)
    error = _expected_error(table, len(places), draw)
    error = torch.where(mistaken, 2 * error, error)
    error = error * _occlusion(places, draw)
    error = torch.where(inside, error, error.clamp(min=_ERROR_OUTSIDE / 2) * 2)
    error = -_LARGEST_ERROR * torch.expm1(-error / _LARGEST_ERROR)

    # The less certain a joint is, the heavier the tails: the network took another place for it.
    tail = (0.25 + 0.55 * (error / 0.06).clamp(max=1)) * _grouped(table, len(places), draw, 0.8)
    length = (_FINEST + _ERROR_OF_EXPECTED * error) * tail.exp() / _MEDIAN_OF_LENGTH
    x, y = (length * _grouped(table, len(places), draw) for _ in range(2))
    found = places - 0.5 + torch.stack([x / _ASPECT, y], dim=2)
    sureness = (1 + 0.25 * draw.normal(len(places), 1)).clamp(0.3, 1.5)
    depth = table.depth * sureness * depth_m
    depth = depth + table.depth_noise_m * _grouped(table, len(places), draw, 0.8)
    missing = _missing(len(places), draw)
    depth, error = torch.where(missing[1], 0.0, depth), torch.where(missing[0], torch.inf, error)
    return torch.cat([found.clamp(-0.5, 0.5), torch.stack([depth, error], dim=2)], dim=2)


def _grouped(
    table: _Tables, size: int, draw: Draw, shared: float | None = None
) -> Float[Tensor, "B 137"]:
    """Normal numbers, correlated within each group; `shared`: the share of their variance."""
    share = table.shared if shared is None else torch.full_like(table.shared, shared)
    common = draw.normal(size, len(GROUPS))[:, table.group]
    return share.sqrt() * common + (1 - share).sqrt() * draw.normal(size, len(JOINTS))


def _expected_error(table: _Tables, size: int, draw: Draw) -> Float[Tensor, "B 137"]:
    """Log-normal: some pictures are harder than others, some limbs, some joints."""
    of_sample, of_joint = draw.normal(size, 1), _grouped(table, size, draw, 0.67)
    return table.error * (table.spread * (0.63 * of_sample + 0.77 * of_joint)).exp()


def _swap_sides(
    places: Float[Tensor, "B 137 2"], depth_m: Float[Tensor, "B 137"], draw: Draw
) -> tuple[Float[Tensor, "B 137 2"], Float[Tensor, "B 137"], Bool[Tensor, "B 137"]]:
    """Left taken for right; of a whole person, also front for back.

    Returns the new places and depths, and which joints are affected.
    """
    everywhere, *limbs = (draw.chance(len(places), share) for _, share in SWAPPED_SIDES)
    depth_m = torch.where(everywhere[:, None], -depth_m[:, _MIRRORED_JOINTS], depth_m)
    mistaken = everywhere[:, None].expand(depth_m.shape).clone()
    for (joints, _), chosen in zip(SWAPPED_SIDES[1:], limbs, strict=True):
        mistaken[:, joints] ^= chosen[:, None]
    swapped = torch.where(mistaken[..., None], places[:, _MIRRORED_JOINTS], places)
    only_limb = mistaken & ~everywhere[:, None]
    depth_m = torch.where(only_limb, depth_m[:, _MIRRORED_JOINTS], depth_m)
    return swapped, depth_m, mistaken


def _occlusion(places: Float[Tensor, "B 137 2"], draw: Draw) -> Float[Tensor, "B 137"]:
    """Factors of the expected errors: large behind an object, a disc somewhere in the crop."""
    size = len(places)
    middle = torch.stack([draw.uniform(size), draw.uniform(size)], dim=1)
    radius = draw.uniform(size, 0, 0.3) * draw.chance(size, _OCCLUDED)
    covered = (places - middle[:, None]).norm(dim=2) < radius[:, None]
    return torch.where(covered, 3.0, 1.0)


def _missing(size: int, draw: Draw) -> tuple[Bool[Tensor, "B 137"], Bool[Tensor, "B 137"]]:
    """Which joints are not detected at all, and which without a depth."""
    detected = torch.ones(1 + len(_SUBSETS), len(JOINTS), dtype=torch.bool)
    for row, joints in enumerate(_SUBSETS, 1):
        detected[row] = False
        detected[row, joints] = True
    other = draw.chance(size, _SUBSET)
    source = torch.where(other, 1 + draw.below(size, len(_SUBSETS)), 0)
    known = detected.to(source.device)[source]
    lost = draw.uniform(size, -_MOST_MISSING, _MOST_MISSING).clamp(min=0)
    one_by_one = draw.uniform(size * len(JOINTS)).unflatten(0, (size, -1)) < lost[:, None]
    return ~known | one_by_one, other[:, None].expand(known.shape)

"""Joints as a keypoint network finds them: wrong by much or little, more or less sure, or missing.

The numbers are those of the demo network's encoder on pictures that it was not trained on.
Joints of a limb go wrong together, and so do their depths, which a network that is not sure draws
towards the pelvis' (it learns medians).
"""

import math
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from human_models.joints import JOINTS, SIDES, mirror_permutation


class Draw:
    """Random numbers on one device, from a seed that can be set anew."""

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
    """Joints that go wrong together, and how."""

    joints: list[int]
    error: float
    """Median of the error that is expected, as a share of the crop's height."""
    spread: float
    """Of its logarithm."""
    shared: float
    """Share of the squared error that all joints of the group have in common."""
    depth: float
    """What is found of a depth."""
    depth_noise_m: float


def _named(*names: str) -> list[int]:
    return [JOINTS.index(name) for name in names]


def _beginning(*starts: str) -> list[int]:
    return [k for k, name in enumerate(JOINTS) if name.startswith(starts)]


def _groups_of_side(side: str) -> list[_Group]:
    foot = _beginning(*(f"{side}_{part}" for part in ("ankle", "big_toe", "small_toe", "heel")))
    fingers = ("wrist", "thumb", "index", "middle", "ring", "pinky")
    hand = _beginning(*(f"{side}_{part}" for part in fingers))
    return [
        _Group(_named(f"{side}_knee"), 0.04, 0.85, 0.0, 0.37, 0.115),
        _Group(foot, 0.038, 1.15, 0.6, 0.42, 0.19),
        _Group(_named(f"{side}_elbow"), 0.036, 1.0, 0.0, 0.61, 0.12),
        _Group(hand, 0.041, 1.2, 0.8, 0.51, 0.155),
    ]


_TORSO: Final = _named("pelvis", "left_hip", "right_hip", "neck", "left_shoulder", "right_shoulder")
_HEAD: Final = _beginning(
    "face", "nose", *(f"{side}_{part}" for side in SIDES for part in ("ear", "eye"))
)
_GROUPS: Final = (
    _Group(_TORSO, 0.015, 1.25, 0.35, 0.64, 0.07),
    _Group(_HEAD, 0.006, 1.4, 0.75, 0.68, 0.12),
    *(group for side in SIDES for group in _groups_of_side(side)),
)
_COCO: Final = [
    *_named(
        "nose",
        *(
            f"{side}_{part}"
            for side in SIDES
            for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        ),
    )
]
_FEET: Final = _beginning(
    *(f"{side}_{part}" for side in SIDES for part in ("big_toe", "small_toe", "heel"))
)
_UPPER: Final = [k for k in _COCO if not JOINTS[k].endswith(("hip", "knee", "ankle"))]
_SOURCES: Final = (
    _COCO,
    _COCO + _FEET,
    _COCO + _groups_of_side("left")[3].joints,
    _COCO + _groups_of_side("right")[3].joints,
    _UPPER,
)
"""Joints that other keypoint networks give, or that are in use when only a part is seen."""
_LEGS: Final = _beginning(
    *(
        f"{side}_{part}"
        for side in SIDES
        for part in ("hip", "knee", "ankle", "big_toe", "small_toe", "heel")
    )
)
_ARMS: Final = [
    j
    for group in _GROUPS
    if JOINTS[group.joints[0]].endswith(("elbow", "wrist"))
    for j in group.joints
]
_MIRRORED: Final = mirror_permutation(JOINTS)
_FROM_SIDES: Final = ((list(range(len(JOINTS))), 0.04), (_LEGS, 0.04), (_ARMS, 0.04))
"""Joints whose left and right are taken for each other, and how often."""
_OTHER_SOURCE: Final = 0.15
_LOST: Final = 0.15
"""Largest share of joints that are missing one by one."""
_COVERED: Final = 0.1
"""How often a thing covers a part of the crop."""
_OUTSIDE: Final = 0.12
"""Median of the error that is expected of a joint that is not in the crop."""
_MOST: Final = 0.25
"""Error that is expected at most."""
_FINEST: Final = 0.013
_MEDIAN_OF_LENGTH: Final = math.sqrt(2 * math.log(2))
"""Of a normal vector in the plane."""
_ASPECT: Final = 0.75


class _Tables(NamedTuple):
    """The groups' numbers for every joint."""

    group: Int[Tensor, " J"]
    error: Float[Tensor, " J"]
    spread: Float[Tensor, " J"]
    shared: Float[Tensor, " J"]
    depth: Float[Tensor, " J"]
    depth_noise_m: Float[Tensor, " J"]


def _tables() -> _Tables:
    group = torch.zeros(len(JOINTS), dtype=torch.long)
    for number, members in enumerate(_GROUPS):
        group[members.joints] = number
    columns = [torch.tensor(column)[group] for column in list(zip(*_GROUPS, strict=True))[1:]]
    return _Tables(group, *columns)


_TABLES: Final = _tables()


def sightings(
    places: Float[Tensor, "B 137 2"],
    depth_m: Float[Tensor, "B 137"],
    inside: Bool[Tensor, "B 137"],
    draw: Draw,
) -> Float[Tensor, "B 137 4"]:
    """x, y, depth and expected error of joints, as `models.lifter.Lifter` takes them.

    Args:
        places: shares of the crop's width and height.
        depth_m: from the pelvis.
        inside: joints that the crop shows.
    """
    table = _Tables(*(values.to(places.device) for values in _TABLES))
    places, depth_m, mistaken = _mistaken_sides(places, depth_m, draw)
    error = _expected_error(table, len(places), draw)
    error = torch.where(mistaken, 2 * error, error)
    error = error * _covering(places, draw)
    error = torch.where(inside, error, error.clamp(min=_OUTSIDE / 2) * 2).clamp(max=_MOST)

    # Heavy tails where little is sure: another place is as likely as the right one.
    tail = (0.2 + 0.6 * (error / 0.06).clamp(max=1)) * _grouped(table, len(places), draw, 0.8)
    length = (_FINEST + 0.93 * error) * tail.exp() / _MEDIAN_OF_LENGTH
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
    """Normal numbers, in part the same for all joints of a group; `shared`: of their squares."""
    share = table.shared if shared is None else torch.full_like(table.shared, shared)
    common = draw.normal(size, len(_GROUPS))[:, table.group]
    return share.sqrt() * common + (1 - share).sqrt() * draw.normal(size, len(JOINTS))


def _expected_error(table: _Tables, size: int, draw: Draw) -> Float[Tensor, "B 137"]:
    """Some pictures are harder than others, some limbs, some joints."""
    of_sample, of_joint = draw.normal(size, 1), _grouped(table, size, draw, 0.67)
    return table.error * (table.spread * (0.63 * of_sample + 0.77 * of_joint)).exp()


def _mistaken_sides(
    places: Float[Tensor, "B 137 2"], depth_m: Float[Tensor, "B 137"], draw: Draw
) -> tuple[Float[Tensor, "B 137 2"], Float[Tensor, "B 137"], Bool[Tensor, "B 137"]]:
    """Left taken for right; of a whole person, front for back. The last: of which joints."""
    whole, *limbs = (draw.chance(len(places), share) for _, share in _FROM_SIDES)
    depth_m = torch.where(whole[:, None], -depth_m[:, _MIRRORED], depth_m)
    mistaken = whole[:, None].expand(depth_m.shape).clone()
    for (joints, _), chosen in zip(_FROM_SIDES[1:], limbs, strict=True):
        mistaken[:, joints] ^= chosen[:, None]
    swapped = torch.where(mistaken[..., None], places[:, _MIRRORED], places)
    only_limb = mistaken & ~whole[:, None]
    depth_m = torch.where(only_limb, depth_m[:, _MIRRORED], depth_m)
    return swapped, depth_m, mistaken


def _covering(places: Float[Tensor, "B 137 2"], draw: Draw) -> Float[Tensor, "B 137"]:
    """Factors of the expected errors: large behind a thing, a disc somewhere in the crop."""
    size = len(places)
    middle = torch.stack([draw.uniform(size), draw.uniform(size)], dim=1)
    radius = draw.uniform(size, 0, 0.3) * draw.chance(size, _COVERED)
    covered = (places - middle[:, None]).norm(dim=2) < radius[:, None]
    return torch.where(covered, 3.0, 1.0)


def _missing(size: int, draw: Draw) -> tuple[Bool[Tensor, "B 137"], Bool[Tensor, "B 137"]]:
    """Joints of which nothing is known, and those without a depth."""
    given = torch.ones(1 + len(_SOURCES), len(JOINTS), dtype=torch.bool)
    for row, joints in enumerate(_SOURCES, 1):
        given[row] = False
        given[row, joints] = True
    other = draw.chance(size, _OTHER_SOURCE)
    source = torch.where(other, 1 + draw.below(size, len(_SOURCES)), 0)
    known = given.to(source.device)[source]
    lost = draw.uniform(size, -_LOST, _LOST).clamp(min=0)
    one_by_one = draw.uniform(size * len(JOINTS)).unflatten(0, (size, -1)) < lost[:, None]
    return ~known | one_by_one, other[:, None].expand(known.shape)

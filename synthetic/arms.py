"""Random poses of arms and hands.

Functions from `hanging` to `anywhere` return a pose of one arm, those from `crossed` to
`telephone` of both. Points are metres in the mean body's rest frame for the left arm (x outward,
y up, z forward); the right arm is its mirror image. For reference: shoulder (0.18, 0.05, 0.03),
chest z = 0.12, mouth (0, 0.19, 0.14), ear (0.07, 0.24, 0.05), hip (0.17, -0.40, 0.01). The wrist
is 8 cm from the middle of the palm.

Hand shapes are angles of finger joints from the flat hand, in degrees; hand poses are relative to
SMPL-X's mean hand. The right hand is the left one mirrored.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from human_models.joints import HAND_JOINTS, HANDS_MEAN, SIDES
from synthetic.skeleton import (
    JOINT,
    SIGN,
    Rotation,
    Skeleton,
    Vector,
    clamp,
    pick,
    rotation_about,
    turn,
)

Rng = np.random.Generator


class Arm(NamedTuple):
    """Target of inverse kinematics for a left arm."""

    wrist: Vector
    """Position of the wrist, metres in the rest frame of an upright torso."""
    pole: Vector
    """Direction in which the elbow points."""
    twist: float = 0.0
    """Degrees by which the forearm turns from the natural side, thumb up and inward."""
    bend: tuple[float, float] = (0.0, 0.0)
    """Flexion of the wrist (palm down) and ulnar deviation (towards the little finger), degrees."""
    hand: str | None = None
    """Name in `SHAPES`; None stands for any shape."""


THIGH: Final = Arm(
    np.array([0.15, -0.27, 0.28]), np.array([1.0, -0.2, -0.6]), -60, (5, 0), "relaxed"
)
"""The hand on the thigh of a sitting person."""


def _vector(x: float, y: float, z: float) -> Vector:
    return np.array([x, y, z], np.float64)


def hanging(rng: Rng) -> Arm:
    wrist = rng.uniform((0.2, -0.45, -0.05), (0.42, -0.36, 0.16))
    return Arm(wrist, _vector(0.4, 0, -1), rng.normal(0, 20), (rng.normal(0, 10), rng.normal(0, 8)))


def on_hip(rng: Rng) -> Arm:
    wrist = rng.uniform((0.19, -0.32, -0.05), (0.24, -0.24, 0.08))
    return Arm(wrist, _vector(1, 0, -0.5), rng.uniform(-60, 20), (rng.uniform(10, 50), 0), "flat")


def waving(rng: Rng) -> Arm:
    wrist = rng.uniform((0.3, 0.15, 0.05), (0.55, 0.45, 0.3))
    twist = rng.uniform(-110, -50)
    return Arm(
        wrist, _vector(0.6, -1, -0.2), twist, (rng.normal(0, 15), rng.normal(0, 20)), "spread"
    )


def raised(rng: Rng) -> Arm:
    wrist = rng.uniform((0.05, 0.42, -0.05), (0.4, 0.6, 0.3))
    return Arm(wrist, _vector(1, -0.3, 0.1), rng.normal(-30, 50), (rng.normal(0, 20), 0))


def reaching(rng: Rng) -> Arm:
    direction = rng.normal(size=3) * (0.7, 0.7, 0.6) + (0.35, 0, 0.6)
    direction /= np.linalg.norm(direction)
    wrist = _vector(0.18, 0.05, 0.03) + direction * rng.uniform(0.36, 0.5)
    return Arm(
        wrist, _vector(0.5, -1, -0.4), rng.normal(-20, 45), (rng.normal(0, 18), rng.normal(0, 10))
    )


def pointing(rng: Rng) -> Arm:
    return reaching(rng)._replace(bend=(rng.normal(0, 8), 0), hand="point")


def carrying(rng: Rng) -> Arm:
    wrist = rng.uniform((0.05, -0.25, 0.25), (0.28, -0.02, 0.4))
    return Arm(wrist, _vector(0.4, -1, -0.5), rng.uniform(-90, 90), (rng.normal(0, 15), 0), "grip")


def at_face(rng: Rng) -> Arm:
    place = rng.integers(4)
    if place == 0:  # chin or mouth
        wrist = rng.uniform((0.0, 0.06, 0.19), (0.07, 0.13, 0.25))
    elif place == 1:  # ear, as in a telephone call
        wrist = rng.uniform((0.13, 0.13, 0.08), (0.18, 0.2, 0.14))
    elif place == 2:  # eyes or brow
        wrist = rng.uniform((0.06, 0.2, 0.18), (0.14, 0.28, 0.24))
    else:  # back of the head
        wrist = rng.uniform((0.12, 0.26, -0.04), (0.18, 0.34, 0.08))
    pole = _vector(rng.uniform(0.3, 1.2), -0.9, 0.3)
    return Arm(wrist, pole, rng.normal(-10, 35), (rng.normal(10, 20), rng.normal(0, 12)))


def on_chest(rng: Rng) -> Arm:
    wrist = rng.uniform((-0.02, -0.12, 0.17), (0.16, 0.03, 0.23))
    return Arm(wrist, _vector(1, -0.6, 0), rng.normal(0, 25), (rng.normal(5, 15), 0))


def before_belly(rng: Rng) -> Arm:
    wrist = rng.uniform((0.03, -0.32, 0.18), (0.12, -0.18, 0.28))
    return Arm(wrist, _vector(1, -0.5, -0.4), rng.normal(0, 30), (rng.normal(5, 15), 0))


def behind_back(rng: Rng) -> Arm:
    wrist = rng.uniform((0.04, -0.35, -0.22), (0.14, -0.25, -0.17))
    return Arm(wrist, _vector(1, 0, -0.5), rng.normal(60, 20), (rng.normal(0, 10), 0))


def sideways(rng: Rng) -> Arm:
    wrist = rng.uniform((0.5, -0.15, -0.15), (0.66, 0.3, 0.25))
    return Arm(
        wrist, _vector(0, -1, -0.5), rng.normal(-10, 40), (rng.normal(0, 20), rng.normal(0, 10))
    )


def anywhere(rng: Rng) -> Arm:
    wrist = rng.uniform((-0.1, -0.4, -0.1), (0.6, 0.5, 0.45))
    return Arm(
        wrist,
        _vector(1, -1, -0.4) + rng.normal(0, 0.5, 3),
        rng.normal(0, 50),
        (rng.normal(0, 25), 0),
    )


def crossed(rng: Rng) -> tuple[Arm, Arm]:
    upper, height = rng.integers(2), rng.uniform(-0.12, -0.02)
    arms = []
    for k in range(2):
        above = k == upper
        wrist = _vector(
            rng.uniform(-0.12, -0.06), height + 0.05 * above, (0.225 if above else 0.165)
        )
        arms.append(Arm(wrist, _vector(0.9, -1, 0.2), rng.normal(0, 15), (rng.normal(10, 10), 0)))
    return arms[0], arms[1]


def clasped(rng: Rng) -> tuple[Arm, Arm]:
    place = _vector(0.055, rng.uniform(-0.38, 0.1), rng.uniform(0.2, 0.36))
    pole, twist = _vector(1, -0.8, -0.3), rng.normal(0, 15)
    left = Arm(place, pole, twist, (0, 0), "hold flat")
    return left, left._replace(twist=rng.normal(0, 15))


def telephone(rng: Rng) -> tuple[Arm, Arm]:
    y, z = rng.uniform(-0.15, 0.05), rng.uniform(0.24, 0.36)
    arms = [
        Arm(
            _vector(rng.uniform(0.05, 0.1), y, z),
            _vector(0.8, -1, -0.3),
            rng.uniform(20, 70),
            (rng.normal(0, 10), 0),
            "grip",
        )
        for _ in range(2)
    ]
    return arms[0], arms[1]


_SINGLE: Final[dict[Callable[[Rng], Arm], float]] = {
    hanging: 5, on_hip: 1.2, waving: 1.5, raised: 1.2, reaching: 2.5,
    pointing: 1, carrying: 1.8, at_face: 2.2, on_chest: 1.2, before_belly: 1,
    behind_back: 0.6, sideways: 1.5, anywhere: 3,
}  # fmt: skip
_DOUBLE: Final = {crossed: 1.0, clasped: 1.0, telephone: 0.8}


def draw_arms(rng: Rng, both: float = 0.15) -> tuple[Arm, Arm]:
    """Poses of the left and the right arm, with probability `both` a pose of both together."""
    if rng.random() < both:
        return pick(rng, _DOUBLE)(rng)
    left, right = pick(rng, _SINGLE), pick(rng, _SINGLE)
    if rng.random() < 0.3:
        right = left
    return left(rng), right(rng)


def place_arm(skeleton: Skeleton, rotations: np.ndarray, side: str, arm: Arm) -> None:
    """Solve for one arm's joints, collar to wrist, and write them into `rotations` (22, 3, 3)."""
    sign = SIGN[side]
    mirror = np.array([sign, 1.0, 1.0])
    collar, shoulder, elbow, wrist = (
        JOINT[f"{side}_{name}"] for name in ("collar", "shoulder", "elbow", "wrist")
    )
    rise = clamp((arm.wrist[1] - 0.05) * 45, -6, 26)
    forward = clamp((arm.wrist[2] - 0.2) * 40, -8, 14)
    rotations[collar] = turn("z", sign * rise) @ turn("y", -sign * forward)
    root = skeleton.rest[collar] + rotations[collar] @ skeleton.offsets[shoulder]
    target = rotations[collar].T @ (arm.wrist * mirror - root)
    pole = rotations[collar].T @ (arm.pole * mirror)
    limb = skeleton.limbs[side, "arm"]
    upper, lower = skeleton.reach(limb, target, pole)
    axis: Vector = limb.second_direction
    twist = np.radians(arm.twist) * sign * np.sign(axis[0])
    rotations[shoulder] = upper
    rotations[elbow] = lower @ rotation_about(axis, 0.55 * twist)
    down, inward = arm.bend
    bend: Rotation = turn("z", -sign * down) @ turn("y", sign * inward)
    rotations[wrist] = rotation_about(axis, 0.45 * twist) @ bend


# A left finger bends about -z and spreads about y; these factors multiply the spread angle.
_SPREAD: Final = {"index": -1.0, "middle": -0.25, "ring": 0.45, "pinky": 1.1}
# Axes of the left thumb: flexion towards the palm, and swing across it in front of the fingers.
_THUMB_BEND: Final = np.array([0.621, 0.637, -0.457])
_THUMB_SWING: Final = np.array([0.70, -0.28, 0.66])
_MIRROR: Final = np.array([1.0, -1.0, -1.0])
_PLACE: Final = {name.removeprefix("left_"): i for i, name in enumerate(HAND_JOINTS[SIDES[0]])}
Finger = tuple[float, float, float]
Bends = Float[np.ndarray, "5 4"]
"""Joint angles of a hand, degrees. Rows are index, middle, ring and little finger (three joints
from the knuckle outward, spread) and the thumb (swing across the palm, three joints)."""
_STRAIGHT: Final[Finger] = (2, 4, 2)
_CURLED: Final[Finger] = (78, 92, 55)


def _shape(
    index: Finger, middle: Finger, ring: Finger, little: Finger,
    thumb: tuple[float, ...], spread: float = 0,
) -> Bends:  # fmt: skip
    """`spread` is the angle by which fingers spread apart, before the factor of each finger."""
    spreads = [spread * factor for factor in _SPREAD.values()]
    return np.vstack([np.c_[[index, middle, ring, little], spreads], thumb]).astype(np.float64)


SHAPES: Final[dict[str, Bends]] = {
    "fist": _shape(_CURLED, _CURLED, _CURLED, _CURLED, (25, 25, 25, 45)),
    "flat": _shape(_STRAIGHT, _STRAIGHT, _STRAIGHT, _STRAIGHT, (0, -5, 5, 5), -5),
    "spread": _shape((0, 2, 2), (0, 2, 2), (0, 2, 2), (0, 2, 2), (-12, -20, -5, -5), 16),
    "relaxed": _shape((22, 30, 15), (28, 35, 18), (30, 38, 20), (30, 36, 20), (8, 8, 10, 12), 4),
    "point": _shape(_STRAIGHT, _CURLED, _CURLED, _CURLED, (25, 25, 20, 40)),
    "victory": _shape((0, 3, 2), (0, 3, 2), _CURLED, _CURLED, (30, 30, 20, 40), 12),
    "three": _shape(_STRAIGHT, _STRAIGHT, _STRAIGHT, _CURLED, (35, 30, 25, 40), 10),
    "thumb up": _shape(_CURLED, _CURLED, _CURLED, _CURLED, (-18, -22, -8, -10)),
    "shaka": _shape(_CURLED, _CURLED, _CURLED, (5, 8, 5), (-15, -22, -5, -5), 12),
    "grip": _shape((45, 55, 30), (50, 58, 32), (52, 58, 32), (52, 55, 30), (30, 20, 20, 25), 2),
    "hold flat": _shape((55, 18, 10), (58, 18, 10), (58, 18, 10), (55, 18, 10), (35, 5, 5, 10)),
    "pinch": _shape((48, 48, 25), (50, 50, 28), (45, 45, 25), (40, 40, 22), (35, 15, 15, 20), 3),
    "ring": _shape((52, 55, 28), (12, 15, 8), (6, 10, 6), (2, 6, 4), (35, 18, 18, 22), 10),
    "claw": _shape((8, 55, 35), (8, 58, 38), (8, 58, 38), (8, 55, 35), (-5, 10, 15, 30), 10),
    "bowl": _shape((30, 25, 12), (32, 25, 12), (34, 26, 12), (36, 26, 12), (5, 5, 10, 10), 6),
}
_CHANCES: Final = dict.fromkeys(SHAPES, 1.0) | {
    "relaxed": 6.0, "fist": 2.0, "flat": 1.5, "grip": 2.0, "spread": 1.5, "point": 1.5,
}  # fmt: skip


def draw_hand(rng: Rng, side: str, name: str | None = None) -> Float32[np.ndarray, "15 3"]:
    """Rotations of a hand's joints, axis-angle in radians relative to the mean hand.

    `name` is one of SHAPES; None draws one, in 35 % of cases mixed with another.
    """
    bends = SHAPES[name or pick(rng, _CHANCES)]
    if name is None and rng.random() < 0.35:
        bends = bends + rng.uniform(0, 1) * (SHAPES[pick(rng, _CHANCES)] - bends)
    bends = bends * rng.normal(1, 0.1, bends.shape) + rng.normal(0, 4, bends.shape)
    bends[:4, :3] = np.clip(bends[:4, :3], -12, (92, 108, 75))
    return hand_pose(bends, side)


def hand_pose(bends: Bends, side: str) -> Float32[np.ndarray, "15 3"]:
    """Rotations of a hand's joints, axis-angle in radians relative to the mean hand."""
    radians = np.deg2rad(bends)
    pose = np.zeros((15, 3))
    for row, finger in enumerate(_SPREAD):
        for joint in range(3):
            pose[_PLACE[f"{finger}{joint + 1}"], 2] = -radians[row, joint]
        pose[_PLACE[f"{finger}1"], 1] = radians[row, 3]
    for joint in range(3):
        pose[_PLACE[f"thumb{joint + 1}"]] = radians[4, joint + 1] * _THUMB_BEND
    pose[_PLACE["thumb1"]] += radians[4, 0] * _THUMB_SWING
    if side == "right":
        pose = pose * _MIRROR
    return (pose - np.reshape(HANDS_MEAN[side], (15, 3))).astype(np.float32)

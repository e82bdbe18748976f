"""Hand poses: fists, points, grips, spreads and the like, mixed and varied.

Written as bends of fingers from the flat hand, in degrees; given out as SMPL-X wants them, relative
to the mean hand. The right hand is the left one mirrored.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from datasets.synthetic.limbs import pick
from human_models.joints import HAND_JOINTS, HANDS_MEAN, SIDES

_FINGERS: Final = ("index", "middle", "ring", "pinky")
# A left finger bends about -z and spreads about y; fingers of a spread hand turn by these shares.
_SPREAD: Final = {"index": -1.0, "middle": -0.25, "ring": 0.45, "pinky": 1.1}
# Axes of the left thumb: bending towards the palm, and swinging across it in front of the fingers.
_THUMB_BEND: Final = np.array([0.621, 0.637, -0.457])
_THUMB_SWING: Final = np.array([0.70, -0.28, 0.66])
_MIRROR: Final = np.array([1.0, -1.0, -1.0])
_PLACE: Final = {name.removeprefix("left_"): i for i, name in enumerate(HAND_JOINTS[SIDES[0]])}
Bends = tuple[float, float, float]
_STRAIGHT: Final[Bends] = (2, 4, 2)
_CURLED: Final[Bends] = (78, 92, 55)


class HandShape(NamedTuple):
    """Degrees. Bends are of a finger's three joints, from the knuckle on."""

    fore: Bends
    middle: Bends
    ring: Bends
    pinky: Bends
    thumb: tuple[float, float, float, float]
    """Swing across the palm, then bends of its three joints."""
    spread: float = 0


SHAPES: Final[dict[str, HandShape]] = {
    "fist": HandShape(_CURLED, _CURLED, _CURLED, _CURLED, (25, 25, 25, 45), 0),
    "flat": HandShape(_STRAIGHT, _STRAIGHT, _STRAIGHT, _STRAIGHT, (0, -5, 5, 5), -5),
    "spread": HandShape((0, 2, 2), (0, 2, 2), (0, 2, 2), (0, 2, 2), (-12, -20, -5, -5), 16),
    "relaxed": HandShape((22, 30, 15), (28, 35, 18), (30, 38, 20), (30, 36, 20), (8, 8, 10, 12), 4),
    "point": HandShape(_STRAIGHT, _CURLED, _CURLED, _CURLED, (25, 25, 20, 40), 0),
    "victory": HandShape((0, 3, 2), (0, 3, 2), _CURLED, _CURLED, (30, 30, 20, 40), 12),
    "three": HandShape(_STRAIGHT, _STRAIGHT, _STRAIGHT, _CURLED, (35, 30, 25, 40), 10),
    "thumb up": HandShape(_CURLED, _CURLED, _CURLED, _CURLED, (-18, -22, -8, -10), 0),
    "shaka": HandShape(_CURLED, _CURLED, _CURLED, (5, 8, 5), (-15, -22, -5, -5), 12),
    "grip": HandShape((45, 55, 30), (50, 58, 32), (52, 58, 32), (52, 55, 30), (30, 20, 20, 25), 2),
    "hold flat": HandShape((55, 18, 10), (58, 18, 10), (58, 18, 10), (55, 18, 10), (35, 5, 5, 10)),
    "pinch": HandShape((48, 48, 25), (50, 50, 28), (45, 45, 25), (40, 40, 22), (35, 15, 15, 20), 3),
    "ring": HandShape((52, 55, 28), (12, 15, 8), (6, 10, 6), (2, 6, 4), (35, 18, 18, 22), 10),
    "claw": HandShape((8, 55, 35), (8, 58, 38), (8, 58, 38), (8, 55, 35), (-5, 10, 15, 30), 10),
    "bowl": HandShape((30, 25, 12), (32, 25, 12), (34, 26, 12), (36, 26, 12), (5, 5, 10, 10), 6),
}
_CHANCES: Final = dict.fromkeys(SHAPES, 1.0) | {
    "relaxed": 6.0,
    "fist": 2.0,
    "flat": 1.5,
    "grip": 2.0,
    "spread": 1.5,
    "point": 1.5,
}


def draw_hand(
    rng: np.random.Generator, side: str, name: str | None = None
) -> Float32[np.ndarray, "15 3"]:
    """Rotations of a hand's joints, axis-angle in radians relative to the mean hand.

    `name` is one of SHAPES; None draws one, sometimes on its way to another.
    """
    if name is None:
        bends = _degrees(SHAPES[pick(rng, _CHANCES)])
        if rng.random() < 0.35:
            bends = bends + rng.uniform(0, 1) * (_degrees(SHAPES[pick(rng, _CHANCES)]) - bends)
    else:
        bends = _degrees(SHAPES[name])
    bends = bends * rng.normal(1, 0.1, bends.shape) + rng.normal(0, 4, bends.shape)
    bends[:4, :3] = np.clip(bends[:4, :3], -12, (92, 108, 75))
    return hand_pose(bends, side)


def hand_pose(bends: Float[np.ndarray, "5 4"], side: str) -> Float32[np.ndarray, "15 3"]:
    """Rotations relative to the mean hand, from degrees.

    Rows: index, middle, ring, pinky (three bends, spread), thumb (swing, three bends).
    """
    radians = np.deg2rad(bends)
    pose = np.zeros((15, 3))
    for row, finger in enumerate(_FINGERS):
        for joint in range(3):
            pose[_PLACE[f"{finger}{joint + 1}"], 2] = -radians[row, joint]
        pose[_PLACE[f"{finger}1"], 1] = radians[row, 3]
    for joint in range(3):
        pose[_PLACE[f"thumb{joint + 1}"]] = radians[4, joint + 1] * _THUMB_BEND
    pose[_PLACE["thumb1"]] += radians[4, 0] * _THUMB_SWING
    if side == "right":
        pose = pose * _MIRROR
    return (pose - np.reshape(HANDS_MEAN[side], (15, 3))).astype(np.float32)


def _degrees(shape: HandShape) -> Float[np.ndarray, "5 4"]:
    fingers = (shape.fore, shape.middle, shape.ring, shape.pinky)
    rows = [
        (*bends, shape.spread * _SPREAD[name])
        for name, bends in zip(_FINGERS, fingers, strict=True)
    ]
    return np.array([*rows, shape.thumb], np.float64)

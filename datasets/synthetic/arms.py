"""What arms do: each function brings one arm somewhere; targets are in the mean body's rest frame.

Points are metres for the left arm (x outward, y up, z forward); the right arm is its mirror image.
The places to know: shoulder (0.18, 0.05, 0.03), chest z = 0.12, mouth (0, 0.19, 0.14), ear
(0.07, 0.24, 0.05), hip (0.17, -0.40, 0.01). A wrist is 8 cm from the palm's middle.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from datasets.synthetic.limbs import (
    JOINT,
    SIGN,
    Rotation,
    Skeleton,
    Vector,
    about,
    clamp,
    pick,
    turn,
)

Rng = np.random.Generator


class Arm(NamedTuple):
    """Where a wrist goes and how, for the left arm."""

    wrist: Vector
    """Metres in the rest frame, the torso being upright."""
    pole: Vector
    """Direction in which the elbow points."""
    twist: float = 0.0
    """Degrees by which the forearm turns the palm from its natural side, thumb up and inward."""
    bend: tuple[float, float] = (0.0, 0.0)
    """Degrees of the wrist: palm down, and towards the little finger."""
    hand: str | None = None
    """A shape of `hands.SHAPES`; None: any."""


def _vector(x: float, y: float, z: float) -> Vector:
    return np.array([x, y, z], np.float64)


def hanging(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.2, 0.42), rng.uniform(-0.45, -0.36), rng.uniform(-0.05, 0.16))
    return Arm(wrist, _vector(0.4, 0, -1), rng.normal(0, 20), (rng.normal(0, 10), rng.normal(0, 8)))


def on_hip(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.19, 0.24), rng.uniform(-0.32, -0.24), rng.uniform(-0.05, 0.08))
    return Arm(wrist, _vector(1, 0, -0.5), rng.uniform(-60, 20), (rng.uniform(10, 50), 0), "flat")


def waving(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.3, 0.55), rng.uniform(0.15, 0.45), rng.uniform(0.05, 0.3))
    twist = rng.uniform(-110, -50)
    return Arm(
        wrist, _vector(0.6, -1, -0.2), twist, (rng.normal(0, 15), rng.normal(0, 20)), "spread"
    )


def raised(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.05, 0.4), rng.uniform(0.42, 0.6), rng.uniform(-0.05, 0.3))
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
    wrist = _vector(rng.uniform(0.05, 0.28), rng.uniform(-0.25, -0.02), rng.uniform(0.25, 0.4))
    return Arm(wrist, _vector(0.4, -1, -0.5), rng.uniform(-90, 90), (rng.normal(0, 15), 0), "grip")


def at_face(rng: Rng) -> Arm:
    place = rng.integers(4)
    if place == 0:  # chin or mouth
        wrist = _vector(rng.uniform(0.0, 0.07), rng.uniform(0.06, 0.13), rng.uniform(0.19, 0.25))
    elif place == 1:  # ear, as with a telephone
        wrist = _vector(rng.uniform(0.13, 0.18), rng.uniform(0.13, 0.2), rng.uniform(0.08, 0.14))
    elif place == 2:  # eyes or brow
        wrist = _vector(rng.uniform(0.06, 0.14), rng.uniform(0.2, 0.28), rng.uniform(0.18, 0.24))
    else:  # back of the head
        wrist = _vector(rng.uniform(0.12, 0.18), rng.uniform(0.26, 0.34), rng.uniform(-0.04, 0.08))
    pole = _vector(rng.uniform(0.3, 1.2), -0.9, 0.3)
    return Arm(wrist, pole, rng.normal(-10, 35), (rng.normal(10, 20), rng.normal(0, 12)))


def on_chest(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(-0.02, 0.16), rng.uniform(-0.12, 0.03), rng.uniform(0.17, 0.23))
    return Arm(wrist, _vector(1, -0.6, 0), rng.normal(0, 25), (rng.normal(5, 15), 0))


def before_belly(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.03, 0.12), rng.uniform(-0.32, -0.18), rng.uniform(0.18, 0.28))
    return Arm(wrist, _vector(1, -0.5, -0.4), rng.normal(0, 30), (rng.normal(5, 15), 0))


def behind_back(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.04, 0.14), rng.uniform(-0.35, -0.25), rng.uniform(-0.22, -0.17))
    return Arm(wrist, _vector(1, 0, -0.5), rng.normal(60, 20), (rng.normal(0, 10), 0))


def sideways(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(0.5, 0.66), rng.uniform(-0.15, 0.3), rng.uniform(-0.15, 0.25))
    return Arm(
        wrist, _vector(0, -1, -0.5), rng.normal(-10, 40), (rng.normal(0, 20), rng.normal(0, 10))
    )


def anywhere(rng: Rng) -> Arm:
    wrist = _vector(rng.uniform(-0.1, 0.6), rng.uniform(-0.4, 0.5), rng.uniform(-0.1, 0.45))
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
    hanging: 5,
    on_hip: 1.2,
    waving: 1.5,
    raised: 1.2,
    reaching: 2.5,
    pointing: 1,
    carrying: 1.8,
    at_face: 2.2,
    on_chest: 1.2,
    before_belly: 1,
    behind_back: 0.6,
    sideways: 1.5,
    anywhere: 3,
}
_DOUBLE: Final = {crossed: 1.0, clasped: 1.0, telephone: 0.8}


def draw_arms(rng: Rng, both: float = 0.15) -> tuple[Arm, Arm]:
    """What the left and the right arm do; with probability `both` they do it together."""
    if rng.random() < both:
        return pick(rng, _DOUBLE)(rng)
    left, right = pick(rng, _SINGLE), pick(rng, _SINGLE)
    if rng.random() < 0.3:
        right = left
    return left(rng), right(rng)


def place_arm(skeleton: Skeleton, rotations: np.ndarray, side: str, arm: Arm) -> None:
    """Write the rotations of one arm, collar to wrist, into `rotations` (22, 3, 3)."""
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
    rotations[elbow] = lower @ about(axis, 0.55 * twist)
    down, inward = arm.bend
    bend: Rotation = turn("z", -sign * down) @ turn("y", sign * inward)
    rotations[wrist] = about(axis, 0.45 * twist) @ bend

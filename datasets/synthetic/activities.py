"""What bodies do: standing, walking, sitting, squatting, kneeling, lying, dancing and more."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from datasets.synthetic.arms import Arm
from datasets.synthetic.gait import Rotations, leg, still, swinging_arms, trunk, walk_cycle
from datasets.synthetic.limbs import JOINT, clamp, turn
from human_models.joints import SIDES

Rng = np.random.Generator


class Draft(NamedTuple):
    """A body without noise; without arms, they do what they like."""

    rotations: Rotations
    arms: tuple[Arm, Arm] | None
    seated: bool = False
    lift_m: float = 0.0
    """Of the lowest point over the floor."""


def stand(rng: Rng) -> Draft:
    """Upright, the legs together or apart."""
    rotations = still()
    rotations[0] = turn("x", rng.normal(2, 4)) @ turn("z", rng.normal(0, 3))
    width = rng.uniform(-1, 14)
    for side in SIDES:
        flex = rng.normal(2, 5)
        leg(
            rotations,
            side,
            flex=flex,
            knee=abs(flex) + rng.exponential(5),
            out=width + rng.normal(0, 2),
            rotate=rng.uniform(-4, 22),
        )
    trunk(rotations, rng.normal(3, 9), rng.normal(0, 6), rng.normal(0, 10))
    return Draft(rotations, None)


def _gait(rng: Rng, run: float) -> Draft:
    phase, stride = rng.random(), rng.uniform(0.5, 1.25)
    arms = swinging_arms(phase, stride, run) if rng.random() < 0.7 else None
    return Draft(walk_cycle(phase, stride, run), arms)


def _walk(rng: Rng) -> Draft:
    return _gait(rng, 0.0)


def _run(rng: Rng) -> Draft:
    return _gait(rng, rng.uniform(0.6, 1))


def sit(rng: Rng) -> Draft:
    """On a seat."""
    rotations = still()
    rotations[0] = turn("x", rng.uniform(-22, 8))
    crossed = rng.random() < 0.2
    for k, side in enumerate(SIDES):
        flex = rng.uniform(72, 95)
        over = crossed and k == 0
        leg(
            rotations,
            side,
            flex=flex + 18 * over,
            knee=rng.uniform(55, 110) - 10 * over,
            out=-14 if over else rng.uniform(0, 20),
            rotate=rng.uniform(-6, 10),
            flat=not over,
        )
    trunk(rotations, rng.uniform(-2, 40), rng.normal(0, 7), rng.normal(0, 12))
    return Draft(rotations, _on_thighs(rng) if rng.random() < 0.3 else None, seated=True)


def _on_thighs(rng: Rng) -> tuple[Arm, Arm]:
    wrist = np.array([rng.uniform(0.1, 0.2), -0.27, rng.uniform(0.2, 0.34)])
    arms = [
        Arm(
            wrist + rng.normal(0, 0.02, 3),
            np.array([1.0, -0.2, -0.6]),
            rng.normal(-60, 20),
            (5, 0),
            "relaxed",
        )
        for _ in SIDES
    ]
    return arms[0], arms[1]


def _sit_on_floor(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.uniform(-30, 5))
    kind = rng.integers(3)
    for side in SIDES:
        if kind == 0:  # tailor's seat
            leg(
                rotations,
                side,
                flex=rng.uniform(70, 88),
                knee=rng.uniform(110, 128),
                out=rng.uniform(26, 40),
                rotate=rng.uniform(28, 42),
                flat=False,
            )
        elif kind == 1:  # legs forward
            leg(
                rotations,
                side,
                flex=rng.uniform(78, 95),
                knee=rng.uniform(0, 40),
                out=rng.uniform(0, 22),
                flat=False,
            )
        else:  # knees up
            leg(
                rotations,
                side,
                flex=rng.uniform(95, 118),
                knee=rng.uniform(80, 120),
                out=rng.uniform(-2, 16),
            )
    trunk(rotations, rng.uniform(0, 45), rng.normal(0, 7), rng.normal(0, 10))
    return Draft(rotations, None)


def _squat(rng: Rng) -> Draft:
    rotations = still()
    depth = rng.uniform(0.25, 1)
    rotations[0] = turn("x", 15 + 35 * depth * rng.uniform(0.5, 1))
    out = rng.uniform(4, 22)
    for side in SIDES:
        leg(
            rotations,
            side,
            flex=40 + 75 * depth + rng.normal(0, 4),
            knee=40 + 88 * depth + rng.normal(0, 5),
            out=out,
            rotate=out,
        )
    trunk(rotations, rng.uniform(0, 30), rng.normal(0, 5), rng.normal(0, 8))
    return Draft(rotations, None)


def _kneel(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.normal(5, 8))
    one = rng.random() < 0.6
    for k, side in enumerate(SIDES):
        if one and k == 0:
            leg(
                rotations,
                side,
                flex=rng.uniform(75, 95),
                knee=rng.uniform(80, 100),
                out=rng.uniform(2, 12),
            )
        else:
            low = rng.uniform(0, 1) * (not one)
            leg(
                rotations,
                side,
                flex=5 + 40 * low,
                knee=90 + 45 * low,
                out=rng.uniform(2, 10),
                flat=False,
            )
            rotations[JOINT[f"{side}_ankle"]] = turn("x", rng.uniform(20, 45))
    trunk(rotations, rng.uniform(0, 30), rng.normal(0, 7), rng.normal(0, 10))
    return Draft(rotations, None)


def _lunge(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.uniform(0, 25))
    deep = rng.uniform(0.3, 1)
    leg(rotations, "left", flex=35 + 55 * deep, knee=30 + 60 * deep, out=rng.uniform(0, 10))
    leg(
        rotations,
        "right",
        flex=-8 - 14 * deep,
        knee=8 + 45 * deep * rng.random(),
        out=rng.uniform(0, 8),
        flat=False,
    )
    rotations[JOINT["right_ankle"]] = turn("x", rng.uniform(-25, 5))
    trunk(rotations, rng.normal(5, 12), rng.normal(0, 8), rng.normal(0, 15))
    return Draft(rotations, None)


def _kick(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.normal(-4, 8)) @ turn("z", rng.normal(0, 6))
    leg(
        rotations,
        "left",
        flex=rng.uniform(-25, 95),
        knee=rng.uniform(0, 100),
        out=rng.uniform(0, 35),
        flat=False,
    )
    rotations[JOINT["left_ankle"]] = turn("x", rng.uniform(-15, 35))
    leg(
        rotations, "right", flex=rng.uniform(-5, 15), knee=rng.uniform(2, 25), out=rng.uniform(0, 4)
    )
    trunk(rotations, rng.normal(4, 10), rng.normal(0, 9), rng.normal(0, 12))
    return Draft(rotations, None)


def _bend(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.uniform(20, 65))
    for side in SIDES:
        lean = math.degrees(math.acos(clamp(rotations[0][1, 1], -1, 1)))
        knee = rng.uniform(0, 35)
        leg(rotations, side, flex=lean + knee * 0.5, knee=knee, out=rng.uniform(2, 10))
    trunk(rotations, rng.uniform(10, 55), rng.normal(0, 8), rng.normal(0, 14))
    return Draft(rotations, None)


def _dance(rng: Rng) -> Draft:
    rotations = still()
    rotations[0] = turn("x", rng.normal(2, 9)) @ turn("z", rng.normal(0, 9))
    for side in SIDES:
        flex = rng.normal(18, 22)
        leg(
            rotations,
            side,
            flex=flex,
            knee=max(flex, 0) * rng.uniform(0.6, 1.6) + rng.exponential(12),
            out=rng.uniform(-3, 28),
            rotate=rng.normal(10, 14),
            flat=rng.random() < 0.6,
        )
    trunk(rotations, rng.normal(3, 14), rng.normal(0, 14), rng.normal(0, 22))
    return Draft(rotations, None)


def _lie(rng: Rng) -> Draft:
    rotations = still()
    for side in SIDES:
        bent = rng.random() < 0.4
        knee = rng.uniform(40, 110) if bent else rng.exponential(8)
        leg(
            rotations,
            side,
            flex=knee * 0.5 + rng.normal(0, 5),
            knee=knee,
            out=rng.uniform(0, 15),
            rotate=rng.uniform(0, 30),
            flat=False,
        )
        rotations[JOINT[f"{side}_ankle"]] = turn("x", rng.uniform(0, 35))
    trunk(rotations, rng.normal(0, 10), rng.normal(0, 8), rng.normal(0, 8))
    rotations[0] = turn("x", -90) if rng.random() < 0.55 else turn("x", 90)
    if rng.random() < 0.35:
        rotations[0] = turn("z", float(rng.choice((-90, 90)))) @ turn("y", rng.normal(0, 15))
    rotations[0] = turn("x", rng.normal(0, 5)) @ rotations[0]
    return Draft(rotations, None)


def _jump(rng: Rng) -> Draft:
    draft = _dance(rng)
    tuck = rng.uniform(0, 70)
    for side in SIDES:
        leg(
            draft.rotations,
            side,
            flex=tuck + rng.normal(0, 12),
            knee=tuck * 1.2 + rng.normal(5, 12),
            out=rng.uniform(0, 25),
            flat=False,
        )
        draft.rotations[JOINT[f"{side}_ankle"]] = turn("x", rng.uniform(10, 45))
    return draft._replace(lift_m=rng.uniform(0.02, 0.4))


ACTIVITIES: Final[dict[Callable[[Rng], Draft], float]] = {
    stand: 6,
    _walk: 4,
    _run: 1.6,
    sit: 3,
    _sit_on_floor: 1,
    _squat: 1.2,
    _kneel: 0.8,
    _lunge: 1,
    _kick: 0.9,
    _bend: 1,
    _dance: 2,
    _lie: 0.9,
    _jump: 0.6,
}
"""And how likely they are, relative to each other."""

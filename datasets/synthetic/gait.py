"""Legs and trunk by angles, and the cycle of walking and running."""

import math

import numpy as np
from jaxtyping import Float

from datasets.synthetic.arms import Arm
from datasets.synthetic.limbs import JOINT, SIGN, clamp, turn

Rotations = Float[np.ndarray, "22 3 3"]
"""Of the body's joints, each relative to its parent."""


def still() -> Rotations:
    return np.tile(np.eye(3), (22, 1, 1))


def leg(
    rotations: Rotations,
    side: str,
    *,
    flex: float,
    knee: float,
    out: float = 4,
    rotate: float = 6,
    flat: bool = True,
) -> None:
    """One leg by degrees: thigh forward, knee bent, thigh sideways, toes outward.

    With `flat` the foot is brought level, as far as the ankle goes.
    """
    sign = SIGN[side]
    hip, shin, ankle = (JOINT[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    rotations[hip] = turn("z", sign * out) @ turn("x", -flex) @ turn("y", sign * rotate)
    rotations[shin] = turn("x", max(knee, 0.0))
    if flat:
        world = rotations[0] @ rotations[hip] @ rotations[shin]
        pitch = math.degrees(math.atan2(world[1, 2], world[1, 1]))
        rotations[ankle] = turn("x", clamp(pitch, -28, 45))


def trunk(rotations: Rotations, bend: float, side: float, twist: float) -> None:
    """Degrees over the whole spine: forward, to the left, turned left."""
    step = turn("y", twist / 3) @ turn("z", -side / 3) @ turn("x", bend / 3)
    for name in ("spine1", "spine2", "spine3"):
        rotations[JOINT[name]] = step


def walk_cycle(phase: float, stride: float, run: float) -> Rotations:
    """Legs, trunk and pelvis of a gait.

    Args:
        phase: 0 to 1 over two steps; the left heel strikes at 0.
        stride: 0 (on the spot) to 1.3 (long).
        run: 0 walks, 1 runs.
    """
    rotations = still()
    rotations[0] = turn("y", 7 * stride * math.cos(2 * math.pi * phase)) @ turn("x", 4 + 8 * run)
    for side, shift in (("left", 0.0), ("right", 0.5)):
        angle = 2 * math.pi * (phase + shift)
        flex = stride * ((24 + 16 * run) * math.cos(angle) + 5 + 10 * run)
        swing = clamp(math.sin(angle + math.pi + 0.35), 0, 1)  # knee bends as the foot goes forward
        knee = (
            6 + 8 * run + stride * (52 + 45 * run) * swing**1.5 + 8 * stride * math.cos(angle) ** 2
        )
        leg(rotations, side, flex=flex, knee=knee, out=1.5, rotate=6, flat=False)
        roll = clamp(math.sin(angle + math.pi - 0.5), 0, 1)
        push = stride * (25 + 10 * run) * clamp(math.sin(angle + math.pi + 0.9), 0, 1) * (1 - roll)
        rotations[JOINT[f"{side}_ankle"]] = turn(
            "x", float(push - 0.35 * knee + 0.3 * flex * (flex < 0) + 6)
        )
    trunk(rotations, 4 + 8 * run, 0, float(-10 * stride * math.cos(2 * math.pi * phase)))
    return rotations


def swinging_arms(phase: float, stride: float, run: float) -> tuple[Arm, Arm]:
    """Arms that swing against the legs of `walk_cycle`."""
    arms = []
    for shift in (0.5, 0.0):
        swing = float(math.cos(2 * math.pi * (phase + shift))) * stride
        wrist = np.array(
            [
                0.24 - 0.05 * run,
                -0.42 + 0.32 * run + 0.1 * run * swing,
                0.08 + 0.2 * swing + 0.12 * run,
            ]
        )
        wrist[1] += 0.05 * abs(swing)
        arms.append(
            Arm(wrist, np.array([0.35, 0.0, -1.0]), -10, (0, 0), "relaxed" if run < 0.5 else "fist")
        )
    return arms[0], arms[1]

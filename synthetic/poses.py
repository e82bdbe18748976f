"""Body poses: an activity, arms from `arms`, a turn of the head and some noise.

Activities are standing, walking, sitting, squatting, kneeling, lying, dancing and more. Poses whose
limbs would lie in each other are drawn again. Angles are degrees.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from human_models.joints import BODY_JOINTS, SIDES, mirror_permutation
from synthetic.arms import THIGH, Arm, draw_arms, hanging, place_arm
from synthetic.skeleton import (
    JOINT,
    SIGN,
    Rotation,
    Skeleton,
    axis_angle,
    clamp,
    penetration,
    pick,
    turn,
)

Rng = np.random.Generator
Rotations = Float[np.ndarray, "22 3 3"]
"""Rotations of the body's joints relative to their parents."""
_MIRRORED: Final = mirror_permutation(BODY_JOINTS)
_TRIES: Final = 6
_TOLERATED_M: Final = 0.02


class Draft(NamedTuple):
    """A body without noise."""

    rotations: Rotations
    arms: tuple[Arm, Arm] | None = None
    """None where the activity leaves them free."""
    seated: bool = False
    lift_m: float = 0.0
    """Height of the lowest point above the floor."""


class Pose(NamedTuple):
    """A body at rest in the world: y up, facing z before it is turned about y."""

    root: Rotation
    body: Float32[np.ndarray, "21 3"]
    """Axis-angle, radians."""
    hands: tuple[str | None, str | None]
    """Shapes that the left and the right arm's action asks for."""
    seated: bool
    lift_m: float
    """Height of the lowest point above the floor."""


def still(root: Rotation | None = None) -> Rotations:
    """The rest pose, turned by `root`."""
    rotations = np.tile(np.eye(3), (22, 1, 1))
    if root is not None:
        rotations[0] = root
    return rotations


def leg(
    rotations: Rotations,
    side: str,
    flex: float,
    knee: float,
    out: float = 4,
    rotate: float = 6,
    *,
    foot: float | None = None,
) -> None:
    """One leg: thigh forward, knee bent, thigh sideways, toes outward, foot down.

    Where `foot` is None, the foot is brought level, as far as the ankle goes.
    """
    sign = SIGN[side]
    hip, shin, ankle = (JOINT[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    rotations[hip] = turn("z", sign * out) @ turn("x", -flex) @ turn("y", sign * rotate)
    rotations[shin] = turn("x", max(knee, 0.0))
    if foot is None:
        world = rotations[0] @ rotations[hip] @ rotations[shin]
        foot = clamp(math.degrees(math.atan2(world[1, 2], world[1, 1])), -28, 45)
    rotations[ankle] = turn("x", foot)


def trunk(rotations: Rotations, bend: float, side: float, twist: float) -> None:
    """The whole spine: forward, to the left, turned left."""
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
    rotations = still(
        turn("y", 7 * stride * math.cos(2 * math.pi * phase)) @ turn("x", 2 + 10 * run)
    )
    for side, shift in (("left", 0.0), ("right", 0.5)):
        angle = 2 * math.pi * (phase + shift)
        flex = stride * ((24 + 16 * run) * math.cos(angle) + 5 + 10 * run)
        swing = clamp(math.sin(angle + math.pi + 0.35), 0, 1)  # knee bends as the foot goes forward
        knee = 6 + 8 * run + stride * (52 + 45 * run) * swing**1.5
        knee += 8 * stride * math.cos(angle) ** 2
        roll = clamp(math.sin(angle + math.pi - 0.5), 0, 1)
        push = stride * (25 + 10 * run) * clamp(math.sin(angle + math.pi + 0.9), 0, 1) * (1 - roll)
        foot = float(push - 0.35 * knee + 0.3 * flex * (flex < 0) + 6)
        leg(rotations, side, flex, knee, 1.5, 6, foot=foot)
    trunk(rotations, 2 + 10 * run, 0, float(-10 * stride * math.cos(2 * math.pi * phase)))
    return rotations


def swung_arm(swing: float, run: float) -> Arm:
    """An arm of a gait, forward at 1 and back at -1."""
    height = -0.42 + 0.32 * run + 0.1 * run * swing
    wrist = np.array([0.24 - 0.05 * run, height, 0.08 + 0.2 * swing + 0.12 * run])
    wrist[1] += 0.05 * abs(swing)
    hand = "relaxed" if run < 0.5 else "fist"
    return Arm(wrist, np.array([0.35, 0.0, -1.0]), -10, (0, 0), hand)


# In activities, an array of bounds draws one number after the other, as in: flex, knee, out.


def stand(rng: Rng) -> Draft:
    """Upright, the legs together or apart."""
    rotations = still(turn("x", rng.normal(0, 4)) @ turn("z", rng.normal(0, 3)))
    width = rng.uniform(-1, 14)
    for side in SIDES:
        flex = rng.normal(2, 5)
        knee, out = abs(flex) + rng.exponential(5), width + rng.normal(0, 2)
        leg(rotations, side, flex, knee, out, rng.uniform(-4, 22))
    trunk(rotations, *rng.normal(0, (9, 6, 10)))
    return Draft(rotations)


def _walk(rng: Rng, run: float = 0.0) -> Draft:
    """A step, in most cases with arms that swing against the legs."""
    phase, stride = rng.random(), rng.uniform(0.5, 1.25)
    left, right = (math.cos(2 * math.pi * (phase + shift)) * stride for shift in (0.5, 0.0))
    arms = (swung_arm(left, run), swung_arm(right, run)) if rng.random() < 0.7 else None
    return Draft(walk_cycle(phase, stride, run), arms)


def _run(rng: Rng) -> Draft:
    return _walk(rng, rng.uniform(0.6, 1))


def sit(rng: Rng) -> Draft:
    """On a seat, by chance with crossed legs."""
    rotations = still(turn("x", rng.uniform(-22, 8)))
    crossed = rng.random() < 0.2
    for side in SIDES:
        over = crossed and side == "left"
        flex, knee = rng.uniform((72, 55), (95, 110))
        out = -14 if over else rng.uniform(0, 20)
        rotate, foot = rng.uniform(-6, 10), 0 if over else None
        leg(rotations, side, flex + 18 * over, knee - 10 * over, out, rotate, foot=foot)
    trunk(rotations, rng.uniform(-2, 40), *rng.normal(0, (7, 12)))
    return Draft(rotations, _on_thighs(rng) if rng.random() < 0.3 else None, seated=True)


def _on_thighs(rng: Rng) -> tuple[Arm, Arm]:
    wrist = np.array([rng.uniform(0.1, 0.2), -0.27, rng.uniform(0.2, 0.34)])
    left, right = (
        THIGH._replace(wrist=wrist + rng.normal(0, 0.02, 3), twist=rng.normal(-60, 20))
        for _ in SIDES
    )
    return left, right


def _sit_on_floor(rng: Rng) -> Draft:
    rotations = still(turn("x", rng.uniform(-30, 5)))
    kind = rng.integers(3)
    for side in SIDES:
        if kind == 0:  # cross-legged
            leg(rotations, side, *rng.uniform((70, 110, 26, 28), (88, 128, 40, 42)), foot=0)
        elif kind == 1:  # legs forward
            leg(rotations, side, *rng.uniform((78, 0, 0), (95, 40, 22)), foot=0)
        else:  # knees up
            leg(rotations, side, *rng.uniform((95, 80, -2), (118, 120, 16)))
    trunk(rotations, rng.uniform(0, 45), *rng.normal(0, (7, 10)))
    return Draft(rotations)


def _squat(rng: Rng) -> Draft:
    rotations = still()
    depth = rng.uniform(0.25, 1)
    rotations[0] = turn("x", 15 + 35 * depth * rng.uniform(0.5, 1))
    out = rng.uniform(4, 22)
    for side in SIDES:
        flex, knee = 40 + 75 * depth + rng.normal(0, 4), 40 + 88 * depth + rng.normal(0, 5)
        leg(rotations, side, flex, knee, out, out)
    trunk(rotations, rng.uniform(0, 30), *rng.normal(0, (5, 8)))
    return Draft(rotations)


def _kneel(rng: Rng) -> Draft:
    """On one knee or both."""
    rotations = still(turn("x", rng.normal(5, 8)))
    one = rng.random() < 0.6
    for side in SIDES:
        if one and side == "left":
            leg(rotations, side, *rng.uniform((75, 80, 2), (95, 100, 12)))
        else:
            low = rng.uniform(0, 1) * (not one)
            out, foot = rng.uniform((2, 20), (10, 45))
            leg(rotations, side, 5 + 40 * low, 90 + 45 * low, out, foot=foot)
    trunk(rotations, rng.uniform(0, 30), *rng.normal(0, (7, 10)))
    return Draft(rotations)


def _lunge(rng: Rng) -> Draft:
    rotations = still(turn("x", rng.uniform(0, 25)))
    deep = rng.uniform(0.3, 1)
    leg(rotations, "left", 35 + 55 * deep, 30 + 60 * deep, rng.uniform(0, 10))
    knee = 8 + 45 * deep * rng.random()
    out, foot = rng.uniform((0, -25), (8, 5))
    leg(rotations, "right", -8 - 14 * deep, knee, out, foot=foot)
    trunk(rotations, *rng.normal((5, 0, 0), (12, 8, 15)))
    return Draft(rotations)


def _kick(rng: Rng) -> Draft:
    rotations = still(turn("x", rng.normal(-4, 8)) @ turn("z", rng.normal(0, 6)))
    flex, knee, out, foot = rng.uniform((-25, 0, 0, -15), (95, 100, 35, 35))
    leg(rotations, "left", flex, knee, out, foot=foot)
    leg(rotations, "right", *rng.uniform((-5, 2, 0), (15, 25, 4)))
    trunk(rotations, *rng.normal((4, 0, 0), (10, 9, 12)))
    return Draft(rotations)


def _bend(rng: Rng) -> Draft:
    rotations = still(turn("x", rng.uniform(20, 65)))
    for side in SIDES:
        lean = math.degrees(math.acos(clamp(rotations[0][1, 1], -1, 1)))
        knee = rng.uniform(0, 35)
        leg(rotations, side, lean + knee * 0.5, knee, rng.uniform(2, 10))
    trunk(rotations, rng.uniform(10, 55), *rng.normal(0, (8, 14)))
    return Draft(rotations)


def _dance(rng: Rng) -> Draft:
    rotations = still(turn("x", rng.normal(2, 9)) @ turn("z", rng.normal(0, 9)))
    for side in SIDES:
        flex = rng.normal(18, 22)
        knee = max(flex, 0) * rng.uniform(0.6, 1.6) + rng.exponential(12)
        out, rotate = rng.uniform(-3, 28), rng.normal(10, 14)
        leg(rotations, side, flex, knee, out, rotate, foot=None if rng.random() < 0.6 else 0)
    trunk(rotations, *rng.normal((3, 0, 0), (14, 14, 22)))
    return Draft(rotations)


def _lie(rng: Rng) -> Draft:
    """On the back, the front or a side."""
    rotations = still()
    for side in SIDES:
        bent = rng.random() < 0.4
        knee = rng.uniform(40, 110) if bent else rng.exponential(8)
        flex = knee * 0.5 + rng.normal(0, 5)
        out, rotate, foot = rng.uniform(0, (15, 30, 35))
        leg(rotations, side, flex, knee, out, rotate, foot=foot)
    trunk(rotations, *rng.normal(0, (10, 8, 8)))
    rotations[0] = turn("x", -90) if rng.random() < 0.55 else turn("x", 90)
    if rng.random() < 0.35:
        rotations[0] = turn("z", float(rng.choice((-90, 90)))) @ turn("y", rng.normal(0, 15))
    rotations[0] = turn("x", rng.normal(0, 5)) @ rotations[0]
    return Draft(rotations)


def _jump(rng: Rng) -> Draft:
    draft = _dance(rng)
    tuck = rng.uniform(0, 70)
    for side in SIDES:
        flex, knee = tuck + rng.normal(0, 12), tuck * 1.2 + rng.normal(5, 12)
        out, foot = rng.uniform((0, 10), (25, 45))
        leg(draft.rotations, side, flex, knee, out, foot=foot)
    return draft._replace(lift_m=rng.uniform(0.02, 0.4))


ACTIVITIES: Final[dict[Callable[[Rng], Draft], float]] = {
    stand: 6, _walk: 4, _run: 1.6, sit: 3, _sit_on_floor: 1, _squat: 1.2, _kneel: 0.8,
    _lunge: 1, _kick: 0.9, _bend: 1, _dance: 2, _lie: 0.9, _jump: 0.6,
}  # fmt: skip
"""Kinds of poses, with their relative probabilities."""

# Standard deviations of the noise in degrees about x, y, z; joints that are not listed: 3.
_NOISE_DEG: Final = {
    "collar": (2, 4, 4), "shoulder": (7, 7, 7), "elbow": (2, 7, 2), "wrist": (7, 5, 8),
    "hip": (4, 4, 3), "knee": (4, 2, 1), "ankle": (6, 5, 5), "foot": (7, 2, 2),
    "neck": (4, 4, 3), "head": (4, 4, 3),
}  # fmt: skip
_SPREADS: Final = np.array(
    [_NOISE_DEG.get(name.split("_")[-1], (3, 3, 3)) for name in JOINT], np.float64
)


class Poser:
    """Draws body poses for the mean body's skeleton."""

    def __init__(self, rest_joints: Float32[np.ndarray, "55 3"]) -> None:
        self.skeleton = Skeleton(rest_joints)

    def draw(self, rng: Rng) -> Pose:
        """A pose in which no limb is deep in another, or the least bad of some."""
        best: tuple[float, Pose] | None = None
        for _ in range(_TRIES):
            draft, arms = self._draft(rng)
            depth = penetration(*self.skeleton.world(draft.rotations))
            if best is None or depth < best[0]:
                body = np.array([axis_angle(one) for one in draft.rotations[1:]], np.float32)
                hands = (arms[0].hand, arms[1].hand)
                best = depth, Pose(draft.rotations[0], body, hands, draft.seated, draft.lift_m)
            if depth < _TOLERATED_M:
                break
        assert best is not None
        return best[1]

    def _draft(self, rng: Rng) -> tuple[Draft, tuple[Arm, Arm]]:
        draft = pick(rng, ACTIVITIES)(rng)
        rotations, arms = draft.rotations, draft.arms
        if arms is None:
            arms = draw_arms(rng) if rng.random() < 0.9 else (hanging(rng), hanging(rng))
        for side, arm in zip(SIDES, arms, strict=True):
            place_arm(self.skeleton, rotations, side, arm)
        yaw, pitch, roll = rng.normal(0, (24, 13, 8))
        half = turn("y", yaw / 2) @ turn("x", pitch / 2) @ turn("z", roll / 2)
        rotations[JOINT["neck"]] = rotations[JOINT["head"]] = half
        noise = np.deg2rad(rng.normal(0, _SPREADS) * rng.uniform(0, 1.3))
        if rng.random() < 0.5:
            rotations, arms = mirrored(rotations), arms[::-1]
        return draft._replace(rotations=add_noise(rotations, noise)), arms


def add_noise(rotations: Rotations, noise: Float[np.ndarray, "22 3"]) -> Rotations:
    """Each joint but the root turned by a small axis-angle vector; knees do not overstretch."""
    x, y, z = noise.T
    o = np.zeros_like(x)
    small = np.stack([o, -z, y, z, o, -x, -y, x, o], axis=1).reshape(-1, 3, 3)
    small = np.eye(3) + small + 0.5 * small @ small
    for side in SIDES:
        small[JOINT[f"{side}_knee"]] = turn("x", abs(float(np.degrees(x[JOINT[f"{side}_knee"]]))))
    small[0] = np.eye(3)
    return rotations @ small


def mirrored(rotations: Rotations) -> Rotations:
    """Left and right exchanged."""
    flip = np.array([-1.0, 1, 1])
    return rotations[list(_MIRRORED)] * flip[:, None] * flip

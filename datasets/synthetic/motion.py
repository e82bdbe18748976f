"""Motion: people who walk through the picture, wave, sit down, and go from pose to pose.

A mover tells for every second where a person is and how; it is smooth in time.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from datasets.synthetic.activities import sit, stand
from datasets.synthetic.arms import Arm, hanging, place_arm, waving
from datasets.synthetic.gait import Rotations, swinging_arms, walk_cycle
from datasets.synthetic.limbs import clamp
from datasets.synthetic.poses import Poser
from human_models.joints import SIDES

Rng = np.random.Generator
_CYCLE_M: Final = 1.36
"""Way of two steps at stride 1: four times the sine of the thigh's swing times a leg's length."""
_WAVE_HZ: Final = 1.6


class Moment(NamedTuple):
    """A person at one time."""

    rotations: Rotations
    right_m: float
    away_m: float
    yaw_deg: float


class Mover(NamedTuple):
    """A person's motion over a clip."""

    at: Callable[[float], Moment]
    """Of seconds."""
    sits_s: float | None = None
    """When the person sits, if ever: then there is a seat."""


def blend(one: Rotations, other: Rotations, share: float) -> Rotations:
    """On the shortest way from `one` (0) to `other` (1)."""
    between = np.empty_like(one)
    for joint in range(len(one)):
        step = cv2.Rodrigues(one[joint].T @ other[joint])[0]
        between[joint] = one[joint] @ cv2.Rodrigues(share * step)[0]
    return between


def ease(share: float) -> float:
    """0 to 1 with a soft start and end."""
    share = clamp(share, 0.0, 1.0)
    return share * share * (3 - 2 * share)


def crossing(
    rng: Rng, poser: Poser, middle: tuple[float, float], way_m: float, seconds: float
) -> Mover:
    """Walks through `middle` (right, away) about halfway through; by chance one arm waves."""
    leftward = rng.choice((-1.0, 1.0))
    angle = rng.normal(0, 0.3)
    step = np.array([leftward * math.cos(angle), math.sin(angle)])
    speed = clamp(way_m / seconds, 0.6, 1.7) * rng.uniform(0.85, 1.15)
    stride, phase = clamp(speed / 1.35, 0.55, 1.2), rng.random()
    half = seconds / 2 + rng.normal(0, 0.08) * seconds
    yaw = math.degrees(math.atan2(step[0], -step[1]))
    wave = waving(rng) if rng.random() < 0.35 else None
    side = int(rng.integers(2))

    def at(time: float) -> Moment:
        way = speed * (time - half)
        cycle = (phase + way / (_CYCLE_M * stride)) % 1
        rotations = walk_cycle(cycle, stride, 0.0)
        arms = list(swinging_arms(cycle, stride, 0.0))
        if wave is not None:
            arms[side] = _waved(wave, time)
        _place(poser, rotations, (arms[0], arms[1]))
        place = np.array(middle) + way * step
        return Moment(rotations, float(place[0]), float(place[1]), yaw)

    return Mover(at)


def waver(rng: Rng, poser: Poser, place: tuple[float, float]) -> Mover:
    """Stands and waves."""
    still, wave, other = stand(rng).rotations, waving(rng), hanging(rng)
    side, yaw, start = int(rng.integers(2)), rng.normal(0, 35), rng.uniform(0, 0.8)

    def at(time: float) -> Moment:
        down, up = still.copy(), _swayed(still, time)
        _place(poser, down, (other, other))
        arms = (_waved(wave, time), other) if side == 0 else (other, _waved(wave, time))
        _place(poser, up, arms)
        return Moment(blend(down, up, ease((time - start) / 0.7)), *place, yaw)

    return Mover(at)


def sitter(rng: Rng, poser: Poser, place: tuple[float, float], seconds: float) -> Mover:
    """Stands, sits down, and stays."""
    upright, seated = stand(rng).rotations, sit(rng).rotations
    _place(poser, upright, (hanging(rng), hanging(rng)))
    wrist = np.array([0.15, -0.27, 0.28])
    on_thigh = Arm(wrist, np.array([1.0, -0.2, -0.6]), -60, (5, 0), "relaxed")
    _place(poser, seated, (on_thigh, on_thigh))
    yaw, start, last = rng.normal(0, 45), rng.uniform(0.15, 0.4) * seconds, rng.uniform(1.0, 1.6)
    back = np.array([-math.sin(math.radians(yaw)), math.cos(math.radians(yaw))])

    def at(time: float) -> Moment:
        share = ease((time - start) / last)
        where = np.array(place) + 0.36 * share * back  # the feet stay
        rotations = _swayed(blend(upright, seated, share), time)
        return Moment(rotations, float(where[0]), float(where[1]), yaw)

    return Mover(at, start + last)


def gesturer(rng: Rng, poser: Poser, place: tuple[float, float], seconds: float) -> Mover:
    """Goes from pose to pose on the spot."""
    poses: list[Rotations] = []
    while len(poses) < int(seconds / 0.9) + 2:
        pose = poser.draw(rng)
        if pose.root[1, 1] > 0.8 and not pose.seated and not pose.lift_m:
            turned = [cv2.Rodrigues(row.astype(np.float64))[0] for row in pose.body]
            poses.append(np.array([pose.root, *turned]))
    yaw, pace = rng.normal(0, 50), rng.uniform(0.9, 1.6)

    def at(time: float) -> Moment:
        number = min(int(time / pace), len(poses) - 2)
        share = ease(time / pace - number)
        return Moment(blend(poses[number], poses[number + 1], share), *place, yaw)

    return Mover(at)


def _waved(arm: Arm, time: float) -> Arm:
    swing = math.sin(2 * math.pi * _WAVE_HZ * time)
    wrist = arm.wrist + np.array([0.09, 0.0, 0.0]) * swing
    return arm._replace(wrist=wrist, bend=(arm.bend[0], arm.bend[1] + 14 * swing))


def _swayed(rotations: Rotations, time: float) -> Rotations:
    """Nobody stands like a statue: the spine and head sway a little."""
    swayed = rotations.copy()
    for joint, speed, axis in ((3, 0.7, 2), (6, 0.5, 1), (12, 0.4, 1), (15, 0.6, 0)):
        turn: Float[np.ndarray, 3] = np.zeros(3)
        turn[axis] = 0.035 * math.sin(speed * 2 * math.pi * time + joint)
        swayed[joint] = swayed[joint] @ cv2.Rodrigues(turn)[0]
    return swayed


def _place(poser: Poser, rotations: Rotations, arms: tuple[Arm, Arm]) -> None:
    for side, arm in zip(SIDES, arms, strict=True):
        place_arm(poser.skeleton, rotations, side, arm)

"""Clips of two to four people who move and cross each other, with ground truth for every frame.

People walk through the picture, wave, sit down, and go from pose to pose. A `Mover` gives the
place and pose of a person at any second, smoothly in time.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.ndimage import gaussian_filter1d

from datasets.synthetic.appearance import Look
from datasets.synthetic.arms import Arm, draw_hand, hanging, place_arm, waving
from datasets.synthetic.backgrounds import Background, add_shadows, draw_background, overlaid
from datasets.synthetic.figures import BodyParameters, Mesh, person_mesh
from datasets.synthetic.ground_truth import Row, describe
from datasets.synthetic.pictures import Studio, is_clear
from datasets.synthetic.poses import Poser, Rotations, sit, stand, swinging_arms, walk_cycle
from datasets.synthetic.rendering import (
    add_sensor_noise,
    develop,
    draw_lights,
    draw_response,
    render,
)
from datasets.synthetic.skeleton import axis_angle, clamp, turn
from datasets.synthetic.stage import (
    FILM_WIDTH_MM,
    Stage,
    draw_stage,
    full_camera,
    place,
    seat_under,
)
from human_models.joints import SIDES

FPS: Final = 30
_CYCLE_M: Final = 1.36
"""Way of two steps at stride 1: four times the sine of the thigh's swing times a leg's length."""
_WAVE_HZ: Final = 1.6
_TOGETHER: Final = 8
"""Frames whose people are posed in one batch."""
_SMOOTHING_FRAMES: Final = 3.0
_MOST_HIDDEN, _MOST_CUT = 0.95, 0.9
Rng = np.random.Generator


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


class Actor(NamedTuple):
    """A person of a clip: what does not change, and what changes between two ends."""

    mover: Mover
    look: Look
    betas: Float32[np.ndarray, "10"]
    expressions: Float32[np.ndarray, "2 10"]
    hands: dict[str, tuple[Float32[np.ndarray, "15 3"], Float32[np.ndarray, "15 3"]]]
    pace_hz: float
    """Of expressions and hands."""


class Frame(NamedTuple):
    """A picture and the rows of those who are seen in it."""

    image: UInt8[np.ndarray, "H W 3"]
    rows: list[Row]


def people_of_clip(rng: Rng) -> int:
    """How many; a clip's generator is asked for this first."""
    return int(rng.integers(2, 5))


def draw_clip(
    studio: Studio, rng: Rng, shape: tuple[int, int], frame_count: int
) -> Iterator[Frame]:
    """The frames of a clip, one after the other; `shape` is (height, width)."""
    count, seconds = people_of_clip(rng), frame_count / FPS
    focal = rng.uniform(26, 45)
    away = rng.uniform(3.6, 6.0) * focal / 30
    stage = draw_stage(rng, away, focal)
    actors = [_actor(studio, rng, stage, k, away, seconds) for k in range(count)]
    lights, camera = draw_lights(rng, stage.up), full_camera(focal, shape)
    seats = _seats(studio, rng, stage, actors)
    half, half_shape = camera.scaled(0.5), (shape[0] // 2, shape[1] // 2)
    bare = draw_background(rng, stage, half, half_shape, away + 3, studio.photographs)
    response, noise = draw_response(rng), 255 * rng.uniform(0.003, 0.012)
    soles = _soles(studio, stage, actors, frame_count)
    for first in range(0, frame_count, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, frame_count))
        given = [_parameters(actor, stage, number / FPS) for number in numbers for actor in actors]
        figures = studio.figures.pose(given)
        for number in numbers:
            own, figures = figures[:count], figures[count:]
            theirs, given = given[:count], given[count:]
            moves = [
                place(stage, figure, *actor.mover.at(number / FPS)[1:3], lowest_m=float(lowest))
                for figure, actor, lowest in zip(own, actors, soles[number], strict=True)
            ]
            meshes = [
                person_mesh(figure, actor.look, move)
                for figure, actor, move in zip(own, actors, moves, strict=True)
            ]
            meshes += seats
            picture = render(meshes, lights, camera, shape)
            background = Background(bare.image.copy(), bare.floor)
            add_shadows(background, meshes, lights, stage, half)
            taken = develop(overlaid(background.image, picture), response)
            rows = []
            for me, (figure, body, move) in enumerate(zip(own, theirs, moves, strict=True)):
                row = describe(figure, body, move, picture, me, camera, studio.parts)
                if is_clear(row, _MOST_HIDDEN, _MOST_CUT):
                    rows.append(row | {"meta.frame_index": number, "meta.person": me})
            yield Frame(add_sensor_noise(rng, taken, noise), rows)


def _actor(
    studio: Studio, rng: Rng, stage: Stage, number: int, away: float, seconds: float
) -> Actor:
    """The first two cross each other; the others do anything, each at a depth of its own."""
    depth = away + (0.75 * number - 0.5) + rng.uniform(-0.2, 0.2)
    width = depth * FILM_WIDTH_MM / stage.focal_mm
    middle = (width * rng.uniform(-0.12, 0.12), depth)
    aside = (width * rng.uniform(-0.32, 0.32), depth)
    kind = int(rng.integers(4)) if number >= 2 else 0
    if kind == 0:
        mover = crossing(rng, studio.poser, middle, 0.8 * width, seconds)
    elif kind == 1:
        mover = waver(rng, studio.poser, aside)
    elif kind == 2:
        mover = sitter(rng, studio.poser, aside, seconds)
    else:
        mover = gesturer(rng, studio.poser, aside, seconds)
    hands = {side: (draw_hand(rng, side), draw_hand(rng, side)) for side in SIDES}
    return Actor(
        mover,
        studio.stylist.draw(rng, fine=True),
        np.clip(rng.standard_normal(10), -2.5, 2.5).astype(np.float32),
        (rng.standard_normal((2, 10)) * 0.8).astype(np.float32),
        hands,
        rng.uniform(0.2, 0.5),
    )


def _parameters(actor: Actor, stage: Stage, time: float) -> BodyParameters:
    moment = actor.mover.at(time)
    turned = stage.from_world @ turn("y", moment.yaw_deg) @ moment.rotations[0]
    share = np.float32(0.5 - 0.5 * math.cos(2 * math.pi * actor.pace_hz * time))
    talk = max(0.0, math.sin(5 * time) * math.sin(17 * time))
    left, right = (
        actor.hands[side][0] + share * (actor.hands[side][1] - actor.hands[side][0])
        for side in SIDES
    )
    return BodyParameters(
        axis_angle(turned).astype(np.float32),
        np.array([axis_angle(rotation) for rotation in moment.rotations[1:]], np.float32),
        left,
        right,
        np.array([0.02 + 0.15 * talk, 0, 0], np.float32),
        actor.betas,
        actor.expressions[0] + share * (actor.expressions[1] - actor.expressions[0]),
    )


def _soles(
    studio: Studio, stage: Stage, actors: list[Actor], frame_count: int
) -> Float[np.ndarray, "T A"]:
    """Each actor's lowest point along the stage's up in every frame, metres, smooth in time.

    Feet take turns at being lowest; unsmoothed, every step would jolt the whole body.
    """
    lowest = np.empty((frame_count, len(actors)))
    for column, actor in enumerate(actors):
        given = [_parameters(actor, stage, number / FPS) for number in range(frame_count)]
        lowest[:, column] = (studio.figures.joints(given) @ stage.up).min(axis=1)
        skin = (studio.figures.pose(given[:1])[0].points @ stage.up).min()
        lowest[:, column] += skin - lowest[0, column]
    return gaussian_filter1d(lowest, _SMOOTHING_FRAMES, axis=0, mode="nearest")


def _seats(studio: Studio, rng: Rng, stage: Stage, actors: list[Actor]) -> list[Mesh]:
    """For those who sit down, where they will."""
    seats = []
    for actor in actors:
        when = actor.mover.sits_s
        if when is not None:
            figure = studio.figures.pose([_parameters(actor, stage, when)])[0]
            move = place(stage, figure, *actor.mover.at(when)[1:3])
            seats += seat_under(rng, stage, figure.joints[0] + move)
    return seats


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
        _place_arms(poser, rotations, (arms[0], arms[1]))
        where = np.array(middle) + way * step
        return Moment(rotations, float(where[0]), float(where[1]), yaw)

    return Mover(at)


def waver(rng: Rng, poser: Poser, where: tuple[float, float]) -> Mover:
    """Stands and waves."""
    still, wave, other = stand(rng).rotations, waving(rng), hanging(rng)
    side, yaw, start = int(rng.integers(2)), rng.normal(0, 35), rng.uniform(0, 0.8)

    def at(time: float) -> Moment:
        down, up = still.copy(), _swayed(still, time)
        _place_arms(poser, down, (other, other))
        arms = (_waved(wave, time), other)
        _place_arms(poser, up, arms if side == 0 else arms[::-1])
        return Moment(blend(down, up, ease((time - start) / 0.7)), *where, yaw)

    return Mover(at)


def sitter(rng: Rng, poser: Poser, where: tuple[float, float], seconds: float) -> Mover:
    """Stands, sits down, and stays."""
    upright, seated = stand(rng).rotations, sit(rng).rotations
    _place_arms(poser, upright, (hanging(rng), hanging(rng)))
    wrist = np.array([0.15, -0.27, 0.28])
    on_thigh = Arm(wrist, np.array([1.0, -0.2, -0.6]), -60, (5, 0), "relaxed")
    _place_arms(poser, seated, (on_thigh, on_thigh))
    yaw, start, last = rng.normal(0, 45), rng.uniform(0.15, 0.4) * seconds, rng.uniform(1.0, 1.6)
    back = np.array([-math.sin(math.radians(yaw)), math.cos(math.radians(yaw))])

    def at(time: float) -> Moment:
        share = ease((time - start) / last)
        moved = np.array(where) + 0.36 * share * back  # the feet stay
        rotations = _swayed(blend(upright, seated, share), time)
        return Moment(rotations, float(moved[0]), float(moved[1]), yaw)

    return Mover(at, start + last)


def gesturer(rng: Rng, poser: Poser, where: tuple[float, float], seconds: float) -> Mover:
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
        return Moment(blend(poses[number], poses[number + 1], share), *where, yaw)

    return Mover(at)


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


def _waved(arm: Arm, time: float) -> Arm:
    swing = math.sin(2 * math.pi * _WAVE_HZ * time)
    wrist = arm.wrist + np.array([0.09, 0.0, 0.0]) * swing
    return arm._replace(wrist=wrist, bend=(arm.bend[0], arm.bend[1] + 14 * swing))


def _swayed(rotations: Rotations, time: float) -> Rotations:
    """Nobody stands like a statue: the spine and head sway a little."""
    swayed = rotations.copy()
    for joint, speed, axis in ((3, 0.7, 2), (6, 0.5, 1), (12, 0.4, 1), (15, 0.6, 0)):
        small: Float[np.ndarray, 3] = np.zeros(3)
        small[axis] = 0.035 * math.sin(speed * 2 * math.pi * time + joint)
        swayed[joint] = swayed[joint] @ cv2.Rodrigues(small)[0]
    return swayed


def _place_arms(poser: Poser, rotations: Rotations, arms: tuple[Arm, Arm]) -> None:
    for side, arm in zip(SIDES, arms, strict=True):
        place_arm(poser.skeleton, rotations, side, arm)

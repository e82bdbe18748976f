"""Clips of two to four people who move and cross each other, with ground truth for every frame.

People walk through the picture, wave, gesture, sit down and get up, and climb steps. `motion`
makes their motion, in which feet do not slide.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from human_models.joints import MODEL_JOINTS, SIDES
from synthetic.appearance import Look
from synthetic.arms import SHAPES, THIGH, draw_arms, waving
from synthetic.backgrounds import compose, draw_background
from synthetic.figures import BodyParameters, Figure, PosedPerson, person_mesh
from synthetic.ground_truth import Row, describe
from synthetic.motion import FPS, Block, Motion, Physique, Script
from synthetic.pictures import Studio, is_clear
from synthetic.rendering import (
    FILM_WIDTH_MM,
    Picture,
    Stage,
    add_sensor_noise,
    develop,
    draw_lights,
    draw_prop,
    draw_response,
    draw_stage,
    full_camera,
    render,
)
from synthetic.skeleton import Skeleton, axis_angle, clamp, turn

_FRAMES_PER_BATCH: Final = 8
"""Frames whose people are posed together."""
_MOST_HIDDEN, _MOST_CUT = 0.95, 0.9
"""Shares of a person that may be hidden, and outside the picture, in an annotated frame."""
Rng = np.random.Generator


class Actor(NamedTuple):
    """A person of a clip."""

    look: Look
    betas: Float32[np.ndarray, "10"]
    expressions: Float32[np.ndarray, "2 10"]
    """Expression parameters of the neutral face and of the smile."""
    motion: Motion

    def at(self, stage: Stage, frame: int) -> BodyParameters:
        """Parameters of SMPL-X in a frame, in the camera frame."""
        rotations, smile = self.motion.rotations[frame], self.motion.smile[frame]
        root = axis_angle(stage.from_world @ rotations[0])
        body = np.array([axis_angle(rotation) for rotation in rotations[1:]], np.float32)
        left, right = (self.motion.hands[side][frame].astype(np.float32) for side in SIDES)
        jaw = np.array([self.motion.jaw_rad[frame], 0, 0], np.float32)
        neutral, smiling = self.expressions
        expression = (neutral + smile * (smiling - neutral)).astype(np.float32)
        return BodyParameters(
            root.astype(np.float32), body, left, right, jaw, self.betas, expression
        )

    def placed(
        self, stage: Stage, frame: int, parameters: BodyParameters, figure: Figure
    ) -> PosedPerson:
        """The person in a frame, with the frame's parameters and the figure that they pose."""
        pelvis = stage.to_camera(self.motion.pelvis[frame])
        transl = (pelvis - figure.joints[0]).astype(np.float32)
        return PosedPerson(parameters, figure, transl, person_mesh(figure, self.look, transl))


class Frame(NamedTuple):
    """A picture (RGB) and the annotation rows of the people who are visible in it."""

    image: UInt8[np.ndarray, "H W 3"]
    rows: list[Row]


def people_of_clip(rng: Rng) -> int:
    """Number of people of a clip, which is the first number drawn from the clip's generator."""
    return int(rng.integers(2, 5))


def draw_clip(
    studio: Studio, rng: Rng, shape: tuple[int, int], frame_count: int
) -> Iterator[Frame]:
    """Generate the frames of a clip; `shape` is (height, width)."""
    count = people_of_clip(rng)
    focal = rng.uniform(26, 45)
    away = rng.uniform(3.6, 6.0) * focal / 30
    stage = draw_stage(rng, away, focal)
    actors = [_actor(studio, rng, stage, k, away, frame_count) for k in range(count)]
    lights, camera = draw_lights(rng, stage.up), full_camera(focal, shape)
    blocks = [
        draw_prop(rng, stage, block.middle[0], -block.middle[1], block.size, yaw_deg=block.yaw_deg)
        for block in blocks_of(actors)
    ]
    half, half_shape = camera.scaled(0.5), (shape[0] // 2, shape[1] // 2)
    bare = draw_background(rng, stage, half, half_shape, away + 3, studio.photographs)
    response, noise = draw_response(rng), 255 * rng.uniform(0.003, 0.012)
    for number, people in enumerate(pose_actors(studio, actors, [stage] * frame_count)):
        meshes = [person.mesh for person in people] + blocks
        picture = render(meshes, lights, camera, shape)
        background = bare._replace(image=bare.image.copy())
        taken = develop(compose(background, picture, meshes, lights), response)
        rows = [row for row in rows_of(people, picture, studio, number) if is_seen(row)]
        yield Frame(add_sensor_noise(rng, taken, noise), rows)


def blocks_of(actors: Sequence[Actor]) -> list[Block]:
    """The seats and steps that the actors' motions need."""
    return [block for actor in actors for block in actor.motion.blocks]


def rows_of(
    people: Sequence[PosedPerson], picture: Picture, studio: Studio, frame: int
) -> list[Row]:
    """Annotation rows of all people in a frame; the picture's first meshes are theirs."""
    return [
        describe(person, picture, index, studio.parts)
        | {"meta.frame_index": frame, "meta.person": index}
        for index, person in enumerate(people)
    ]


def is_seen(row: Row) -> bool:
    """Whether enough of a person is visible for annotation."""
    return is_clear(row, _MOST_HIDDEN, _MOST_CUT)


def pose_actors(
    studio: Studio, actors: list[Actor], stages: Sequence[Stage]
) -> Iterator[list[PosedPerson]]:
    """The actors in every frame, in their order; frame i has the camera `stages[i]`."""
    for first in range(0, len(stages), _FRAMES_PER_BATCH):
        numbers = range(first, min(first + _FRAMES_PER_BATCH, len(stages)))
        parameters = [actor.at(stages[number], number) for number in numbers for actor in actors]
        posed = zip(parameters, studio.figures.pose(parameters), strict=True)
        for number in numbers:
            yield [actor.placed(stages[number], number, *next(posed)) for actor in actors]


def make_physique(studio: Studio, look: Look, betas: Float32[np.ndarray, "10"]) -> Physique:
    """Skeleton and feet of a dressed person, as `Script` needs them."""
    body, expression = np.zeros((21, 3), np.float32), np.zeros(10, np.float32)
    root, hand, jaw = body[0], body[:15], body[0]
    still = BodyParameters(root, body, hand, hand, jaw, betas, expression)
    (figure,) = studio.figures.pose([still])
    mesh = person_mesh(figure, look, np.zeros(3, np.float32))
    ankle, heel = (figure.joints[MODEL_JOINTS.index(f"left_{name}")] for name in ("ankle", "heel"))
    sole = float(mesh.points[:, 1].min())
    skeleton = Skeleton(studio.figures.rest_joints_of(betas))
    return Physique(skeleton, float(ankle[1]) - sole, float(ankle[2] - heel[2]))


def _actor(studio: Studio, rng: Rng, stage: Stage, number: int, away: float, frames: int) -> Actor:
    """A random actor. The first two cross each other; the others stand, sit or climb, or cross
    too. Each is at a different depth."""
    look = studio.stylist.draw(rng, fine=True)
    betas = np.clip(rng.standard_normal(10), -2.5, 2.5).astype(np.float32)
    expressions = (rng.standard_normal((2, 10)) * 0.8).astype(np.float32)
    physique = make_physique(studio, look, betas)
    seconds = frames / FPS
    depth = away + (0.75 * number - 0.5) + rng.uniform(-0.2, 0.2)
    width = depth * FILM_WIDTH_MM / stage.focal_mm
    crosses = number < 2 or rng.random() < 0.25
    x = width * (rng.uniform(-0.12, 0.12) if crosses else rng.uniform(-0.32, 0.32))
    if crosses:
        script = crossing(rng, physique, (x, -depth), 0.8 * width, seconds)
    else:
        action = (standing, sitting, climbing)[rng.choice(3, p=(0.5, 0.3, 0.2))]
        script = action(rng, physique, (x, -depth), seconds)
    for at in np.arange(rng.uniform(0, 1.5), seconds, 2.5):
        script.face(at, float(rng.random()), float(rng.choice((0.0, 1.5))))
    return Actor(look, betas, expressions, script.play(rng, frames))


def crossing(
    rng: Rng, physique: Physique, middle: tuple[float, float], way_m: float, seconds: float
) -> Script:
    """A walk of about `way_m` that passes `middle` (world x, z) about halfway through the clip;
    sometimes one arm waves, and sometimes the path bends there."""
    leftward, angle = rng.choice((-1.0, 1.0)), rng.normal(0, 0.3)
    ahead = np.array([leftward * math.cos(angle), math.sin(angle)])
    speed = clamp(way_m / seconds * rng.uniform(0.9, 1.1), 0.7, 1.33)
    pace = clamp(speed / 1.18, 0.75, 1.15)
    half = seconds / 2 + rng.normal(0, 0.08) * seconds
    before, after = (max(speed * time, 0.0) + 0.9 for time in (half, seconds - half))
    start, end = middle - before * ahead, middle + after * ahead
    if rng.random() < 0.3:
        end = middle + after * np.array([0.4 * leftward, rng.choice((-0.9, 0.9))])
    yaw = math.degrees(math.atan2(*ahead))
    script = Script(physique, start[0], start[1], yaw, half - before / speed)
    script.walk([middle, tuple(end.tolist())], pace, step_m=clamp(0.54 * speed / pace, 0.4, 0.75))
    if rng.random() < 0.35:
        arm = waving(rng)
        left, right = (arm, None) if rng.random() < 0.5 else (None, arm)
        script.arms(left, right, half - rng.uniform(0, 1))
    return script


def standing(rng: Rng, physique: Physique, where: tuple[float, float], seconds: float) -> Script:
    """Stands and waves, gestures, or turns to another side."""
    script = Script(physique, *where, rng.normal(0, 40))
    script.wait(rng.uniform(0, 0.5))
    while script.time < seconds:
        if rng.random() < 0.15:
            script.turn_to(script.yaw + rng.normal(0, 60))
        elif rng.random() < 0.25:
            _wave(rng, script)
        else:
            for side in SIDES:
                script.hand(side, str(rng.choice(list(SHAPES))), script.time)
            script.arms(*draw_arms(rng, 0.25)).wait(rng.uniform(0.9, 1.8))
    return script


def _wave(rng: Rng, script: Script) -> None:
    """Append a wave of one hand."""
    arm, side = waving(rng), int(rng.integers(2))
    for number in range(int(rng.integers(4, 9))):
        swing = -1.0 if number % 2 else 1.0
        wrist = arm.wrist + np.array([0.08 * swing, 0, 0])
        swung = arm._replace(wrist=wrist, bend=(arm.bend[0], arm.bend[1] + 14 * swing))
        last = 0.6 if number == 0 else 0.3
        left, right = (swung, None) if side == 0 else (None, swung)
        script.arms(left, right, seconds=last).wait(last)
    script.arms(None, None).wait(0.7)


def sitting(rng: Rng, physique: Physique, where: tuple[float, float], seconds: float) -> Script:
    """Sits down, gets up, and in half of the cases walks away."""
    script = Script(physique, *where, rng.normal(0, 45))
    script.wait(rng.uniform(0.1, 0.3) * seconds)
    script.arms(THIGH, THIGH, script.time + 0.3, 1.2)
    script.sit(rng.uniform(0.15, 0.4) * seconds, rng.uniform(0.4, 0.5))
    script.arms(None, None, script.time - 1.2)
    if rng.random() < 0.5:
        script.turn_to(script.yaw + rng.normal(0, 50))
        forward = turn("y", script.yaw)[:, 2] * rng.uniform(1, 3)
        script.walk([(script.place[0] + forward[0], script.place[2] + forward[2])])
    return script


def climbing(rng: Rng, physique: Physique, where: tuple[float, float], seconds: float) -> Script:
    """Climbs two steps, and descends again if there is time."""
    yaw = rng.uniform(-180, 180)
    rise, tread, distance = rng.uniform(0.14, 0.19), rng.uniform(0.3, 0.36), rng.uniform(0.8, 1.4)
    start = np.array(where) - (distance + 0.3) * turn("y", yaw)[[0, 2], 2]
    script = Script(physique, start[0], start[1], yaw).climb(distance, rise, tread)
    script.turn_to(yaw + rng.choice((-180, 180)))
    if script.time + 2 < seconds:
        end = script.place + turn("y", script.yaw)[:, 2] * tread * 4

        def height(distance: float) -> float:
            return rise * clamp(2 - round(distance / tread), 0, 2)

        script.walk([(end[0], end[2])], 0.8, height, tread)
    return script

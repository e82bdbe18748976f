"""Whole pictures with one to six people who hide each other: 720p or any other size."""

from typing import Final

import numpy as np

from datasets.synthetic.backgrounds import draw_background
from datasets.synthetic.compose import compose
from datasets.synthetic.crops import Drawn, Plan
from datasets.synthetic.figures import Figure
from datasets.synthetic.finish import encode
from datasets.synthetic.ground_truth import Parts, describe
from datasets.synthetic.meshes import Mesh, person_mesh
from datasets.synthetic.props import draw_prop, seat_under
from datasets.synthetic.shading import draw_lights, render
from datasets.synthetic.stage import (
    FILM_WIDTH_MM,
    draw_focal_mm,
    draw_stage,
    full_camera,
    halved,
    place,
)
from datasets.synthetic.studio import Studio

_MOST_PEOPLE: Final = 6
_LEAST_APART_M: Final = 0.55
_MOST_HIDDEN: Final = 0.85
_MOST_CUT: Final = 0.85
_ON_FLOOR: Final = 0.75
_LEAST_BOX_PX: Final = 24
_FINE_PX_PER_M: Final = 200


def people_of_scene(rng: np.random.Generator) -> int:
    """The first thing that a scene's generator is asked."""
    return int(rng.choice(_MOST_PEOPLE, p=(0.2, 0.25, 0.2, 0.15, 0.1, 0.1))) + 1


def plan_scene(studio: Studio, rng: np.random.Generator, shape: tuple[int, int]) -> Plan:
    """Camera, people and where they stand: on the floor, apart, most of them in the picture."""
    count = people_of_scene(rng)
    focal = draw_focal_mm(rng)
    fills = rng.uniform(0.25, 1.05)
    away = float(np.clip(1.7 * focal / 22 / fills, 1.8, 25))
    stage = draw_stage(rng, away, focal)
    places: list[tuple[float, float]] = []
    for _ in range(20 * count):
        depth = max(away + rng.uniform(-0.25, 0.6) * min(away, 5.0), 1.2)
        right = depth * rng.uniform(-0.52, 0.52) * FILM_WIDTH_MM / focal
        if places and rng.random() < 0.5:  # people stand together, or one behind the other
            near = places[rng.integers(len(places))]
            right = near[0] * depth / near[1] + rng.normal(0, 0.5)
        if all(np.hypot(right - x, depth - z) > _LEAST_APART_M for x, z in places):
            places.append((float(right), float(depth)))
        if len(places) == count:
            break
    pixels_per_m = full_camera(focal, shape).focal[0]
    people = tuple(
        studio.draw_person(rng, stage, fine=pixels_per_m / z > _FINE_PX_PER_M) for _, z in places
    )
    return Plan(rng, stage, people, tuple(places))


def draw_scene(
    studio: Studio, parts: Parts, plan: Plan, figures: list[Figure], shape: tuple[int, int]
) -> Drawn:
    """Draw a plan whose people have been posed; rows are of those of whom something is seen."""
    rng, stage = plan.rng, plan.stage
    camera = full_camera(stage.focal_mm, shape)
    moves = [
        place(stage, figure, *where, person.pose.lift_m)
        for figure, where, person in zip(figures, plan.places, plan.people, strict=True)
    ]
    meshes = [
        person_mesh(figure, person.look, move)
        for figure, person, move in zip(figures, plan.people, moves, strict=True)
    ]
    for person, figure, move in zip(plan.people, figures, moves, strict=True):
        if person.pose.seated and rng.random() < 0.9:
            seat = seat_under(rng, stage, figure.joints[0] + move)
            meshes += [seat] if seat is not None else []
    on_floor = rng.random() < _ON_FLOOR
    meshes += [_clutter(rng, plan) for _ in range(int(rng.integers(0, 7)) if on_floor else 0)]
    lights = draw_lights(rng, stage.up)
    picture = render(meshes, lights, camera, shape)
    farthest = max(float(mesh.points[:, 2].max()) for mesh in meshes) if on_floor else None
    half, half_shape = halved(camera), (shape[0] // 2, shape[1] // 2)
    background = draw_background(rng, stage, half, half_shape, farthest, studio.photographs)
    image = compose(rng, background, picture, meshes, lights, stage, half)
    rows = []
    for me, (person, figure, move) in enumerate(zip(plan.people, figures, moves, strict=True)):
        row = describe(figure, person.parameters, move, picture, me, camera, parts)
        meta, box = row["meta"], row["bbox_xywh"]
        clear = meta["occlusion"] <= _MOST_HIDDEN and meta["truncation"] <= _MOST_CUT
        if clear and box[2:4].min() >= _LEAST_BOX_PX:
            rows.append(row)
    return Drawn(encode(rng, image), rows)


def _clutter(rng: np.random.Generator, plan: Plan) -> Mesh:
    """A thing that stands clear of everybody, mostly behind them."""
    focal = plan.stage.focal_mm
    middle = float(np.mean([away for _, away in plan.places]))
    for _ in range(10):
        depth = max(middle * rng.uniform(0.6, 2.0), 1.0)
        right = depth * rng.uniform(-0.6, 0.6) * FILM_WIDTH_MM / focal
        if all(np.hypot(right - x, depth - z) > 1.0 for x, z in plan.places):
            break
    tall = 2.2 if depth > middle else 0.8
    size = tuple(rng.uniform((0.2, 0.2, 0.2), (1.2, tall, 0.8)).tolist())
    return draw_prop(rng, plan.stage, float(right), float(depth), size)

"""One person a picture, at the size of a crop: the fast way to many different people.

The picture is a window around the person's box, as wide as training's augmentation can ask for.
Others stand before and behind, things hide parts, and the picture's border cuts some people.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from datasets.synthetic.backgrounds import draw_background
from datasets.synthetic.compose import compose
from datasets.synthetic.figures import Figure
from datasets.synthetic.finish import encode
from datasets.synthetic.ground_truth import Parts, Row, describe, hidden_share
from datasets.synthetic.meshes import Mesh, person_mesh
from datasets.synthetic.props import draw_prop, seat_under
from datasets.synthetic.shading import draw_lights, render
from datasets.synthetic.stage import (
    FILM_HEIGHT_MM,
    FILM_WIDTH_MM,
    Stage,
    draw_focal_mm,
    draw_stage,
    place,
    window_camera,
)
from datasets.synthetic.studio import Person, Studio

MARGIN: Final = 1.25 * 1.3
"""Window over box: the ratio of a crop, and what turns and scales of augmentation need."""
_MOST_HIDDEN: Final = 0.6
_MOST_CUT: Final = 0.7
_ON_FLOOR: Final = 0.65
_PERSON_M: Final = 1.7
_FINE_FROM: Final = 512
"""Height of pictures from which on faces and hands are worth their detail, pixels."""


class Plan(NamedTuple):
    """What is decided before anyone is posed."""

    rng: np.random.Generator
    stage: Stage
    people: tuple[Person, ...]
    """The first one is whom the picture is of."""
    places: tuple[tuple[float, float], ...]
    """Metres to the right of the camera and away from it."""


class Drawn(NamedTuple):
    """A picture and the rows of the people who are annotated."""

    jpeg: bytes
    rows: list[Row]


def plan_crop(studio: Studio, rng: np.random.Generator, shape: tuple[int, int]) -> Plan:
    """Camera, people and where they stand, for a picture of `shape` (height, width)."""
    focal = draw_focal_mm(rng)
    fills = float(np.exp(rng.uniform(np.log(0.3), np.log(1.1))))
    away = float(np.clip(_PERSON_M * focal / FILM_HEIGHT_MM / fills, 1.4, 30))
    right = away * rng.uniform(-0.42, 0.42) * FILM_WIDTH_MM / focal
    stage = draw_stage(rng, away, focal)
    count = int(rng.choice(3, p=(0.7, 0.21, 0.09)))
    places = [(right, away)]
    for _ in range(count):
        before = rng.random() < 0.4
        depth = -rng.uniform(0.35, 1.2) if before else rng.uniform(0.35, 3.0)
        side = rng.choice((-1, 1)) * rng.uniform(0.25, 0.9)
        scale = max(away + depth, 0.8) / away
        places.append((right * scale + side, max(away + depth, 0.8)))
    people = tuple(studio.draw_person(rng, stage, fine=shape[0] >= _FINE_FROM) for _ in places)
    return Plan(rng, stage, people, tuple(places))


def draw_crop(
    studio: Studio, parts: Parts, plan: Plan, figures: list[Figure], shape: tuple[int, int]
) -> Drawn:
    """Draw a plan whose people have been posed; `shape` is (height, width)."""
    rng, stage = plan.rng, plan.stage
    moves = [
        place(stage, figure, *where, person.pose.lift_m)
        for figure, where, person in zip(figures, plan.places, plan.people, strict=True)
    ]
    meshes = [
        person_mesh(figure, person.look, move)
        for figure, person, move in zip(figures, plan.people, moves, strict=True)
    ]
    body = figures[0].points[: parts.body_count] + moves[0]
    camera = window_camera(*_window(rng, body, shape), shape)
    on_floor = rng.random() < _ON_FLOOR
    meshes += _things(rng, stage, plan, figures, moves, on_floor=on_floor)
    lights = draw_lights(rng, stage.up)
    picture = render(meshes, lights, camera, shape)
    hidden, _ = hidden_share(figures[0], moves[0], picture, 0, camera, parts)
    if hidden > _MOST_HIDDEN:
        meshes = meshes[:1]
        picture = render(meshes, lights, camera, shape)
    farthest = max(float(mesh.points[:, 2].max()) for mesh in meshes) if on_floor else None
    background = draw_background(rng, stage, camera, shape, farthest, studio.photographs)
    image = compose(rng, background, picture, meshes, lights, stage, camera)
    row = describe(figures[0], plan.people[0].parameters, moves[0], picture, 0, camera, parts)
    return Drawn(encode(rng, image), [row])


def _window(
    rng: np.random.Generator, points: Float[np.ndarray, "V 3"], shape: tuple[int, int]
) -> tuple[float, float, float]:
    """Left, top and height of the part of the plane z = 1 that the picture shows."""
    depth = np.maximum(points[:, 2], 0.1)
    flat = points[:, 0] / depth, points[:, 1] / depth
    low, high = np.array([[axis.min(), axis.max()] for axis in flat]).T.copy()
    size = high - low
    aspect = shape[1] / shape[0]
    cut = rng.random() < 0.28
    edges: list[str] = []
    if cut:  # the picture's border goes through the person
        for edge, chance in (("bottom", 0.65), ("top", 0.08), ("left", 0.2), ("right", 0.2)):
            if rng.random() < chance:
                edges.append(edge)
                axis = int(edge in ("bottom", "top"))
                share = rng.uniform(0.05, _MOST_CUT if edge == "bottom" else 0.4) * size[axis]
                if edge in ("bottom", "right"):
                    high[axis] -= share
                else:
                    low[axis] += share
    size, middle = high - low, (low + high) / 2
    height = max(size[1], size[0] / aspect) * MARGIN * rng.uniform(0.93, 1.2)
    extent = np.array([height * aspect, height])
    middle = middle + rng.normal(0, 0.02, 2) * extent
    start = middle - extent / 2
    for edge in edges:
        axis = int(edge in ("bottom", "top"))
        start[axis] = high[axis] - extent[axis] if edge in ("bottom", "right") else low[axis]
    return float(start[0]), float(start[1]), float(height)


def _things(
    rng: np.random.Generator,
    stage: Stage,
    plan: Plan,
    figures: list[Figure],
    moves: list[Float[np.ndarray, "3"]],
    *,
    on_floor: bool,
) -> list[Mesh]:
    """Seats, things behind the person, and now and then one before."""
    things = []
    for person, figure, move in zip(plan.people, figures, moves, strict=True):
        if person.pose.seated and rng.random() < 0.85:
            seat = seat_under(rng, stage, figure.joints[0] + move)
            things += [seat] if seat is not None else []
    right, away = plan.places[0]
    for _ in range(int(rng.integers(1, 5)) if on_floor and rng.random() < 0.5 else 0):
        depth = away + rng.uniform(0.6, 4)
        place_x = right * depth / away + rng.normal(0, 1.2)
        size = tuple(rng.uniform((0.2, 0.2, 0.2), (1.4, 2.2, 0.8)).tolist())
        things.append(draw_prop(rng, stage, place_x, depth, size))
    if rng.random() < 0.2:
        things.append(_obstacle(rng, stage, right, away))
    return things


def _obstacle(rng: np.random.Generator, stage: Stage, right: float, away: float) -> Mesh:
    """Something between the camera and the person: a table, a pole, a beam."""
    depth = max(away - rng.uniform(0.5, 1.0), 0.6)
    x = right * depth / away
    kind = rng.integers(3)
    if kind == 0:
        size = (rng.uniform(0.8, 2.0), rng.uniform(0.4, 1.05), rng.uniform(0.2, 0.6))
        return draw_prop(rng, stage, x + rng.normal(0, 0.4), depth, size)
    if kind == 1:
        size = (rng.uniform(0.06, 0.25), rng.uniform(1.2, 2.6), rng.uniform(0.06, 0.2))
        return draw_prop(rng, stage, x + rng.normal(0, 0.2), depth, size)
    size = (rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.5), 0.2)
    return draw_prop(rng, stage, x + rng.normal(0, 0.2), depth, size, rng.uniform(0.2, 1.4))

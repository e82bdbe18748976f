"""Pictures of synthetic people: crops of one person, and scenes of one to six people.

A crop is a window around a person's box, wide enough for the augmentation of training. Other
people stand in front and behind, objects hide parts, and the border cuts some people. In scenes,
people stand apart and occlude each other. A picture is planned before it is drawn, so that the
people of several pictures can be posed in one batch.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from datasets.sources import Split
from human_models.joints import SIDES
from synthetic.appearance import Look, Stylist
from synthetic.arms import draw_hand
from synthetic.backgrounds import (
    Photographs,
    bundled_photographs,
    compose,
    draw_background,
    read_photograph,
)
from synthetic.figures import BodyParameters, Figure, Figures, Mesh, PosedPerson, person_mesh
from synthetic.ground_truth import Parts, Row, describe, hidden_share
from synthetic.poses import Pose, Poser
from synthetic.rendering import (
    FILM_HEIGHT_MM,
    FILM_WIDTH_MM,
    Stage,
    draw_focal_mm,
    draw_lights,
    draw_prop,
    draw_stage,
    encode,
    full_camera,
    photograph,
    place,
    render,
    seat_under,
    window_camera,
)
from synthetic.skeleton import axis_angle, turn

_MOST_BETA: Final = 2.5
_SPLITS: Final[tuple[Split, ...]] = ("train", "test")
_HELD_OUT: Final = 4
"""Every fourth photograph is reserved for the test split."""
_CROP_MARGIN: Final = 1.25 * 1.3
"""Window over box: the network's enlargement of boxes, times a margin for augmentation."""
_CROP_MOST_HIDDEN, _CROP_MOST_CUT, _CROPS_ON_FLOOR = 0.6, 0.7, 0.65
_PERSON_M: Final = 1.7
_FINE_FROM_PX: Final = 512
"""Least height of crops in which people get detailed faces and hands."""
_MOST_PEOPLE: Final = 6
_LEAST_APART_M: Final = 0.55
_SCENE_MOST_HIDDEN, _SCENE_MOST_CUT, _SCENES_ON_FLOOR = 0.85, 0.85, 0.75
_LEAST_BOX_PX: Final = 24
_FINE_PX_PER_M: Final = 200
Rng = np.random.Generator
Shape = tuple[int, int]
"""Height and width, pixels."""


class Person(NamedTuple):
    """A random person before posing."""

    pose: Pose
    parameters: BodyParameters
    look: Look


class Studio:
    """The constant resources of drawing: bodies, clothes, photographs. One is made per process."""

    def __init__(self, split: Split) -> None:
        self.figures = Figures()
        self.parts = Parts(self.figures.wardrobe.region)
        self.stylist = Stylist(self.figures.data, self.figures.wardrobe, self.figures.features)
        self.poser = Poser(self.figures.rest_joints)
        self.photographs: Photographs = [
            read_photograph(path)
            for i, path in enumerate(bundled_photographs())
            if (i % _HELD_OUT == 0) == (split == "test")
        ]

    def draw_person(self, rng: Rng, stage: Stage, *, fine: bool) -> Person:
        """A random person in the camera frame; `fine` keeps detail for people near the camera."""
        pose = self.poser.draw(rng)
        yaw = rng.normal(0, 45) if rng.random() < 0.55 else rng.uniform(-180, 180)
        look = self.stylist.draw(rng, fine=fine)
        return Person(pose, self.parameters(rng, stage, pose, yaw), look)

    def parameters(self, rng: Rng, stage: Stage, pose: Pose, yaw_deg: float) -> BodyParameters:
        """Parameters in the camera frame, with random shape, expression and hands.

        At a yaw of 0 degrees the person faces the camera.
        """
        turned = stage.from_world @ turn("y", yaw_deg) @ pose.root
        left, right = (
            draw_hand(rng, side, shape) for side, shape in zip(SIDES, pose.hands, strict=True)
        )
        jaw = np.array([np.clip(rng.normal(0.02, 0.1), 0, 0.4), rng.normal(0, 0.02), 0], np.float32)
        betas = np.clip(rng.standard_normal(10), -_MOST_BETA, _MOST_BETA)
        expression = rng.standard_normal(10) * rng.uniform(0, 1.3)
        return BodyParameters(
            *(axis_angle(turned).astype(np.float32), pose.body, left, right, jaw),
            *(betas.astype(np.float32), expression.astype(np.float32)),
        )


def generator(seed: int, split: Split, index: int) -> Rng:
    """The random generator of one picture, which does not depend on the other pictures."""
    return np.random.default_rng((seed, _SPLITS.index(split), index))


class Plan(NamedTuple):
    """Camera, people and their places in one picture, before posing."""

    rng: Rng
    stage: Stage
    people: tuple[Person, ...]
    """A crop shows the first one."""
    places: tuple[tuple[float, float], ...]
    """Distances to the right of the camera and in front of it along the floor, metres."""

    def stand(self, figures: list[Figure]) -> list[PosedPerson]:
        """The posed people on their places."""
        standing = []
        for person, figure, where in zip(self.people, figures, self.places, strict=True):
            transl = place(self.stage, figure, *where, person.pose.lift_m)
            mesh = person_mesh(figure, person.look, transl)
            standing.append(PosedPerson(person.parameters, figure, transl, mesh))
        return standing

    def seats(self, standing: list[PosedPerson], chance: float) -> list[Mesh]:
        """Seats under sitting people, each with probability `chance`."""
        seats = []
        for person, posed in zip(self.people, standing, strict=True):
            if person.pose.seated and self.rng.random() < chance:
                pelvis = posed.figure.joints[0] + posed.transl
                seats += seat_under(self.rng, self.stage, pelvis)
        return seats


class Drawn(NamedTuple):
    """A JPEG file and the rows of the annotated people."""

    jpeg: bytes
    rows: list[Row]


def plan_crop(studio: Studio, rng: Rng, shape: Shape) -> Plan:
    """Draw camera, people and places for a crop; `shape` is (height, width)."""
    focal = draw_focal_mm(rng)
    fills = float(np.exp(rng.uniform(np.log(0.3), np.log(1.1))))
    away = float(np.clip(_PERSON_M * focal / FILM_HEIGHT_MM / fills, 1.4, 60))
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
    people = tuple(studio.draw_person(rng, stage, fine=shape[0] >= _FINE_FROM_PX) for _ in places)
    return Plan(rng, stage, people, tuple(places))


def draw_crop(studio: Studio, plan: Plan, figures: list[Figure], shape: Shape) -> Drawn:
    """Draw a planned crop; `figures` are its people, posed."""
    rng, stage, standing = plan.rng, plan.stage, plan.stand(figures)
    body = figures[0].points[: studio.parts.body_count] + standing[0].transl
    camera = window_camera(*_window(rng, body, shape), shape)
    on_floor = rng.random() < _CROPS_ON_FLOOR
    meshes = [person.mesh for person in standing] + plan.seats(standing, 0.85)
    meshes += _objects(rng, stage, *plan.places[0], on_floor=on_floor)
    lights = draw_lights(rng, stage.up)
    picture = render(meshes, lights, camera, shape)
    if hidden_share(standing[0], picture, 0, studio.parts)[0] > _CROP_MOST_HIDDEN:
        meshes = meshes[:1]
        picture = render(meshes, lights, camera, shape)
    farthest = _farthest(meshes) if on_floor else None
    background = draw_background(rng, stage, camera, shape, farthest, studio.photographs)
    image = photograph(rng, compose(background, picture, meshes, lights))
    return Drawn(encode(rng, image), [describe(standing[0], picture, 0, studio.parts)])


def _farthest(meshes: list[Mesh]) -> float:
    return max(float(mesh.points[:, 2].max()) for mesh in meshes)


def _window(rng: Rng, points: Float[np.ndarray, "V 3"], shape: Shape) -> tuple[float, float, float]:
    """Left, top and height of the crop on the plane z = 1; `points` are the person's vertices."""
    depth = np.maximum(points[:, 2], 0.1)
    flat = points[:, 0] / depth, points[:, 1] / depth
    low, high = np.array([[axis.min(), axis.max()] for axis in flat]).T.copy()
    size = high - low
    aspect = shape[1] / shape[0]
    edges: list[str] = []
    if rng.random() < 0.28:  # the border of the picture cuts the person
        for edge, chance in (("bottom", 0.65), ("top", 0.08), ("left", 0.2), ("right", 0.2)):
            if rng.random() < chance:
                edges.append(edge)
                axis = int(edge in ("bottom", "top"))
                most = _CROP_MOST_CUT if edge == "bottom" else 0.4
                share = rng.uniform(0.05, most) * size[axis]
                if edge in ("bottom", "right"):
                    high[axis] -= share
                else:
                    low[axis] += share
    size, middle = high - low, (low + high) / 2
    height = max(size[1], size[0] / aspect) * _CROP_MARGIN * rng.uniform(0.93, 1.2)
    extent = np.array([height * aspect, height])
    middle = middle + rng.normal(0, 0.02, 2) * extent
    start = middle - extent / 2
    for edge in edges:
        axis = int(edge in ("bottom", "top"))
        start[axis] = high[axis] - extent[axis] if edge in ("bottom", "right") else low[axis]
    return float(start[0]), float(start[1]), float(height)


def _objects(rng: Rng, stage: Stage, right: float, away: float, *, on_floor: bool) -> list[Mesh]:
    """Random objects behind the person of a crop, and sometimes one in front."""
    objects = []
    for _ in range(int(rng.integers(1, 5)) if on_floor and rng.random() < 0.5 else 0):
        depth = away + rng.uniform(0.6, 4)
        place_x = right * depth / away + rng.normal(0, 1.2)
        size = tuple(rng.uniform((0.2, 0.2, 0.2), (1.4, 2.2, 0.8)).tolist())
        objects.append(draw_prop(rng, stage, place_x, depth, size))
    if rng.random() < 0.2:
        objects.append(_obstacle(rng, stage, right, away))
    return objects


def _obstacle(rng: Rng, stage: Stage, right: float, away: float) -> Mesh:
    """An object between the camera and the person: a table, a pole or a beam."""
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


def people_of_scene(rng: Rng) -> int:
    """Number of people of a scene, which is the first number drawn from the scene's generator."""
    return int(rng.choice(_MOST_PEOPLE, p=(0.2, 0.25, 0.2, 0.15, 0.1, 0.1))) + 1


def plan_scene(studio: Studio, rng: Rng, shape: Shape) -> Plan:
    """Draw camera, people and places for a scene; people stand apart, most in the picture."""
    count = people_of_scene(rng)
    focal = draw_focal_mm(rng)
    fills = rng.uniform(0.25, 1.05)
    away = float(np.clip(1.7 * focal / 22 / fills, 1.8, 60))
    stage = draw_stage(rng, away, focal)
    places: list[tuple[float, float]] = []
    for _ in range(20 * count):
        depth = max(away + rng.uniform(-0.25, 0.6) * min(away, 5.0), 1.2)
        right = depth * rng.uniform(-0.52, 0.52) * FILM_WIDTH_MM / focal
        if places and rng.random() < 0.5:  # near the line of sight to somebody else
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


def draw_scene(studio: Studio, plan: Plan, figures: list[Figure], shape: Shape) -> Drawn:
    """Draw a planned scene; `figures` are its people, posed. Rows are of those who are visible."""
    rng, stage, standing = plan.rng, plan.stage, plan.stand(figures)
    camera = full_camera(stage.focal_mm, shape)
    meshes = [person.mesh for person in standing] + plan.seats(standing, 0.9)
    on_floor = rng.random() < _SCENES_ON_FLOOR
    meshes += [_clutter(rng, plan) for _ in range(int(rng.integers(0, 7)) if on_floor else 0)]
    lights = draw_lights(rng, stage.up)
    picture = render(meshes, lights, camera, shape)
    farthest = _farthest(meshes) if on_floor else None
    half, half_shape = camera.scaled(0.5), (shape[0] // 2, shape[1] // 2)
    background = draw_background(rng, stage, half, half_shape, farthest, studio.photographs)
    image = photograph(rng, compose(background, picture, meshes, lights))
    rows = []
    for index, person in enumerate(standing):
        row = describe(person, picture, index, studio.parts)
        clear = is_clear(row, _SCENE_MOST_HIDDEN, _SCENE_MOST_CUT)
        if clear and row["bbox_xywh"][2:4].min() >= _LEAST_BOX_PX:
            rows.append(row)
    return Drawn(encode(rng, image), rows)


def is_clear(row: Row, most_hidden: float, most_cut: float) -> bool:
    """Whether the hidden and truncated shares of a person are small enough for annotation."""
    return bool(row["meta.occlusion"] <= most_hidden and row["meta.truncation"] <= most_cut)


def _clutter(rng: Rng, plan: Plan) -> Mesh:
    """A random object at a distance from all people, mostly behind them."""
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

"""The clip in demo/: three people in a room; one walks and turns, one sits down and gets up, one
gestures with open hands. `film` draws people in the room, also for `shots`."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import repeat
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from synthetic.arms import THIGH, Arm
from synthetic.backgrounds import Background, cast_shadow
from synthetic.clips import Actor, Frame, blocks_of, make_physique, pose_actors, rows_of
from synthetic.figures import Mesh, gather
from synthetic.ground_truth import Row
from synthetic.hall import TO_SUN, EmptyHall, Hall
from synthetic.motion import Physique, Script
from synthetic.pictures import Studio
from synthetic.rendering import FLIP, Image, Picture, Stage, draw_lit, full_camera
from synthetic.skeleton import Vector, turn, unit
from utils.camera import Camera
from utils.render import rasterize

_FOCAL_MM: Final = 29.0
_RAYS: Final = 128
"""Rays from each point, for the light of the hall."""
_LOOKS: Final = (7, 8, 27)
"""Seeds of the appearance of the walker, the sitter and the talker."""
_SHADOW_MAP_PX, _SHADOW_MAP_M, _LIGHT_DISTANCE_M, _SHADOW_BIAS_M = 600, 7.0, 40.0, 0.03
_LIGHT_FROM: Final = [
    unit(np.array(direction, np.float32))
    for direction in (
        (-0.9, 0.4, 0.2),
        (-0.4, 0.5, 0.8),
        (0.5, 0.4, 0.8),
        (0.2, 0.95, 0.1),
        (-0.2, -0.5, 0.8),
    )
]
"""Directions (world) in which the ambient occlusion of people is sampled."""
_LEAST_AMBIENT: Final = 0.3
"""Share of the ambient light that reaches points that are occluded in all directions."""
_TEXTURE_CONTRAST: Final = 0.15
"""Factor of the contrast of people's textures."""
_SUPERSAMPLING: Final = 2
"""People are drawn at this multiple of the picture's resolution."""
_SUNK_M: Final = 0.05
"""Points more than this below a ground cast no shadow on it."""
_WINDOW_LIGHT: Final = np.array([-0.62, 0.74, 0.26])
"""Main direction of the light other than the sun's, in the world."""
_EXPOSURE: Final = 0.68
_TONE_STEPS: Final = 2048
"""Entries of the tone curve per unit of light."""
_GAMMA: Final = 1.8
_SMALLEST_M, _SMALLEST_PX = 2.0**-12, 2.0**-5
"""Steps to which annotated joints are rounded, so that the file is small."""
Rng = np.random.Generator


def draw_demo(
    studio: Studio, rng: Rng, shape: tuple[int, int], frame_count: int
) -> Iterator[Frame]:
    """Generate the frames of the clip; `shape` is (height, width)."""
    tilt = turn("x", 4.0) @ FLIP
    stage, camera = Stage(_FOCAL_MM, 1.4, tilt), full_camera(_FOCAL_MM, shape)
    actors = [
        draw_actor(studio, rng, play, look, frame_count)
        for play, look in zip((_walker, _sitter, _talker), _LOOKS, strict=True)
    ]
    hall = Hall(rng, blocks_of(actors), _RAYS)
    empty = hall.photograph(rng, stage, camera, shape)
    for frame in film(studio, actors, hall, [stage] * frame_count, repeat(empty)):
        yield frame._replace(rows=[_rounded(row) for row in frame.rows])


def film(
    studio: Studio,
    actors: list[Actor],
    hall: Hall,
    stages: Sequence[Stage],
    views: Iterable[EmptyHall],
) -> Iterator[Frame]:
    """Generate a frame for each stage, with rows of all actors.

    Args:
        stages: the camera of each frame.
        views: the room without people, seen by each of these cameras.
    """
    posed = pose_actors(studio, actors, stages)
    for number, (stage, people, empty) in enumerate(zip(stages, posed, views, strict=False)):
        height, width = empty.depth_m.shape
        camera = full_camera(stage.focal_mm, (height, width))
        meshes = [person.mesh for person in people]
        joined = _in_linear_light(gather(meshes))
        shadowed = _with_shadows(empty, joined, stage, camera)
        lit = _reflected_light(hall, stage, meshes, joined)
        image, picture = _draw_people(meshes, joined, lit, shadowed, empty.depth_m, camera)
        yield Frame(image, rows_of(people, picture, studio, number))


def _in_linear_light(mesh: Mesh) -> Mesh:
    """The mesh with linear reflectances in place of the gamma-encoded colours of a `Look`."""
    textures = []
    for texture in mesh.textures:
        mean = texture.mean(axis=(0, 1))
        textures.append(np.clip(mean + _TEXTURE_CONTRAST * (texture - mean), 0, 1) ** _GAMMA)
    return mesh._replace(tint=mesh.tint**_GAMMA, textures=tuple(textures))


def draw_actor(
    studio: Studio, rng: Rng, play: Callable[[Physique], Script], look_seed: int, frames: int
) -> Actor:
    """An actor with the motion that `play` scripts and the appearance of `look_seed`."""
    look_rng = np.random.default_rng(look_seed)
    look = studio.stylist.draw(look_rng, fine=True)
    betas = np.clip(look_rng.standard_normal(10) * 0.7, -1.5, 1.5).astype(np.float32)
    expressions = (look_rng.standard_normal((2, 10)) * 0.25).astype(np.float32)
    expressions[1] = expressions[0] + np.array([2.3, 0.4, -0.3, -0.9, 0.3, 0, 0, 0, 0, 0])
    script = play(make_physique(studio, look, betas))
    return Actor(look, betas, expressions, script.play(rng, frames))


_CAMERA: Final = (0.0, 1.4, 0.0)
"""Position of the camera in the world, metres."""


def _gesture(
    x: float, y: float, z: float, twist: float, hand: str, bend: tuple[float, float] = (0, 0)
) -> Arm:
    return Arm(np.array([x, y, z]), np.array([0.7, -1.0, -0.4]), twist, bend, hand)


def _walker(physique: Physique) -> Script:
    """Walks from the right behind the talker, around the rug, towards the camera, and waves."""
    script = Script(physique, 3.35, -5.75, -90.0, -0.35)
    script.walk([(-0.35, -5.7), (-0.55, -3.55)], 1.02)
    script.look(0.6, (0.95, 1.5, -4.0)).look(2.4, None).look(4.2, _CAMERA)
    raised = _gesture(0.36, 0.16, 0.22, -85, "spread", (0, -12))
    start = script.time
    for number in range(6):
        swing = 0.07 if number % 2 else -0.07
        arm = raised._replace(wrist=raised.wrist + np.array([swing, 0, 0]), bend=(0, 140 * swing))
        script.arms(
            None, arm, start - 0.3 + 0.3 * number + (number > 0) * 0.3, 0.6 if number == 0 else 0.3
        )
    script.arms(None, None, start + 2.2, 0.8)
    return script.face(start - 0.6, 0.9).turn_to(35.0)


def _sitter(physique: Physique) -> Script:
    """Sits down on the chair beside the windows and gets up."""
    script = Script(physique, -1.55, -4.85, 48.0).wait(0.7)
    script.arms(THIGH, THIGH, 1.1, 1.1).look(0.0, (0.95, 1.5, -4.0)).sit(3.1)
    script.look(3.4, (-0.5, 1.4, -4.2)).look(5.6, (0.95, 1.5, -4.0)).face(2.6, 0.6)
    script.arms(None, None, 6.0, 0.9)
    chin = _gesture(0.03, 0.04, 0.24, 10, "relaxed", (10, 0))
    return (
        script.arms(THIGH, chin, 3.0, 0.8).arms(THIGH, THIGH, 5.0, 0.7).arms(None, None, 6.0, 0.9)
    )


def _talker(physique: Physique) -> Script:
    """Faces the camera and gestures with open hands and moving fingers."""
    script = Script(physique, 0.95, -3.95, -12.0)
    open_low = _gesture(0.24, -0.14, 0.30, -40, "spread")
    wide = _gesture(0.42, -0.05, 0.26, -55, "spread", (-15, 0))
    near = _gesture(0.12, -0.10, 0.30, 0, "flat")
    count = _gesture(0.30, 0.02, 0.30, -70, "point")
    two = _gesture(0.31, 0.04, 0.30, -70, "victory")
    pinch = _gesture(0.17, 0.02, 0.32, -30, "ring")
    chest = _gesture(0.02, -0.03, 0.21, 5, "flat")
    plan = (
        (0.2, open_low, open_low), (1.1, near, near), (1.8, wide, wide), (2.8, None, count),
        (3.5, None, two), (4.3, open_low, pinch), (5.1, near, open_low), (5.9, wide, wide),
        (6.8, None, chest), (7.9, open_low, wide),
    )  # fmt: skip
    for at, left, right in plan:
        script.arms(left, right, at, 0.6)
    script.look(0.0, _CAMERA).look(3.0, (-1.4, 1.2, -4.9)).look(4.0, _CAMERA)
    return script.face(-0.5, 0.35, 6.9).face(6.6, 1.0).face(8.2, 0.6, 1.0)


def _reflected_light(
    hall: Hall, stage: Stage, meshes: list[Mesh], joined: Mesh
) -> Float32[np.ndarray, "V 3"]:
    """RGB that people's vertices reflect: ambient light with occlusion by people, and the sun."""
    points = (joined.points @ stage.from_world + stage.centre).astype(np.float32)
    normals = joined.normals @ stage.from_world.astype(np.float32)
    reached = facing = np.full(len(points), 1e-3, np.float32)
    for direction in _LIGHT_FROM:
        cosine = np.maximum(normals @ direction, 0)
        facing = facing + cosine
        reached = reached + cosine * ~_in_shadow(points, joined.faces, direction)
    visibility = (_LEAST_AMBIENT + (1 - _LEAST_AMBIENT) * reached / facing)[:, None]
    shaded, light, first = _in_shadow(points, joined.faces, TO_SUN), [], 0
    for mesh in meshes:
        own = slice(first, first + len(mesh.points))
        ambient, sun = hall.light_on(points[own], normals[own], shaded[own])
        light.append(ambient * visibility[own] + sun)
        first = own.stop
    return (np.concatenate(light) * joined.tint).astype(np.float32)


def _in_shadow(
    points: Float32[np.ndarray, "V 3"], faces: Int32[np.ndarray, "F 3"], direction: Vector
) -> Bool[np.ndarray, " V"]:
    """Which vertices the triangles hide from a distant light in `direction` (shadow mapping)."""
    right = np.array([direction[2], 0, -direction[0]]) / math.hypot(direction[0], direction[2])
    from_world = np.stack([right, np.cross(-direction, right), -direction])
    light = points.mean(axis=0) + direction * _LIGHT_DISTANCE_M
    seen = np.ascontiguousarray((points - light) @ from_world.T, np.float32)
    side, focal = _SHADOW_MAP_PX, _SHADOW_MAP_PX * _LIGHT_DISTANCE_M / _SHADOW_MAP_M
    camera = Camera((focal, focal), ((side - 1) / 2, (side - 1) / 2))
    drawn = rasterize(seen, faces, seen, camera, (side, side), 1.0)
    depth = np.where(drawn.covered, drawn.values[0][..., 2], np.inf)
    column, row = np.clip(np.rint(camera.project(seen)).astype(int), 0, side - 1).T
    return depth[row, column] < seen[:, 2] - _SHADOW_BIAS_M


def _draw_people(
    meshes: list[Mesh],
    joined: Mesh,
    lit: Float32[np.ndarray, "V 3"],
    background: Image,
    depth_m: Float32[np.ndarray, "H W"],
    camera: Camera,
) -> tuple[UInt8[np.ndarray, "H W 3"], Picture]:
    """Draw people into the room, and return the image and who is visible in each pixel.

    The rectangle that contains them is drawn at a higher resolution and reduced. Pixels in which
    furniture hides a person get the owner `len(meshes)`.
    """
    height, width = depth_m.shape
    x, y = camera.project(joined.points).T
    left = min(max(int(x.min()) - 3, 0), width - 1)
    top = min(max(int(y.min()) - 3, 0), height - 1)
    right, bottom = min(int(x.max()) + 4, width), min(int(y.max()) + 4, height)
    part = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
    factor = _SUPERSAMPLING
    room_m = cv2.resize(depth_m[part], None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    shape, fine = room_m.shape, camera.cropped(left, top).scaled(factor)
    picture = draw_lit(meshes, joined, lit, fine, (shape[0], shape[1]))
    hidden = (picture.owner >= 0) & (room_m < picture.depth_m)
    shown = ~hidden.ravel()[picture.pixels]
    light = cv2.resize(background[part], shape[::-1], interpolation=cv2.INTER_LINEAR)
    light.reshape(-1, 3)[picture.pixels[shown]] = picture.colours[shown]
    image = _developed(background)
    small = (shape[1] // factor, shape[0] // factor)
    image[part] = cv2.resize(_developed(light), small, interpolation=cv2.INTER_AREA)
    owner, nearest_m = np.full((height, width), -1, np.int32), np.full_like(depth_m, np.inf)
    middle = slice(factor // 2, None, factor)
    owner[part] = np.where(hidden, len(meshes), picture.owner)[middle, middle]
    nearest_m[part] = np.where(hidden, room_m, picture.depth_m)[middle, middle]
    return image, picture._replace(camera=camera, owner=owner, depth_m=nearest_m)


def _with_shadows(empty: EmptyHall, joined: Mesh, stage: Stage, camera: Camera) -> Image:
    """The room with people's shadows: sharp in the sun, soft from the windows, and under feet."""
    base, sunny = empty.base.copy(), empty.sunny.copy()
    for ground_m, seen in empty.grounds:
        ground = stage._replace(height_m=stage.height_m - ground_m)
        image, sun = (Background(light, seen, ground, camera) for light in (base, sunny))
        height = joined.points @ stage.up + ground.height_m
        points = joined.points[::4][height[::4] > -_SUNK_M]
        cast_shadow(sun, points, stage.from_world @ TO_SUN, 1.0, 0.012)
        cast_shadow(image, points, stage.from_world @ _WINDOW_LIGHT, 0.4, 0.16)
        low = joined.points[(height > -_SUNK_M) & (height < 0.3)]
        cast_shadow(image, low, stage.up, 0.5, 0.05)
    return base + sunny


def _developed(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    """Tone-map linear light from 0 to 4 to bytes."""
    return _tone_curve()[np.clip(image * _TONE_STEPS, 0, 4 * _TONE_STEPS).astype(np.uint16)]


@cache
def _tone_curve() -> UInt8[np.ndarray, " N"]:
    """Bytes for light from 0 to 4 in steps: Narkowicz's fit of the ACES film curve, and gamma."""
    light = _EXPOSURE * np.arange(4 * _TONE_STEPS + 1) / _TONE_STEPS
    light = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    return np.clip(255 * np.clip(light, 0, 1) ** (1 / 2.2), 0, 255).astype(np.uint8)


def _rounded(row: Row) -> Row:
    rounded = dict(row)
    for name, step in (("keypoints3d_smplx", _SMALLEST_M), ("keypoints2d_smplx", _SMALLEST_PX)):
        rounded[name] = np.round(row[name] / step) * step
    return rounded

"""The place where people stand: a camera over a floor, its pinhole views, and things on the floor.

The world has y up and its origin under no one in particular; the camera is at its own height over
the floor and looks along -z, tilted. The camera frame has x right, y down, z forward.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32

from datasets.synthetic.figures import Figure, Mesh
from datasets.synthetic.skeleton import Rotation, turn
from datasets.synthetic.textures import draw_colour, draw_texture
from utils.camera import Camera
from utils.mesh import vertex_normals

FILM_HEIGHT_MM: Final = 24.0
FILM_WIDTH_MM: Final = 36.0
_FLIP: Final = np.diag([1.0, -1.0, -1.0])
_CORNERS: Final = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0, 1) for z in (-0.5, 0.5)])
_QUADS: Final = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)
_COLUMN_SIDES: Final = 20
Rng = np.random.Generator


class Stage(NamedTuple):
    """A camera over a floor."""

    focal_mm: float
    """As of a camera with film of 36 x 24 mm."""
    height_m: float
    """Of the camera over the floor."""
    from_world: Rotation
    """From world axes to the camera's."""

    @property
    def up(self) -> Float[np.ndarray, "3"]:
        """The world's up in the camera frame."""
        return self.from_world[:, 1]

    def from_floor(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        """Points of the world (the floor is at y = 0, the camera over x = z = 0) in the camera
        frame, metres."""
        return (points - (0, self.height_m, 0)) @ self.from_world.T


def draw_stage(rng: Rng, distance_m: float, focal_mm: float) -> Stage:
    """A camera that looks at something as tall as people at a distance."""
    kind = rng.random()
    if kind < 0.7:
        height = float(np.clip(rng.normal(1.45, 0.3), 0.6, 2.2))
    else:
        height = rng.uniform(0.15, 0.9) if kind < 0.82 else rng.uniform(2.0, 4.5)
    aside = rng.uniform(-0.18, 0.18) * FILM_HEIGHT_MM / focal_mm
    pitch = math.degrees(math.atan2(height - 0.9, distance_m) + aside)
    roll = rng.normal(0, 12) if rng.random() < 0.1 else rng.normal(0, 2)
    return Stage(focal_mm, height, turn("z", roll) @ turn("x", pitch) @ _FLIP)


def draw_focal_mm(rng: Rng) -> float:
    """24 to 85 mm, each doubling as likely as the other."""
    return float(math.exp(rng.uniform(math.log(24), math.log(85))))


def place(
    stage: Stage,
    figure: Figure,
    right_m: float,
    away_m: float,
    lift_m: float = 0.0,
) -> Float32[np.ndarray, "3"]:
    """The translation that puts a person's lowest point on the floor (`lift_m` over it), the pelvis
    `right_m` and `away_m` from the camera along the floor. `figure` is turned to the camera frame.
    """
    up = stage.up
    lowest = float((figure.points @ up).min())
    pelvis = figure.joints[0] - up * (up @ figure.joints[0])
    ground = stage.from_world @ np.array([right_m, 0.0, -away_m])
    return (ground - pelvis + up * (lift_m - stage.height_m - lowest)).astype(np.float32)


def window_camera(left: float, top: float, height: float, shape: tuple[int, int]) -> Camera:
    """A camera whose picture of `shape` (height, width) shows a window of the plane z = 1.

    Pixels count from the centre of the top left one, so the window's corner is at -0.5.
    """
    focal = shape[0] / height
    return Camera((focal, focal), (-left * focal - 0.5, -top * focal - 0.5))


def full_camera(focal_mm: float, shape: tuple[int, int]) -> Camera:
    """A camera of the whole picture; the film's longer side is the picture's."""
    height, width = shape
    focal = focal_mm / FILM_WIDTH_MM * max(height, width)
    return Camera((focal, focal), ((width - 1) / 2, (height - 1) / 2))


def draw_prop(
    rng: Rng,
    stage: Stage,
    right_m: float,
    away_m: float,
    size_m: tuple[float, float, float],
    base_m: float = 0.0,
    yaw_deg: float | None = None,
) -> Mesh:
    """A box or a column on the floor (`base_m` over it), turned at random; size is x, y, z. Where
    `yaw_deg` is given, it is a box that is turned so."""
    if yaw_deg is None:
        points, faces, uv = _column() if rng.random() < 0.2 else _box()
        angle = rng.uniform(-0.8, 0.8)
    else:
        (points, faces, uv), angle = _box(), math.radians(yaw_deg)
    c, s = math.cos(angle), math.sin(angle)
    world = points * size_m @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    world += (right_m, base_m - stage.height_m, -away_m)
    camera_points = (world @ stage.from_world.T).astype(np.float32)
    texture = draw_texture(rng, draw_colour(rng, 0.55), 0.5)
    return Mesh(
        points=camera_points,
        normals=vertex_normals(camera_points, faces),
        tint=np.ones((len(points), 3), np.float32),
        uv=(uv * rng.uniform(0.5, 3)).astype(np.float32),
        gloss=np.full(len(points), rng.uniform(0, 0.2), np.float32),
        faces=faces,
        two_sided=np.zeros(len(faces), bool),
        texture=np.zeros(len(points), np.int32),
        textures=(texture,),
    )


_Shape = tuple[Float[np.ndarray, "V 3"], Int32[np.ndarray, "F 3"], Float[np.ndarray, "V 2"]]


def _box() -> _Shape:
    """A unit box on the ground; each side has corners of its own, so that edges are sharp."""
    points = _CORNERS[_QUADS].reshape(-1, 3)
    first = np.arange(0, 24, 4)[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    uv = np.tile([[0.0, 0], [1, 0], [1, 1], [0, 1]], (6, 1))
    return points, faces.astype(np.int32), uv


def _column() -> _Shape:
    """A unit cylinder on the ground with a lid."""
    angle = np.linspace(0, 2 * np.pi, _COLUMN_SIDES + 1)
    ring = np.stack([np.cos(angle) / 2, np.zeros_like(angle), np.sin(angle) / 2], axis=1)
    points = np.concatenate([ring, ring + np.eye(3)[1], ring + np.eye(3)[1]])
    k, n = np.arange(_COLUMN_SIDES), _COLUMN_SIDES + 1
    walls = [np.stack([k, k + n, k + 1], axis=1), np.stack([k + 1, k + n, k + n + 1], axis=1)]
    k = k[1:]
    lid = np.stack([np.full_like(k, 2 * n), 2 * n + k + 1, 2 * n + k], axis=1)
    uv = np.stack([np.tile(angle, 3) / np.pi, points[:, 1] * 2], axis=1)
    return points, np.concatenate([*walls, lid]).astype(np.int32), uv


def seat_under(rng: Rng, stage: Stage, pelvis: Float[np.ndarray, "3"]) -> list[Mesh]:
    """A box from the floor to under a sitting person; none where there is no room for one.

    `pelvis` is the joint's place in the camera frame, metres.
    """
    right, height, back = (stage.from_world.T @ pelvis).tolist()
    top = height + stage.height_m - 0.115
    if top < 0.12:
        return []
    size = (rng.uniform(0.35, 0.7), top, rng.uniform(0.3, 0.45))
    return [draw_prop(rng, stage, right, -back, size)]

"""Things that stand about: boxes and columns, before and behind people, and seats under them."""

import numpy as np
from jaxtyping import Float, Int32

from datasets.synthetic.meshes import Mesh, unit_normals
from datasets.synthetic.stage import Stage
from datasets.synthetic.textures import draw_colour, draw_texture

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0, 1) for z in (-0.5, 0.5)])
_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)
_ROUND = 20


def draw_prop(
    rng: np.random.Generator,
    stage: Stage,
    right_m: float,
    away_m: float,
    size_m: tuple[float, float, float],
    base_m: float = 0.0,
) -> Mesh:
    """A box or a column on the floor (`base_m` over it), turned by chance; size is x, y, z."""
    points, faces, uv = _column() if rng.random() < 0.2 else _box()
    angle = rng.uniform(-0.8, 0.8)
    c, s = np.cos(angle), np.sin(angle)
    world = points * size_m
    world = world @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    world += (right_m, base_m - stage.height_m, -away_m)
    camera_points = (world @ stage.from_world.T).astype(np.float32)
    texture = draw_texture(rng, draw_colour(rng, 0.55), 0.5)
    return Mesh(
        points=camera_points,
        normals=unit_normals(camera_points, faces),
        tint=np.ones((len(points), 3), np.float32),
        uv=(uv * rng.uniform(0.5, 3)).astype(np.float32),
        gloss=np.full(len(points), rng.uniform(0, 0.2), np.float32),
        faces=faces,
        two_sided=np.zeros(len(faces), bool),
        texture=np.zeros(len(points), np.int32),
        textures=(texture,),
    )


def _box() -> tuple[
    Float[np.ndarray, "24 3"], Int32[np.ndarray, "12 3"], Float[np.ndarray, "24 2"]
]:
    """A unit box on the ground; each side has corners of its own, so that edges are sharp."""
    points = _CORNERS[_QUADS].reshape(-1, 3)
    first = np.arange(0, 24, 4)[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])]).astype(
        np.int32
    )
    uv = np.tile([[0.0, 0], [1, 0], [1, 1], [0, 1]], (6, 1))
    return points, faces, uv


def _column() -> tuple[
    Float[np.ndarray, "V 3"], Int32[np.ndarray, "F 3"], Float[np.ndarray, "V 2"]
]:
    """A unit cylinder on the ground with a lid."""
    angle = np.linspace(0, 2 * np.pi, _ROUND + 1)
    ring = np.stack([np.cos(angle) / 2, np.zeros_like(angle), np.sin(angle) / 2], axis=1)
    points = np.concatenate([ring, ring + np.eye(3)[1], ring + np.eye(3)[1]])
    k, n = np.arange(_ROUND), _ROUND + 1
    walls = [np.stack([k, k + n, k + 1], axis=1), np.stack([k + 1, k + n, k + n + 1], axis=1)]
    lid = np.stack([np.full(_ROUND - 1, 2 * n), 2 * n + k[1:] + 1, 2 * n + k[1:]], axis=1)
    uv = np.stack([np.tile(angle, 3) / np.pi, points[:, 1] * 2], axis=1)
    return points, np.concatenate([*walls, lid]).astype(np.int32), uv


def seat_under(
    rng: np.random.Generator, stage: Stage, pelvis: Float[np.ndarray, "3"]
) -> Mesh | None:
    """A box from the floor to under a sitting person; None where there is no room for one.

    `pelvis` is the joint's place in the camera frame, metres.
    """
    place = stage.from_world.T @ pelvis
    top = float(place[1]) + stage.height_m - 0.115
    if top < 0.12:
        return None
    size = (rng.uniform(0.35, 0.7), top, rng.uniform(0.3, 0.45))
    return draw_prop(rng, stage, float(place[0]), float(-place[2]), size)

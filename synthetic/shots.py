"""Clips in the hall with a moving camera and three people: one walks, one sits, one climbs steps.

`CAMERAS` gives the camera of every frame. The light of the hall is computed once (`BakedHall`), so
that a frame takes a fraction of a second.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from synthetic.arms import THIGH
from synthetic.clips import Frame, blocks_of, is_seen
from synthetic.demo import draw_actor, film
from synthetic.furniture import ROOM_M, Solid
from synthetic.ground_truth import Row
from synthetic.hall import (
    BRIGHTEST,
    FACE_NORMALS,
    TO_SUN,
    EmptyHall,
    Grid,
    Hall,
    Hits,
    cell_counts,
    cell_points,
    face_points,
    outside,
    pixel_rays,
)
from synthetic.motion import FPS, Motion, Physique, Script
from synthetic.pictures import Studio
from synthetic.rendering import FLIP, Stage, full_camera, visible_surface
from synthetic.skeleton import axis_angle, turn

PEOPLE: Final = 3
"""Number of people in each clip."""
_FOCAL_MM: Final = 29.0
"""Focal length for a frame 36 mm wide, before the zoom."""
_RAYS: Final = 32
"""Rays from each point; a quarter of the demo clip's, for speed."""
_TEXEL_M: Final = 0.02
"""Side of the cells that hold the light of the hall."""
_SUPERSAMPLING: Final = 2
"""The hall is drawn at this multiple of the picture's resolution."""
Rng = np.random.Generator


class Shot(NamedTuple):
    """The camera of each frame.

    Attributes:
        centre: position in the world, metres.
        rotation: from the world's axes to the camera's.
        zoom: factor of the focal length.
        kind: "static", "rotating" or "moving".
    """

    centre: Float[np.ndarray, "T 3"]
    rotation: Float[np.ndarray, "T 3 3"]
    zoom: Float[np.ndarray, " T"]
    kind: str


def camera_rotations(
    yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray
) -> Float[np.ndarray, "T 3 3"]:
    """Rotations from the world's axes to the camera's, from angles in degrees.

    Positive angles turn the camera to the right, down and clockwise. At 0 it looks along -z.
    """
    angles = np.stack([roll, -pitch, -yaw], axis=1)
    turns = Rotation.from_euler("zxy", angles, degrees=True).as_matrix()
    return FLIP @ turns.transpose(0, 2, 1)


def _shake(rng: Rng, count: int, spread: float, frames: float) -> np.ndarray:
    """Smooth noise of standard deviation `spread`, (3, count)."""
    noise = gaussian_filter1d(rng.standard_normal((3, count)), frames, axis=1, mode="nearest")
    return noise * spread / noise.std()


def make_shot(
    kind: str,
    time_s: np.ndarray,
    centre: tuple[ArrayLike, ...] = (0, 1.5, 0),
    yaw: ArrayLike = 0,
    pitch: ArrayLike = 0,
    roll: ArrayLike = 0,
    zoom: ArrayLike = 1,
) -> Shot:
    """A shot from arrays with one value per frame, or constants; angles as `camera_rotations`."""

    def each(value: ArrayLike) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, float), time_s.shape)

    place = np.stack([each(axis) for axis in centre], axis=1)
    return Shot(place, camera_rotations(each(yaw), each(pitch), each(roll)), each(zoom), kind)


def _hand_held(time_s: np.ndarray, rng: Rng) -> Shot:
    yaw, pitch, roll = _shake(rng, len(time_s), 1.5, 5)
    sway = 0.01 * _shake(rng, len(time_s), 1, 20)
    centre = (sway[0], 1.5 + sway[1], sway[2])
    return make_shot("rotating", time_s, centre, yaw, pitch + 3, roll / 2)


def _walk_along(time_s: np.ndarray, rng: Rng) -> Shot:
    yaw, pitch, roll = _shake(rng, len(time_s), 1.0, 6)
    bob = 1.5 + 0.02 * np.sin(2 * np.pi * 1.8 * time_s)
    return make_shot("moving", time_s, (-1.8 + 0.9 * time_s, bob, 0), yaw, pitch + 4, roll / 2)


CAMERAS: Final[dict[str, Callable[[Float[np.ndarray, " T"], Rng], Shot]]] = {
    "static": lambda t, _: make_shot("static", t, pitch=4),
    "pan": lambda t, _: make_shot("rotating", t, yaw=35 * np.sin(2 * np.pi * t / 10), pitch=4),
    "tilt": lambda t, _: make_shot("rotating", t, pitch=5 + 15 * np.sin(2 * np.pi * t / 6)),
    "hand-held": _hand_held,
    "zoom": lambda t, _: make_shot(
        "rotating", t, yaw=8 * np.sin(t), zoom=np.exp(0.3 * np.sin(2 * np.pi * t / 8)), pitch=4
    ),
    "dolly": lambda t, _: make_shot("moving", t, (0, 1.5, 1.3 - 0.5 * t), pitch=4),
    "walk-along": _walk_along,
}
"""Functions from times in seconds to a shot. Only cameras of the kind "moving" change position."""


def draw_shot(
    studio: Studio, rng: Rng, shape: tuple[int, int], frame_count: int, camera: str
) -> Iterator[Frame]:
    """Generate the frames of a clip with a camera of `CAMERAS`, with rows of visible people.

    Rows also contain the camera and the person in the world: y is up, the floor is at y = 0, and
    the first camera is above the origin, with x to its right.

    Args:
        shape: height and width of the pictures.
        camera: a key of `CAMERAS`.
    """
    shot = CAMERAS[camera](np.arange(frame_count) / FPS, rng)
    stages = [
        Stage(_FOCAL_MM * zoom, centre[1], rotation, (centre[0], centre[2]))
        for centre, rotation, zoom in zip(*shot[:3], strict=True)
    ]
    plays = (partial(play, rng) for play in (_walker, _sitter, _climber))
    actors = [
        draw_actor(studio, rng, play, int(seed), frame_count)
        for play, seed in zip(plays, rng.integers(2**31, size=PEOPLE), strict=True)
    ]
    hall = Hall(rng, blocks_of(actors), _RAYS)
    baked = BakedHall(hall, [block.size[1] for block in actors[2].motion.blocks])
    views = (baked.photograph(stage, shape) for stage in stages)
    for stage, frame in zip(stages, film(studio, actors, hall, stages, views), strict=True):
        pose = _world_from_camera(stages[0], stage)
        rows = [
            row | _in_world(row, pose, actors[row["meta.person"]].motion, stages[0])
            for row in frame.rows
            if is_seen(row)
        ]
        yield frame._replace(rows=rows)


def _walker(rng: Rng, physique: Physique) -> Script:
    """Walks from left to right in front of the others, turns, and walks towards the camera."""
    script = Script(physique, -2.1 + rng.uniform(-0.2, 0.2), -4.2, 85.0, -0.4)
    script.walk([(0.6 + rng.uniform(-0.1, 0.1), -3.95)], rng.uniform(1.0, 1.1))
    script.turn_to(-10.0 + rng.uniform(-20, 20), 1.2)
    ahead = script.place + 0.7 * turn("y", script.yaw)[:, 2]
    return script.walk([(ahead[0], ahead[2])])


def _sitter(rng: Rng, physique: Physique) -> Script:
    """Sits down on a chair on the right and gets up."""
    script = Script(physique, 1.25, -5.0, rng.uniform(-35, 0)).wait(rng.uniform(0, 0.2))
    script.arms(THIGH, THIGH, script.time + 0.3, 1.0).sit(0.8, rng.uniform(0.42, 0.5))
    return script.arms(None, None, script.time - 1.2)


def _climber(rng: Rng, physique: Physique) -> Script:
    """Climbs two steps on the left at the back, and turns around."""
    script = Script(physique, -0.1, -6.3, -90.0 + rng.uniform(-5, 5), -0.8)
    script.climb(rng.uniform(0.65, 0.75), rng.uniform(0.15, 0.19), rng.uniform(0.32, 0.36))
    return script.turn_to(rng.uniform(-20, 20))


def _from_hall(first: Stage) -> Float[np.ndarray, "3 3"]:
    """Rotation from the hall's axes to those of the rows' world, whose x is the first camera's
    right, projected to the floor."""
    right = first.from_world[0] * (1, 0, 1)
    right = right / np.linalg.norm(right)
    return np.stack([right, (0, 1, 0), np.cross(right, (0, 1, 0))])


def _world_from_camera(first: Stage, stage: Stage) -> Float[np.ndarray, "4 4"]:
    """Transform (metres) from a stage's camera to the rows' world."""
    pose, rotation = np.eye(4), _from_hall(first)
    pose[:3, :3] = rotation @ stage.from_world.T
    pose[:3, 3] = rotation @ (stage.centre - first.centre * (1, 0, 1))
    return pose


def _in_world(row: Row, pose: Float[np.ndarray, "4 4"], motion: Motion, first: Stage) -> Row:
    """Additional entries of a row: the camera, and the person's root, in the world."""
    pelvis, transl = row["keypoints3d_smplx"][0, :3], row["smplx.transl"]
    rest = pelvis - transl
    orient = axis_angle(_from_hall(first) @ motion.rotations[row["meta.frame_index"], 0])
    return {
        "meta.world_from_camera": pose,
        "meta.world_global_orient": orient.astype(np.float32),
        "meta.world_transl": (pose[:3, :3] @ pelvis + pose[:3, 3] - rest).astype(np.float32),
    }


class BakedHall:
    """The hall with its light stored on small cells of all surfaces (baked lighting)."""

    def __init__(self, hall: Hall, steps_m: Sequence[float]) -> None:
        """`steps_m` are the heights of further surfaces on which people stand, metres."""
        self._in_room = np.array([_faces_in_room(solid) for solid in hall.solids])
        cells = np.array([cell_counts(solid, _TEXEL_M) for solid in hall.solids])
        self._grid = Grid(np.where(self._in_room[..., None], np.maximum(cells, 1), 1))
        light = [_light_of_cells(hall, number, self._grid) for number in range(len(hall.solids))]
        self._light = np.concatenate(light)
        self._points, self._places, self._faces = _quads(hall, self._in_room)
        tops = np.array([solid.middle[1] + solid.half[1] for solid in hall.solids])
        self._ground_m = np.full((len(tops), 6), np.nan)
        self._ground_m[:2, _UP] = 0  # floor and rug
        for height in steps_m:
            self._ground_m[np.isclose(tops, height), _UP] = height

    def photograph(self, stage: Stage, shape: tuple[int, int]) -> EmptyHall:
        """The empty hall seen by a camera; `shape` is (height, width)."""
        height, width = shape
        fine = (_SUPERSAMPLING * height, _SUPERSAMPLING * width)
        camera = full_camera(stage.focal_mm, shape).scaled(_SUPERSAMPLING)
        points = stage.to_camera(self._points).astype(np.float32)
        two_sided = np.zeros(len(self._faces), bool)
        seen = visible_surface(points, self._faces, two_sided, self._places, camera, fine)
        solid, face = np.divmod(np.rint(seen.values[:, 2]).astype(int), 6)
        light = np.zeros((fine[0] * fine[1], 6), np.float32)
        light[seen.pixels] = self._light[self._cells(solid, face, seen.values[:, :2])]
        open_air = np.flatnonzero(~np.isfinite(seen.depth_m.ravel()))
        rows, columns = np.divmod(open_air, fine[1])
        sky = outside(pixel_rays(columns, rows, camera, stage)[0])
        light[open_air, :3] = np.minimum(sky, BRIGHTEST)
        base, sunny = (
            cv2.resize(part.reshape(*fine, 3), (width, height), interpolation=cv2.INTER_AREA)
            for part in (light[:, :3], light[:, 3:])
        )
        ground = np.full(fine, np.nan)
        ground.ravel()[seen.pixels] = self._ground_m[solid, face]
        ground = ground[::_SUPERSAMPLING, ::_SUPERSAMPLING]
        depth_m = seen.depth_m[::_SUPERSAMPLING, ::_SUPERSAMPLING]
        levels = np.unique(ground[np.isfinite(ground)])
        return EmptyHall(base, sunny, depth_m, tuple((float(h), ground == h) for h in levels))

    def _cells(
        self, solid: np.ndarray, face: np.ndarray, places: Float[np.ndarray, "N 2"]
    ) -> np.ndarray:
        """Indices of the cells at `places` (u and v, 0 to 1) on faces of solids."""
        size = self._grid.sizes[solid, face]
        cell = np.clip((places * size).astype(int), 0, size - 1)
        return self._grid.first[solid, face] + cell[:, 0] * size[:, 1] + cell[:, 1]


_UP: Final = 3
"""Index of the upper face."""


def _faces_in_room(solid: Solid) -> np.ndarray:
    """Which of the six faces lie inside the room, (6,)."""
    middles = solid.middle + (FACE_NORMALS * (solid.half + 0.01)) @ solid.rotation.T
    low, high = np.array(ROOM_M).T
    return ((middles > low) & (middles < high)).all(axis=1)


def _light_of_cells(hall: Hall, number: int, grid: Grid) -> Float32[np.ndarray, "C 6"]:
    """RGB that a solid's cells reflect: without the sun, then of the sun."""
    sizes = grid.sizes[number]
    points, _ = cell_points([hall.solids[number]], sizes[None])
    face = np.repeat(np.arange(6), sizes.prod(axis=1))
    hits = Hits(np.zeros(len(face)), np.full(len(face), number), face)
    total, sun = hall.reflected(points, hits, hall.light, TO_SUN, fine=True)
    return np.minimum(np.c_[total - sun, sun], BRIGHTEST).astype(np.float32)


def _quads(
    hall: Hall, inside: np.ndarray
) -> tuple[Float32[np.ndarray, "V 3"], Float32[np.ndarray, "V 3"], Int32[np.ndarray, "F 3"]]:
    """Triangles of the faces in the room: vertices, their (u, v, index of the face), and indices.

    Faces are subdivided, because triangles that reach behind the camera are not drawn.
    """
    points, places, faces, first = [], [], [], 0
    for number, face in np.argwhere(inside).tolist():
        rows, columns = hall.grid.sizes[number, face]
        u, v = np.meshgrid(
            np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij"
        )
        points.append(face_points(hall.solids[number], face, u, v))
        places.append(np.c_[u.ravel(), v.ravel(), np.full(u.size, 6 * number + face)])
        corner = first + np.add.outer(np.arange(rows) * (columns + 1), np.arange(columns)).ravel()
        near, far = (columns + 1, 1) if face % 2 else (1, columns + 1)
        beyond = corner + columns + 2
        faces += [np.c_[corner, corner + near, beyond], np.c_[corner, beyond, corner + far]]
        first += u.size
    return (
        np.concatenate(points).astype(np.float32),
        np.concatenate(places).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
    )

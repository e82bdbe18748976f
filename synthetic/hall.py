"""The light of the furnished room (hall) of the clip in demo/, in daylight.

It is computed once by ray casting: sun and sky enter through the windows, and surfaces reflect
them. Light probes give the light on people.
"""

from collections.abc import Sequence
from itertools import product
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Real

from synthetic.furniture import BACK_M, LEFT_M, RIGHT_M, Solid, furnish
from synthetic.motion import Block
from synthetic.rendering import Image, Stage
from synthetic.skeleton import Vector
from synthetic.textures import Vectors
from utils.camera import Camera

Rng = np.random.Generator
Cells = Float[np.ndarray, "C 3"]
"""RGB light on the cells of a grid over each face of each solid."""
TO_SUN: Final = np.array([-0.78, 0.56, 0.26], np.float32) / np.linalg.norm((-0.78, 0.56, 0.26))
_SUN: Final = np.array([3.4, 3.0, 2.35], np.float32)
_SKY: Final = np.array([5.2, 5.9, 6.6], np.float32)
_LAMP: Final = np.array([0.20, 0.18, 0.16], np.float32)
"""Constant ambient light, as from lamps."""
_SUN_WIDTH: Final = 0.006
_CELL_M: Final = 0.25
BRIGHTEST: Final = 2.4
"""Brighter light is clipped, so that the edges of windows are smooth."""
_SAMPLES: Final = 5
"""Rays per pixel."""
_SMALL_M, _GROUP_M = 0.3, 0.9
_FAR_M: Final = 1e4
_PROBES_M: Final = 0.7
FACE_NORMALS: Final = np.array(
    [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], np.float32
)
"""Normals of a solid's six faces in its own frame."""


class EmptyHall(NamedTuple):
    """A picture of the hall without people, in linear light."""

    base: Image
    """Light other than the sun's."""
    sunny: Image
    """Light of the sun."""
    depth_m: Float32[np.ndarray, "H W"]
    """Depth along the optical axis."""
    grounds: tuple[tuple[float, Bool[np.ndarray, "H W"]], ...]
    """Height above the floor of each surface that people stand on, metres, and the pixels that
    show it."""


class Hits(NamedTuple):
    """Where rays end; the solid is -1 for rays that leave through a window."""

    distance: Float[np.ndarray, " N"]
    solid: Int[np.ndarray, " N"]
    face: Int[np.ndarray, " N"]
    """Index in `FACE_NORMALS`."""


class Group(NamedTuple):
    """Adjacent solids and their bounding sphere."""

    middle: Vector
    radius_m: float
    members: list[tuple[int, Solid]]
    """Solids with their indices."""


def _groups(solids: Sequence[Solid]) -> list[Group]:
    cells: dict[tuple[int, ...], list[tuple[int, Solid]]] = {}
    for number, solid in enumerate(solids):
        small = _radius(solid) < _SMALL_M
        cell = tuple(np.floor(solid.middle / _GROUP_M).astype(int)) if small else (number,)
        cells.setdefault(cell, []).append((number, solid))
    groups = []
    for members in cells.values():
        middle = np.mean([solid.middle for _, solid in members], axis=0)
        radius_m = max(
            float(np.linalg.norm(solid.middle - middle)) + _radius(solid) for _, solid in members
        )
        groups.append(Group(middle.astype(np.float32), radius_m, members))
    return groups


def _radius(solid: Solid) -> float:
    return float(np.linalg.norm(solid.half))


class Grid:
    """Numbering of the cells of a grid over each face of each solid."""

    def __init__(self, sizes: Int[np.ndarray, "S 6 2"]) -> None:
        self.sizes = sizes
        self.first = np.cumsum(np.r_[0, np.prod(sizes, axis=2).ravel()])[:-1].reshape(-1, 6)

    def look_up(
        self,
        solid: Int[np.ndarray, " N"],
        face: Int[np.ndarray, " N"],
        uv: Float[np.ndarray, "N 2"],
        values: Float32[np.ndarray, "C D"],
    ) -> Float32[np.ndarray, "N D"]:
        """Bilinear interpolation of the cells' values; `uv` is 0 to 1 along the face."""
        rows, columns = self.sizes[solid, face].T
        first = self.first[solid, face]
        total = np.zeros((len(uv), values.shape[1]), np.float32)
        x, y = uv[:, 0] * rows - 0.5, uv[:, 1] * columns - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        for dx, dy in product((0, 1), (0, 1)):
            weight = (1 - np.abs(x - x0 - dx)) * (1 - np.abs(y - y0 - dy))
            i = np.clip(x0 + dx, 0, rows - 1).astype(np.int64)
            j = np.clip(y0 + dy, 0, columns - 1).astype(np.int64)
            total += weight[:, None].astype(np.float32) * values[first + i * columns + j]
        return total


def trace(
    origins: Vectors, rays: Vectors, groups: Sequence[Group], longest_m: float = _FAR_M
) -> Hits:
    """The first hit of each ray; `rays` are unit vectors."""
    distance = np.full(len(rays), longest_m, np.float32)
    solid, face = np.full(len(rays), -1), np.zeros(len(rays), np.int64)
    for group in groups:
        # Rays that miss the bounding sphere are skipped.
        to_middle = group.middle - origins
        along = np.einsum("nc,nc->n", to_middle, rays)
        squared = np.einsum("nc,nc->n", to_middle, to_middle) - along * along
        near = np.flatnonzero((squared <= group.radius_m**2) & (along > -group.radius_m))
        for number, member in group.members if len(near) else []:
            start = (origins[near] - member.middle) @ member.rotation
            ray = rays[near] @ member.rotation
            ray = np.where(np.abs(ray) < 1e-7, np.float32(1e-7), ray)
            first, last = (-member.half - start) / ray, (member.half - start) / ray
            low, high = np.minimum(first, last), np.maximum(first, last)
            enter = low.max(axis=1)
            hit = (enter < high.min(axis=1)) & (enter > 1e-4) & (enter < distance[near])
            where, axis = near[hit], low[hit].argmax(axis=1)
            distance[where], solid[where] = enter[hit], number
            face[where] = 2 * axis + (ray[hit][np.arange(len(axis)), axis] < 0)
    return Hits(distance, solid, face)


def _sunlight(
    cosines: Float[np.ndarray, " N"], places: Vectors, to_sun: Vector, blockers: Sequence[Group]
) -> Vectors:
    """Direct sunlight on surfaces.

    Args:
        cosines: of the angles between the normals and the direction to the sun; 0 in shadow.
        places: points a little in front of the surfaces.
    """
    lit = np.flatnonzero(cosines > 0)
    directions = np.broadcast_to(to_sun, places.shape)[lit]
    shaded = trace(places[lit], directions, blockers, 30.0).solid >= 0
    cosines[lit[shaded]] = 0
    return cosines[:, None] * _SUN


def pixel_rays(
    columns: Real[np.ndarray, " N"], rows: Real[np.ndarray, " N"], camera: Camera, stage: Stage
) -> tuple[Vectors, Float[np.ndarray, " N"]]:
    """Directions (unit vectors in the world) to pixels, and distances of points at depth 1."""
    rays = np.c_[(np.c_[columns, rows] - camera.princpt) / camera.focal, np.ones(len(rows))]
    length = np.linalg.norm(rays, axis=1)
    return rays @ stage.from_world / length[:, None], length


class Hall:
    """The room with its light."""

    def __init__(self, rng: Rng, blocks: Sequence[Block], rays: int) -> None:
        """The room with seats and steps; light at each point is the mean over `rays`."""
        self.solids = furnish(rng, blocks)
        self._rays = rays
        self._groups = _groups(self.solids)
        # Small objects receive light but do not reflect it onto others.
        self._large = [
            group
            for group in self._groups
            if group.radius_m >= _SMALL_M and len(group.members) == 1
        ]
        self._rotations = np.array([solid.rotation for solid in self.solids])
        counts = [cell_counts(solid, _CELL_M) for solid in self.solids]
        self.grid = Grid(np.clip(counts, 1, 40))
        self.light = self._surface_light(rng)
        xs = np.arange(LEFT_M + 0.3, RIGHT_M, _PROBES_M)
        self._probe_axes = (xs, np.arange(BACK_M + 0.3, 0, _PROBES_M))
        self._probes = self._probe(rng)

    def _surface_light(self, rng: Rng) -> Cells:
        """Light on the cells of each face, without direct sunlight, after two bounces."""
        points, normals = cell_points(self.solids, self.grid.sizes)
        light = np.tile(_LAMP, (len(points), 1))
        for _ in range(2):
            light = self._blur(self._incoming(rng, points, normals, light))
        return light

    def _blur(self, light: Cells) -> Cells:
        """Blur the cells of each face, to reduce the noise of few rays."""
        for firsts, sizes in zip(self.grid.first, self.grid.sizes, strict=True):
            for first, (rows, columns) in zip(firsts, sizes, strict=True):
                grid = light[first : first + rows * columns].reshape(rows, columns, 3)
                grid[:] = cv2.GaussianBlur(grid, (0, 0), 1.2, borderType=cv2.BORDER_REPLICATE)
        return light

    def _incoming(self, rng: Rng, points: Vectors, normals: Vectors, light: Cells) -> Vectors:
        """Mean light over the hemisphere about each normal, weighted by the cosine."""
        total = np.zeros_like(points)
        for _ in range(self._rays):
            direction = rng.standard_normal(points.shape).astype(np.float32)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            direction += normals * 1.0001
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            total += self.radiance(points, direction, light)
        return total / self._rays + _LAMP

    def radiance(self, points: Vectors, direction: Vectors, light: Cells) -> Vectors:
        """Light that arrives along rays, given the `light` on all cells."""
        hits = trace(points, direction, self._large)
        seen = np.flatnonzero(hits.solid >= 0)
        found = np.empty_like(points)
        found[hits.solid < 0] = _SKY
        found[seen] = self.reflected(
            points[seen] + direction[seen] * hits.distance[seen, None],
            Hits(*(part[seen] for part in hits)), light, TO_SUN, fine=False,
        )[0]  # fmt: skip
        return found

    def reflected(
        self, places: Vectors, hits: Hits, light: Cells, to_sun: Vector, *, fine: bool
    ) -> tuple[Vectors, Vectors]:
        """Light that surfaces reflect: the total, and the direct sunlight in it."""
        face_normals = FACE_NORMALS[hits.face]
        normals = np.einsum("nij,nj->ni", self._rotations[hits.solid], face_normals)
        albedo = np.empty_like(places)
        uv = np.empty((len(places), 2), np.float32)
        for number in np.unique(hits.solid):
            rows, solid = np.flatnonzero(hits.solid == number), self.solids[number]
            local = (places[rows] - solid.middle) @ solid.rotation + solid.half
            albedo[rows] = solid.material(local)
            share = np.clip(local / (2 * solid.half), 0, 1)
            axis = hits.face[rows] // 2
            uv[rows, 0] = share[np.arange(len(rows)), (axis + 1) % 3]
            uv[rows, 1] = share[np.arange(len(rows)), (axis + 2) % 3]
        blockers = self._groups if fine else self._large
        cosines = np.maximum(normals @ to_sun, 0)
        direct = _sunlight(cosines, places + normals * 2e-3, to_sun, blockers)
        diffuse = self.grid.look_up(hits.solid, hits.face, uv, light)
        return albedo * (direct + diffuse), albedo * direct

    def _probe(self, rng: Rng) -> Float[np.ndarray, "X Z 6 3"]:
        """Light from the six axis directions on a grid of points 1.1 m above the floor."""
        xs, zs = self._probe_axes
        places = np.stack(np.meshgrid(xs, [1.1], zs, indexing="ij"), axis=-1).reshape(-1, 3)
        places = places.astype(np.float32)
        sides = [
            self._incoming(rng, places, np.tile(normal, (len(places), 1)), self.light)
            for normal in FACE_NORMALS
        ]
        return np.stack(sides, axis=1).reshape(len(xs), len(zs), 6, 3)

    def light_on(
        self, points: Vectors, normals: Vectors, shaded: Bool[np.ndarray, " N"]
    ) -> tuple[Vectors, Vectors]:
        """Ambient light and sunlight on a person's surface; points and normals in the world.

        `shaded` points are in people's shadow; shadows of furniture are computed here.
        """
        xs, zs = self._probe_axes
        middle = points.mean(axis=0)
        x = float(np.clip((middle[0] - xs[0]) / _PROBES_M, 0, len(xs) - 1.001))
        z = float(np.clip((middle[2] - zs[0]) / _PROBES_M, 0, len(zs) - 1.001))
        i, j, u, v = int(x), int(z), x % 1, z % 1
        near = self._probes[i : i + 2, j : j + 2]
        cube = np.einsum("i,j,ijkc->kc", (1 - u, u), (1 - v, v), near).astype(np.float32)
        light = np.zeros_like(points)
        for axis in range(3):
            part = normals[:, axis : axis + 1]
            light += part**2 * np.where(part > 0, cube[2 * axis + 1], cube[2 * axis])
        cosines = np.where(shaded, 0, np.maximum(normals @ TO_SUN, 0))
        to_sun = TO_SUN.astype(np.float32)
        return light, _sunlight(cosines, points + normals * 0.01, to_sun, self._groups)

    def photograph(
        self, rng: Rng, stage: Stage, camera: Camera, shape: tuple[int, int]
    ) -> EmptyHall:
        """The room without people, whose only ground is the floor."""
        height, width = shape
        base, sunny = np.zeros((2, height * width, 3), np.float32)
        rows, columns = np.divmod(np.arange(height * width), width)
        eye = stage.centre.astype(np.float32)
        for sample in range(_SAMPLES):
            jitter = np.array([(sample + 0.5) / _SAMPLES, (sample * 2 % _SAMPLES + 0.5) / _SAMPLES])
            x, y = jitter - 0.5 if sample else np.zeros(2)
            directions, length = pixel_rays(columns + x, rows + y, camera, stage)
            rays = directions.astype(np.float32)
            origins = np.broadcast_to(eye, rays.shape)
            hits = trace(origins, rays, self._groups)
            out = hits.solid < 0
            to_sun = TO_SUN + rng.normal(0, _SUN_WIDTH, 3).astype(np.float32)
            inside = Hits(hits.distance, np.maximum(hits.solid, 0), hits.face)
            places = origins + rays * hits.distance[:, None]
            total, sun = self.reflected(places, inside, self.light, to_sun, fine=True)
            total[out], sun[out] = outside(rays[out]), 0
            base += np.minimum(total - sun, BRIGHTEST)
            sunny += np.minimum(sun, BRIGHTEST)
            if not sample:
                depth_m = (hits.distance / length).astype(np.float32).reshape(shape)
                floor = ((hits.solid <= 1) & ~out & (hits.face == 3)).reshape(shape)

        def mean(total: Vectors) -> Image:
            return cv2.GaussianBlur((total / _SAMPLES).reshape(*shape, 3), (0, 0), 0.45)

        return EmptyHall(mean(base), mean(sunny), depth_m, ((0.0, floor),))


def outside(rays: Vectors) -> Vectors:
    """Light from outside along unit rays: a bright sky above foliage."""
    rise = rays[:, 1] + 0.03 * np.sin(23 * rays[:, 2]) + 0.02 * np.sin(51 * rays[:, 2] + 1)
    sky = np.clip((rise - 0.02) / 0.08, 0, 1)[:, None]
    leaves, blue = np.array([0.75, 0.95, 0.5]), np.array([1.55, 1.9, 2.2])
    return (leaves + sky * (blue - leaves)).astype(np.float32)


def cell_counts(solid: Solid, cell_m: float) -> Int[np.ndarray, "6 2"]:
    """Number of cells of a given side along both axes of each face."""
    count = np.ceil(2 * solid.half / cell_m).astype(int)
    return np.array([np.roll(count, -(face // 2))[1:] for face in range(6)])


def face_points(
    solid: Solid, face: int, u: np.ndarray, v: np.ndarray, gap_m: float = 0.0
) -> Float[np.ndarray, "N 3"]:
    """Points in the world, `gap_m` in front of a face; `u` and `v` are 0 to 1 along it."""
    axis, sign = face // 2, 1 if face % 2 else -1
    local = np.empty((u.size, 3))
    local[:, axis] = sign * (solid.half[axis] + gap_m)
    for other, along in (((axis + 1) % 3, u), ((axis + 2) % 3, v)):
        local[:, other] = (2 * along.ravel() - 1) * solid.half[other]
    return local @ solid.rotation.T + solid.middle


def cell_points(
    solids: Sequence[Solid], cells: Int[np.ndarray, "S 6 2"]
) -> tuple[Vectors, Vectors]:
    """Centres and normals of all cells."""
    points, normals = [], []
    for solid, sizes in zip(solids, cells, strict=True):
        for face, (rows, columns) in enumerate(sizes):
            u, v = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns,
                               indexing="ij")  # fmt: skip
            points.append(face_points(solid, face, u, v, 0.004))
            normals.append(np.tile(solid.rotation @ FACE_NORMALS[face], (u.size, 1)))
    return np.concatenate(points).astype(np.float32), np.concatenate(normals).astype(np.float32)

"""The furnished room (hall) of the clip in demo/, in daylight.

All objects are boxes with a material. Light is computed once by ray casting: sun and sky enter
through windows on the left, and surfaces reflect them. Light probes give the light on people.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from synthetic.backgrounds import bundled_photographs, read_photograph
from synthetic.motion import Block
from synthetic.rendering import Image, Stage
from synthetic.skeleton import Rotation, Vector, turn
from synthetic.textures import Material, Rays, plain, print_of, rug, wood
from utils.camera import Camera

Rng = np.random.Generator
Cells = Float[np.ndarray, "C 3"]
"""RGB light on the cells of a grid over each face of each solid."""
_LEFT_M, _RIGHT_M, _BACK_M, _FRONT_M, _HIGH_M = -3.7, 4.0, -8.6, 1.6, 3.2
ROOM_M: Final = ((_LEFT_M - 0.3, _RIGHT_M), (0.0, _HIGH_M), (_BACK_M, _FRONT_M))
"""Extent of the room along each axis, with the depth of the windows."""
TO_SUN: Final = np.array([-0.78, 0.56, 0.26], np.float32) / np.linalg.norm((-0.78, 0.56, 0.26))
_SUN: Final = np.array([3.4, 3.0, 2.35], np.float32)
_SKY: Final = np.array([5.2, 5.9, 6.6], np.float32)
_LAMP: Final = np.array([0.20, 0.18, 0.16], np.float32)
"""Constant ambient light, as from lamps."""
_SUN_WIDTH: Final = 0.006
_CELL_M: Final = 0.25
BRIGHTEST: Final = 2.4
"""Brighter light is clipped, so that the edges of windows are smooth."""
_RAYS: Final = 128
_SAMPLES: Final = 5
"""Rays per pixel."""
_SMALL_M, _GROUP_M = 0.3, 0.9
_FAR_M: Final = 1e4
_PROBES_M: Final = 0.7
AXES: Final = (0, 0, 1, 1, 2, 2)
"""Axis of the normal of each of a solid's six faces."""
_PICTURES: Final = (
    ("flower.jpg", -1.75, (1.05, 0.70)), ("rocket.jpg", -0.35, (1.0, 0.67)),
    ("china.jpg", 0.98, (1.05, 0.70)),
)  # fmt: skip
"""File, x and (width, height) of the pictures on the back wall, metres."""


class Solid(NamedTuple):
    """A box in the world, metres."""

    middle: Vector
    half: Float32[np.ndarray, "3"]
    rotation: Float32[np.ndarray, "3 3"]
    material: Material


class Hits(NamedTuple):
    """Where rays end; the solid is -1 for rays that leave through a window."""

    distance: Float[np.ndarray, " N"]
    solid: Int[np.ndarray, " N"]
    face: Int[np.ndarray, " N"]
    """0 to 5: -x, x, -y, y, -z, z in the solid's frame."""


def box(
    middle: Sequence[float] | np.ndarray,
    size: Sequence[float],
    material: Material,
    rotation: Rotation | None = None,
) -> Solid:
    """A box; `middle` is the centre of its lower face, metres."""
    half = np.array(size, np.float32) / 2
    frame = np.eye(3) if rotation is None else rotation
    centre = np.array(middle, np.float32) + (frame @ (0, half[1], 0)).astype(np.float32)
    return Solid(centre.astype(np.float32), half, frame.astype(np.float32), material)


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
        radii = [
            float(np.linalg.norm(solid.middle - middle)) + _radius(solid) for _, solid in members
        ]
        groups.append(Group(middle.astype(np.float32), max(radii), members))
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
        for dx in (0, 1):
            for dy in (0, 1):
                weight = (1 - np.abs(x - x0 - dx)) * (1 - np.abs(y - y0 - dy))
                i = np.clip(x0 + dx, 0, rows - 1).astype(np.int64)
                j = np.clip(y0 + dy, 0, columns - 1).astype(np.int64)
                total += weight[:, None].astype(np.float32) * values[first + i * columns + j]
        return total


def trace(origins: Rays, rays: Rays, groups: Sequence[Group], longest_m: float = _FAR_M) -> Hits:
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


def _normals(hits: Hits, solids: Sequence[Solid]) -> tuple[Rays, Rays]:
    """Normals of the hit faces in the solids' frames and in the world."""
    local = np.zeros((len(hits.solid), 3), np.float32)
    local[np.arange(len(local)), hits.face // 2] = np.where(hits.face % 2, 1, -1)
    rotation = np.array([solid.rotation for solid in solids])[hits.solid]
    return local, np.einsum("nij,nj->ni", rotation, local)


class Hall:
    """The room with its light."""

    def __init__(self, rng: Rng, solids: list[Solid], rays: int | None = None) -> None:
        """Light at each point is the mean over `rays`; None: as many as for the clip in demo/."""
        self.solids = solids
        self._rays = _RAYS if rays is None else rays
        self._groups = _groups(solids)
        # Small objects receive light but do not reflect it onto others.
        self._large = [
            group
            for group in self._groups
            if group.radius_m >= _SMALL_M and len(group.members) == 1
        ]
        counts = [cell_counts(solid, _CELL_M) for solid in self.solids]
        self.grid = Grid(np.clip(counts, 1, 40))
        self.light = self._surface_light(rng)
        xs = np.arange(_LEFT_M + 0.3, _RIGHT_M, _PROBES_M)
        self._probe_axes = (xs, np.arange(_BACK_M + 0.3, 0, _PROBES_M))
        self._probes = self._probe(rng)

    def _surface_light(self, rng: Rng) -> Cells:
        """Light on the cells of each face, without direct sunlight, after two bounces."""
        points, normals = cell_points(self.solids, self.grid.sizes)
        light = np.zeros_like(points)
        light[:] = _LAMP
        for _ in range(2):
            light = self._smoothed(self._incoming(rng, points, normals, light))
        return light

    def _smoothed(self, light: Cells) -> Float32[np.ndarray, "C 3"]:
        """Blur the cells of each face, to reduce the noise of few rays."""
        for firsts, sizes in zip(self.grid.first, self.grid.sizes, strict=True):
            for first, (rows, columns) in zip(firsts, sizes, strict=True):
                grid = light[first : first + rows * columns].reshape(rows, columns, 3)
                grid[:] = cv2.GaussianBlur(grid, (0, 0), 1.2, borderType=cv2.BORDER_REPLICATE)
        return light

    def _incoming(self, rng: Rng, points: Rays, normals: Rays, light: Cells) -> Rays:
        """Mean light over the hemisphere about each normal, weighted by the cosine."""
        total = np.zeros_like(points)
        for _ in range(self._rays):
            direction = rng.standard_normal(points.shape).astype(np.float32)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            direction += normals * 1.0001
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            total += self.radiance(points, direction, light)
        return total / self._rays + _LAMP

    def radiance(self, points: Rays, direction: Rays, light: Cells) -> Rays:
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
        self, places: Rays, hits: Hits, light: Cells, to_sun: Vector, *, fine: bool
    ) -> tuple[Rays, Rays]:
        """Light that surfaces reflect: the total, and the direct sunlight in it."""
        face_normals, normals = _normals(hits, self.solids)
        albedo = np.empty_like(places)
        uv = np.empty((len(places), 2), np.float32)
        for number in np.unique(hits.solid):
            rows, solid = np.flatnonzero(hits.solid == number), self.solids[number]
            local = (places[rows] - solid.middle) @ solid.rotation + solid.half
            albedo[rows] = solid.material(local, face_normals[rows])
            share = np.clip(local / (2 * solid.half), 0, 1)
            axis = hits.face[rows] // 2
            uv[rows, 0] = share[np.arange(len(rows)), (axis + 1) % 3]
            uv[rows, 1] = share[np.arange(len(rows)), (axis + 2) % 3]
        sun = np.maximum(normals @ to_sun, 0)
        lit = np.flatnonzero(sun > 0)
        directions = np.broadcast_to(to_sun, places.shape)[lit]
        blockers = self._groups if fine else self._large
        shaded = trace(places[lit] + normals[lit] * 2e-3, directions, blockers, 30.0).solid >= 0
        sun[lit[shaded]] = 0
        direct = sun[:, None] * _SUN
        diffuse = self.grid.look_up(hits.solid, hits.face, uv, light)
        return albedo * (direct + diffuse), albedo * direct

    def _probe(self, rng: Rng) -> Float[np.ndarray, "X Z 6 3"]:
        """Light from the six axis directions on a grid of points 1.1 m above the floor."""
        xs, zs = self._probe_axes
        places = np.stack(np.meshgrid(xs, [1.1], zs, indexing="ij"), axis=-1).reshape(-1, 3)
        sides = []
        for axis in range(3):
            for sign in (-1, 1):
                normals = np.zeros_like(places, np.float32)
                normals[:, axis] = sign
                sides.append(self._incoming(rng, places.astype(np.float32), normals, self.light))
        return np.stack(sides, axis=1).reshape(len(xs), len(zs), 6, 3)

    def light_on(
        self, points: Rays, normals: Rays, shaded: Bool[np.ndarray, " N"]
    ) -> tuple[Rays, Rays]:
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
        sun = np.maximum(normals @ TO_SUN, 0)
        sun[shaded] = 0
        lit = np.flatnonzero(sun > 0)
        directions = np.broadcast_to(TO_SUN, (len(lit), 3)).astype(np.float32)
        hidden = trace(points[lit] + normals[lit] * 0.01, directions, self._groups, 30.0).solid >= 0
        sun[lit[hidden]] = 0
        return light, sun[:, None] * _SUN

    def photograph(
        self, rng: Rng, stage: Stage, camera: Camera, shape: tuple[int, int]
    ) -> tuple[Image, Image, Float32[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
        """The room without people: light other than the sun's, the sun's, depth, floor mask."""
        height, width = shape
        base, sunny = np.zeros((2, height * width, 3), np.float32)
        rows, columns = np.divmod(np.arange(height * width), width)
        eye = stage.centre.astype(np.float32)
        for sample in range(_SAMPLES):
            jitter = np.array([(sample + 0.5) / _SAMPLES, (sample * 2 % _SAMPLES + 0.5) / _SAMPLES])
            jitter = jitter - 0.5 if sample else np.zeros(2)
            (fx, fy), (cx, cy) = camera
            direction = np.stack([(columns + jitter[0] - cx) / fx, (rows + jitter[1] - cy) / fy,
                            np.ones(len(rows))], axis=1)  # fmt: skip
            rays = (
                direction @ stage.from_world / np.linalg.norm(direction, axis=1)[:, None]
            ).astype(np.float32)
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
                depth = (hits.distance / np.linalg.norm(direction, axis=1)).astype(np.float32)
                floor = (hits.solid <= 1) & ~out & (hits.face == 3)
        images = (cv2.GaussianBlur((part / _SAMPLES).reshape(*shape, 3), (0, 0), 0.45)
                  for part in (base, sunny))  # fmt: skip
        return *images, depth.reshape(shape), floor.reshape(shape)


def outside(rays: Rays) -> Rays:
    """Light from outside along unit rays: a bright sky above foliage."""
    rise = rays[:, 1] + 0.03 * np.sin(23 * rays[:, 2]) + 0.02 * np.sin(51 * rays[:, 2] + 1)
    sky = np.clip((rise - 0.02) / 0.08, 0, 1)[:, None]
    leaves, blue = np.array([0.75, 0.95, 0.5]), np.array([1.55, 1.9, 2.2])
    return (leaves + sky * (blue - leaves)).astype(np.float32)


def cell_counts(solid: Solid, cell_m: float) -> Int[np.ndarray, "6 2"]:
    """Number of cells of a given side along both axes of each face."""
    count = np.ceil(2 * solid.half / cell_m).astype(int)
    return np.array([np.roll(count, -axis)[1:] for axis in AXES])


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


def cell_points(solids: Sequence[Solid], cells: Int[np.ndarray, "S 6 2"]) -> tuple[Rays, Rays]:
    """Centres and normals of all cells."""
    points, normals = [], []
    for solid, sizes in zip(solids, cells, strict=True):
        for face, (rows, columns) in enumerate(sizes):
            u, v = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns,
                               indexing="ij")  # fmt: skip
            normal = np.zeros(3)
            normal[face // 2] = 1 if face % 2 else -1
            points.append(face_points(solid, face, u, v, 0.004))
            normals.append(np.tile(solid.rotation @ normal, (u.size, 1)))
    return np.concatenate(points).astype(np.float32), np.concatenate(normals).astype(np.float32)


def furnish(rng: Rng, blocks: Sequence[Block]) -> list[Solid]:
    """Floor, walls with windows on the left, and furniture."""
    width, depth = _RIGHT_M - _LEFT_M, _FRONT_M - _BACK_M
    x, z = (_LEFT_M + _RIGHT_M) / 2, (_FRONT_M + _BACK_M) / 2
    white, cream = plain(0.80, 0.79, 0.76), plain(0.78, 0.73, 0.64)
    green, dark = plain(0.36, 0.44, 0.38), plain(0.09, 0.08, 0.08)
    oak = wood(0.75, 0.09)
    solids = [
        box((x, -0.2, z), (width, 0.2, depth), wood(1.0, 0.15, across=True)),
        box((0.2, 0.0, -4.6), (3.4, 0.012, 2.3), rug),
        box((x, _HIGH_M, z), (width, 0.2, depth), white),
        box((x, 0, _BACK_M - 0.1), (width, _HIGH_M, 0.2), green),
        box((x, 0, _FRONT_M + 0.1), (width, _HIGH_M, 0.2), cream),
        box((_RIGHT_M + 0.1, 0, z), (0.2, _HIGH_M, depth), cream),
        box((x, 0, _BACK_M + 0.01), (width, 0.12, 0.03), white),
        box((_RIGHT_M - 0.01, 0, z), (0.03, 0.12, depth), white),
        box((_LEFT_M - 0.15, 0, z), (0.3, 0.55, depth), cream),
        box((_LEFT_M - 0.15, 2.75, z), (0.3, 0.45, depth), cream),
    ]
    solids += _windows(white, cream)
    solids += _hung_pictures(dark)
    # An entrance, a bookcase, a low cupboard with a plant, and a table in front of them.
    solids.append(box((2.25, 0, _BACK_M + 0.03), (1.06, 2.16, 0.06), white))
    solids.append(box((2.25, 0, _BACK_M + 0.05), (0.90, 2.06, 0.06), wood(0.95, 0.45)))
    solids.append(box((2.60, 1.0, _BACK_M + 0.12), (0.12, 0.02, 0.05), dark))
    solids += _bookcase(rng, oak)
    solids.append(box((-2.9, 0, _BACK_M + 0.3), (0.9, 0.72, 0.45), oak))
    solids += _plant(rng, (-2.95, 0.72, _BACK_M + 0.3), 0.8)
    solids += _plant(rng, (2.15, 0.0, -4.75), 1.2)
    for block in blocks:
        under = (block.middle[0], 0, block.middle[1])
        step = box(under, block.size, wood(0.9, 0.12), turn("y", block.yaw_deg))
        solids += _chair(block) if block.is_seat else [step]
    solids += _table((2.15, 0, -2.6), oak, dark)
    return solids


def _windows(frame: Material, wall: Material) -> list[Solid]:
    solids = []
    pane, pier = 1.75, 0.45
    for number in range(5):
        at = _BACK_M + 0.25 + number * (pane + pier)
        solids.append(box((_LEFT_M - 0.15, 0.55, at), (0.3, 2.2, pier + 0.1), wall))
        if number < 4:
            middle = at + (pane + pier) / 2
            for share in (-0.5, 0.0, 0.5):
                solids.append(box((_LEFT_M - 0.2, 0.55, middle + share * (pane - 0.1)),
                                  (0.06, 2.2, 0.05), frame))  # fmt: skip
            solids.append(box((_LEFT_M - 0.2, 1.95, middle), (0.06, 0.05, pane), frame))
            solids.append(box((_LEFT_M + 0.02, 0.53, middle), (0.3, 0.04, pane + 0.1), frame))
    return solids


def _hung_pictures(frame: Material) -> list[Solid]:
    solids = []
    photographs = {path.name: path for path in bundled_photographs()}
    for name, at, size in _PICTURES:
        photograph = read_photograph(photographs[name])
        assert photograph is not None
        low = 1.66 - size[1] / 2
        edge = (size[0] + 0.16, size[1] + 0.16, 0.04)
        solids.append(box((at, low - 0.08, _BACK_M + 0.02), edge, frame))
        solids.append(box((at, low, _BACK_M + 0.04), (*size, 0.02), print_of(photograph, size)))
    return solids


def _bookcase(rng: Rng, oak: Material) -> list[Solid]:
    solids = []
    case = _RIGHT_M - 0.17
    for at in (-7.4, -5.4):
        solids.append(box((case, 0, at), (0.34, 2.05, 0.03), oak))
    for level in range(6):
        solids.append(box((case, 0.05 + 0.39 * level, -6.4), (0.34, 0.03, 2.0), oak))
        along = -7.35
        while level < 5 and along < -5.5:
            thick, tall = rng.uniform(0.03, 0.075), rng.uniform(0.2, 0.32)
            if rng.random() < 0.82:
                colour = plain(*rng.uniform(0.08, 0.6, 3) * (1.0, 0.85, 0.75))
                book = (rng.uniform(0.18, 0.24), tall, 1.8 * thick)
                middle = (case + 0.03, 0.08 + 0.39 * level, along + 0.9 * thick)
                solids.append(box(middle, book, colour))
            along += 1.8 * thick + 0.003
    return solids


def _plant(rng: Rng, where: tuple[float, float, float], size: float) -> list[Solid]:
    x, y, z = where
    pot = 0.28 * size
    solids = [box(where, (pot, pot, pot), plain(0.62, 0.36, 0.26), turn("y", 20))]
    for number in range(34):
        frame = turn("y", number * 137.5) @ turn("x", rng.uniform(5, 65))
        length, place = size * rng.uniform(0.2, 0.3), np.array([x, y + pot, z])
        green = plain(*(np.array([0.10, 0.25, 0.07]) * rng.uniform(0.5, 1.5)))
        for width in (0.012, 0.05, 0.055, 0.035):
            solids.append(box(place, (width * size, length, 0.005), green, frame))
            place = place + frame[:, 1] * length
            frame, length = frame @ turn("x", rng.uniform(8, 24)), length * 0.8
    return solids


def _chair(block: Block) -> list[Solid]:
    """A wooden chair whose seat is the block."""
    rotation = turn("y", block.yaw_deg)
    middle, (width, high, deep) = np.array([block.middle[0], 0, block.middle[1]]), block.size
    made, cloth = wood(0.6, 0.3), plain(0.16, 0.25, 0.36)
    parts: list[tuple[tuple[float, float, float], tuple[float, float, float], Material]]
    parts = [((0, high - 0.05, 0), (width, 0.05, deep), cloth)]
    parts += [
        ((0, high + 0.2 + 0.16 * k, -deep / 2 + 0.02), (width, 0.09, 0.02), made) for k in range(2)
    ]
    for side in (-1, 1):
        x = side * (width / 2 - 0.025)
        parts.append(((x, 0, -deep / 2 + 0.02), (0.04, high + 0.46, 0.04), made))
        parts.append(((x, 0, deep / 2 - 0.04), (0.04, high - 0.05, 0.04), made))
    return [box(middle + rotation @ at, size, material, rotation) for at, size, material in parts]


def _table(where: tuple[float, float, float], top: Material, leg: Material) -> list[Solid]:
    x, y, z = where
    solids = [box((x, 0.70, z), (1.5, 0.04, 0.7), top)]
    solids += [box((x + 0.68 * a, y, z + 0.29 * b), (0.05, 0.7, 0.05), leg)
               for a in (-1, 1) for b in (-1, 1)]  # fmt: skip
    return [
        *solids,
        box((x - 0.35, 0.74, z + 0.05), (0.24, 0.03, 0.32), plain(0.55, 0.20, 0.16), turn("y", 25)),
        box((x - 0.33, 0.77, z + 0.05), (0.2, 0.025, 0.28), plain(0.15, 0.28, 0.36), turn("y", 12)),
        box((x + 0.12, 0.74, z + 0.1), (0.075, 0.1, 0.075), plain(0.82, 0.80, 0.76), turn("y", 40)),
    ]

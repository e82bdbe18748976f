"""Simplifies a closed triangle mesh by half-edge collapses, mirrored pairs in one step.

A vertex is only ever merged into a neighbour that stays where it is, so every kept vertex is an
original one and keeps its morph targets, weights and texture coordinates.
Cost: quadric error (Garland and Heckbert, 1997) plus small terms for shape and length.
Quads are split into triangles first, mirror-symmetrically too.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Point = tuple[float, float, float]
Triangle = tuple[int, int, int]
# Upper triangle of the symmetric 4x4 matrix of a plane (or of a sum of planes).
Quadric = tuple[float, ...]

_MAX_VALENCE: Final = 10
_FLATTEST_TURN: Final = 0.35  # cosine between a triangle's normals before and after
_WORST_SLENDERNESS: Final = 12.0  # longest edge squared over twice the area
_SLENDERNESS_GROWTH: Final = 1.2  # a triangle that is worse already may worsen this much
_SLENDERNESS_COST: Final = 1e-9
_SLENDERNESS_COST_LIMIT: Final = 50.0
_LENGTH_COST: Final = 2e-4
_LEAST_COST: Final = 1e-13


def split_quads(
    vertices: Float64[np.ndarray, "V 3"],
    quads: Int64[np.ndarray, "Q 4"],
    mirror: Int64[np.ndarray, " V"],
) -> tuple[Int64[np.ndarray, "T 3"], Int64[np.ndarray, " T"]]:
    """Split every quad along its better diagonal; mirrored quads get the mirrored diagonal.

    Returns the triangles and the quad that each comes from.
    """
    triangles = []
    diagonals: dict[frozenset[int], frozenset[int]] = {}
    for quad in quads.tolist():
        a, b, c, d = quad
        first, second = [(a, b, c), (a, c, d)], [(b, c, d), (b, d, a)]
        twin = diagonals.get(frozenset(mirror[quad].tolist()))
        if twin is not None:
            take_first = frozenset(mirror[[a, c]].tolist()) == twin
        else:
            worst_first, worst_second = (
                min(_roundness(vertices[list(triangle)]) for triangle in pair)
                for pair in (first, second)
            )
            take_first = worst_first >= worst_second
        diagonals[frozenset(quad)] = frozenset((a, c) if take_first else (b, d))
        triangles += first if take_first else second
    return np.array(triangles), np.repeat(np.arange(len(quads)), 2)


def _roundness(corners: Float64[np.ndarray, "3 3"]) -> float:
    """Twice the area over the longest edge squared."""
    edges = np.roll(corners, -1, axis=0) - corners
    area = np.linalg.norm(np.cross(edges[0], edges[1]))
    return float(area / max((edges**2).sum(axis=1).max(), 1e-15))


class CollapsibleMesh:
    """A triangle mesh that shrinks; `positions` may hold vertices that no triangle uses."""

    def __init__(
        self, positions: Float64[np.ndarray, "V 3"], faces: Int64[np.ndarray, "F 3"]
    ) -> None:
        self._positions: list[Point] = [(x, y, z) for x, y, z in positions.tolist()]
        self.triangles: dict[int, Triangle] = {
            i: (a, b, c) for i, (a, b, c) in enumerate(faces.tolist())
        }
        self._around: dict[int, set[int]] = defaultdict(set)
        for i, triangle in self.triangles.items():
            for vertex in triangle:
                self._around[vertex].add(i)
        self._quadrics = {
            vertex: self._sum(_plane_quadric(*self._corners(self.triangles[i])) for i in triangles)
            for vertex, triangles in self._around.items()
        }

    def __contains__(self, vertex: int) -> bool:
        return vertex in self._around

    @property
    def vertices(self) -> list[int]:
        return list(self._around)

    @staticmethod
    def _sum(quadrics: Iterable[Quadric]) -> Quadric:
        return tuple(map(sum, zip(*quadrics, strict=True)))

    def _corners(self, triangle: Sequence[int]) -> tuple[Point, Point, Point]:
        a, b, c = triangle
        return self._positions[a], self._positions[b], self._positions[c]

    def _merged(self, triangle: Triangle, removed: int, kept: int) -> Triangle:
        a, b, c = (kept if vertex == removed else vertex for vertex in triangle)
        return a, b, c

    def _moved(self, removed: int, kept: int) -> list[tuple[Triangle, Triangle]]:
        """Triangles that a collapse would move: before and after."""
        triangles = [self.triangles[i] for i in self._around[removed]]
        return [(t, self._merged(t, removed, kept)) for t in triangles if kept not in t]

    def neighbours(self, vertex: int) -> set[int]:
        found = {other for i in self._around[vertex] for other in self.triangles[i]}
        found.discard(vertex)
        return found

    def cost(self, removed: int, kept: int) -> float:
        quadric = self._sum((self._quadrics[removed], self._quadrics[kept]))
        slenderness = longest = 0.0
        for _, after in self._moved(removed, kept):
            corners = self._corners(after)
            normal = _normal(*corners)
            edge = _longest_edge_squared(*corners)
            slenderness = max(slenderness, edge / (math.sqrt(_dot(normal, normal)) + 1e-12))
            longest = max(longest, edge)
        way = _minus(self._positions[removed], self._positions[kept])
        return (
            _quadric_error(quadric, self._positions[kept])
            + _SLENDERNESS_COST * min(slenderness, _SLENDERNESS_COST_LIMIT)
            + _LENGTH_COST * longest * _dot(way, way)
            + _LEAST_COST
        )

    def joins_cleanly(self, removed: int, kept: int) -> bool:
        """The link condition: the mesh stays closed and without doubled triangles."""
        near = self.neighbours(removed)
        return kept in near and len(near & self.neighbours(kept)) == 2

    def can_collapse(self, removed: int, kept: int, max_valence: int = _MAX_VALENCE) -> bool:
        """Whether a collapse keeps the mesh closed, no vertex crowded, no triangle turned over."""
        if not self.joins_cleanly(removed, kept):
            return False
        if len(self.neighbours(removed) | self.neighbours(kept)) - 2 > max_valence:
            return False
        return all(self._stays_sound(*pair) for pair in self._moved(removed, kept))

    def _stays_sound(self, before: Triangle, after: Triangle) -> bool:
        old, new = self._corners(before), self._corners(after)
        old_normal, new_normal = _normal(*old), _normal(*new)
        old_size, new_size = (math.sqrt(_dot(n, n)) for n in (old_normal, new_normal))
        if new_size < 1e-12:
            return False
        if _dot(old_normal, new_normal) < _FLATTEST_TURN * old_size * new_size:
            return False
        was = _longest_edge_squared(*old) / max(old_size, 1e-12)
        becomes = _longest_edge_squared(*new) / new_size
        return becomes <= max(_WORST_SLENDERNESS, _SLENDERNESS_GROWTH * was)

    def collapse(self, removed: int, kept: int) -> "_Before":
        """Merge `removed` into `kept`; returns what `undo` needs."""
        around = list(self._around[removed])
        before = _Before(
            {i: self.triangles[i] for i in around},
            {vertex: self._quadrics[vertex] for vertex in (removed, kept)},
        )
        for i in around:
            triangle = self.triangles.pop(i)
            for vertex in triangle:
                self._around[vertex].discard(i)
            if kept not in triangle:
                self._insert(i, self._merged(triangle, removed, kept))
        self._quadrics[kept] = self._sum((self._quadrics[removed], self._quadrics[kept]))
        del self._around[removed], self._quadrics[removed]
        return before

    def undo(self, before: "_Before") -> None:
        for i, triangle in before.triangles.items():
            for vertex in self.triangles.pop(i, ()):
                self._around[vertex].discard(i)
            self._insert(i, triangle)
        self._quadrics |= before.quadrics

    def _insert(self, i: int, triangle: Triangle) -> None:
        self.triangles[i] = triangle
        for vertex in triangle:
            self._around[vertex].add(i)


class _Before(NamedTuple):
    triangles: dict[int, Triangle]
    quadrics: dict[int, Quadric]


def _minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _normal(a: Point, b: Point, c: Point) -> Point:
    """Normal of a triangle, twice its area long."""
    (ux, uy, uz), (vx, vy, vz) = _minus(b, a), _minus(c, a)
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


def _longest_edge_squared(a: Point, b: Point, c: Point) -> float:
    edges = (_minus(b, a), _minus(c, b), _minus(a, c))
    return max(_dot(edge, edge) for edge in edges)


def _plane_quadric(a: Point, b: Point, c: Point) -> Quadric:
    normal = _normal(a, b, c)
    length = math.sqrt(_dot(normal, normal))
    if length < 1e-14:
        return (0.0,) * 10
    x, y, z = (value / length for value in normal)
    plane = (x, y, z, -_dot((x, y, z), a))
    return tuple(plane[i] * plane[j] * length * 0.5 for i in range(4) for j in range(i, 4))


def _quadric_error(quadric: Quadric, point: Point) -> float:
    x, y, z = point
    xx, xy, xz, x1, yy, yz, y1, zz, z1, one = quadric
    squares = xx * x * x + yy * y * y + zz * z * z + one
    return squares + 2 * (xy * x * y + xz * x * z + yz * y * z + x1 * x + y1 * y + z1 * z)


@dataclass(frozen=True)
class CollapseRules:
    """What may merge with what.

    mirror: every vertex's mirror image, here called its twin;
    region: of every vertex, collapses stay inside one;
    charts: texture charts that meet at a vertex, seams must not be crossed;
    targets: how many vertices to leave in a region (regions not named stay untouched).
    """

    mirror: Sequence[int]
    region: Sequence[str]
    targets: Mapping[str, int]
    charts: Mapping[int, set[int]] = field(default_factory=dict)
    protected: Collection[int] = ()

    def allow(self, removed: int, kept: int, count: Counter[str]) -> bool:
        region = self.region[removed]
        twin = self.mirror[removed]
        return (
            region == self.region[kept]
            and count[region] > self.targets.get(region, math.inf)
            and removed not in self.protected
            and twin not in self.protected
            and self.charts.get(removed, set()) <= self.charts.get(kept, set())
            and (twin != removed or self.mirror[kept] == kept)
            and kept != twin
        )

    def overshoots(self, removed: int, count: Counter[str]) -> bool:
        """Whether removing a vertex and its twin would leave their common region one short."""
        region, twin = self.region[removed], self.mirror[removed]
        common = twin != removed and self.region[twin] == region
        return common and count[region] - 2 < self.targets[region]


def decimate(mesh: CollapsibleMesh, rules: CollapseRules) -> Counter[str]:
    """Collapse edges, cheapest first, until every region has its target; the counts reached."""
    count = Counter(rules.region[vertex] for vertex in mesh.vertices)
    version: Counter[int] = Counter()  # of a vertex's surroundings: older queue entries are void
    queue: list[tuple[float, int, int, int, int]] = []

    def offer(removed: int, kept: int) -> None:
        if rules.allow(removed, kept, count):
            entry = (mesh.cost(removed, kept), removed, kept, version[removed], version[kept])
            heapq.heappush(queue, entry)

    for vertex in mesh.vertices:
        for other in mesh.neighbours(vertex):
            offer(vertex, other)
    while queue:
        _, removed, kept, *versions = heapq.heappop(queue)
        if (
            removed not in mesh
            or kept not in mesh
            or versions != [version[removed], version[kept]]
            or not rules.allow(removed, kept, count)
            or rules.overshoots(removed, count)
        ):
            continue
        pairs = sorted({(removed, kept), (rules.mirror[removed], rules.mirror[kept])})
        touched = _collapse_together(mesh, pairs)
        if touched is None:
            continue
        count.subtract(rules.region[gone] for gone, _ in pairs)
        touched = {vertex for vertex in touched if vertex in mesh}
        version.update(touched)
        for vertex in touched:
            for other in mesh.neighbours(vertex):
                offer(vertex, other)
                if other not in touched:
                    offer(other, vertex)
    return count


def _collapse_together(mesh: CollapsibleMesh, pairs: Sequence[tuple[int, int]]) -> set[int] | None:
    """Collapse one edge, or an edge and its twin; the vertices around, or None if impossible."""
    gone = [removed for removed, _ in pairs]
    if any(vertex not in mesh for pair in pairs for vertex in pair):
        return None
    if len(gone) == 2 and gone[0] in mesh.neighbours(gone[1]):
        return None
    touched: set[int] = set()
    done: list[_Before] = []
    for removed, kept in pairs:
        if not mesh.can_collapse(removed, kept):
            for before in reversed(done):
                mesh.undo(before)
            return None
        touched |= mesh.neighbours(removed) | mesh.neighbours(kept)
        done.append(mesh.collapse(removed, kept))
    return touched

"""Quads to triangles, mirror-symmetrically, and the texture charts they lie in."""

from collections import defaultdict

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph

from human_models.open_body.assets import BaseMesh


def _roundness(corners: Float64[np.ndarray, "3 3"]) -> float:
    """Twice the area over the longest edge squared."""
    edges = np.roll(corners, -1, axis=0) - corners
    area = np.linalg.norm(np.cross(edges[0], edges[1]))
    return float(area / max((edges**2).sum(axis=1).max(), 1e-15))


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


def texture_charts(mesh: BaseMesh, uv_quads: Int64[np.ndarray, "Q 4"]) -> Int64[np.ndarray, " U"]:
    """Number of the connected patch of the texture that every uv corner lies in."""
    ones = np.ones(uv_quads.size)
    edges = (uv_quads.ravel(), np.roll(uv_quads, 1, axis=1).ravel())
    graph = sparse.coo_matrix((ones, edges), shape=(len(mesh.uv),) * 2)
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def uv_of_vertices(
    quads: Int64[np.ndarray, "Q 4"],
    uv_quads: Int64[np.ndarray, "Q 4"],
    charts: Int64[np.ndarray, " U"],
) -> dict[int, dict[int, int]]:
    """{vertex: {chart: uv corner}}; a vertex on a seam lies in several charts."""
    corners: dict[int, dict[int, int]] = defaultdict(dict)
    pairs = zip(quads.ravel().tolist(), uv_quads.ravel().tolist(), strict=True)
    for vertex, corner in pairs:
        corners[vertex].setdefault(int(charts[corner]), corner)
    return dict(corners)

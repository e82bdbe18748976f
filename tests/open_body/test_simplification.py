"""Quads split symmetrically; collapses keep a mesh closed, mirrored and of its own vertices."""

from collections import Counter

import numpy as np
import pytest

from open_body.simplification import CollapseRules, CollapsibleMesh, decimate, split_quads


def test_quads_split_symmetrically():
    left = np.array([[0.5, 0, 0], [1.5, 0, 0], [1.5, 1, 0.3], [0.5, 1, 0]])
    vertices = np.concatenate([left, left * [-1, 1, 1]])
    quads, mirror = np.array([[0, 1, 2, 3], [7, 6, 5, 4]]), np.array([4, 5, 6, 7, 0, 1, 2, 3])
    triangles, source = split_quads(vertices, quads, mirror)
    assert source.tolist() == [0, 0, 1, 1]
    halves = [{frozenset(t) for t in triangles[source == k].tolist()} for k in (0, 1)]
    assert {frozenset(mirror[list(t)].tolist()) for t in halves[0]} == halves[1]


def subdivided(
    vertices: list[tuple[float, ...]], faces: list[tuple[int, int, int]]
) -> tuple[list[tuple[float, ...]], list[tuple[int, int, int]]]:
    """Every triangle cut into four, new vertices pushed out onto the unit sphere."""
    vertices, finer = list(vertices), []
    middles: dict[frozenset[int], int] = {}

    def middle(a: int, b: int) -> int:
        if frozenset((a, b)) not in middles:
            point = np.add(vertices[a], vertices[b])
            vertices.append(tuple(point / np.linalg.norm(point)))
            middles[frozenset((a, b))] = len(vertices) - 1
        return middles[frozenset((a, b))]

    for a, b, c in faces:
        ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
        finer += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return vertices, finer


@pytest.fixture
def ball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A symmetric ellipsoid of 258 vertices: vertices, faces, mirror."""
    corners = [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0)]
    corners += [(0.0, 0.0, 1.0), (0.0, 0.0, -1.0)]
    right, left = [(0, 2, 4), (3, 0, 4), (2, 0, 5), (0, 3, 5)], [(2, 1, 4), (1, 3, 4)]
    vertices, faces = corners, [*right, *left, (1, 2, 5), (3, 1, 5)]
    for _ in range(3):
        vertices, faces = subdivided(vertices, faces)
    points = np.array(vertices)
    distances = np.linalg.norm(points[:, None] - points * [-1, 1, 1], axis=-1)
    return points * [0.1, 0.2, 0.15], np.array(faces), distances.argmin(axis=1)


def half(vertices: np.ndarray) -> list[str]:
    return np.where(vertices[:, 1] > 1e-9, "upper", "lower").tolist()


def faces_of(mesh: CollapsibleMesh) -> np.ndarray:
    return np.array(list(mesh.triangles.values()))


def assert_closed(faces: np.ndarray) -> None:
    edges = {edge for a, b, c in faces.tolist() for edge in ((a, b), (b, c), (c, a))}
    assert len(edges) == 3 * len(faces)
    assert edges == {(b, a) for a, b in edges}


def test_regions_shrink_to_their_targets_and_others_stay(ball):
    vertices, faces, mirror = ball
    regions = half(vertices)
    mesh = CollapsibleMesh(vertices, faces)
    rules = CollapseRules(mirror.tolist(), regions, {"upper": 60})
    count = decimate(mesh, rules)
    assert count == {"upper": 60, "lower": regions.count("lower")}
    assert sum(regions[vertex] == "lower" for vertex in mesh.vertices) == regions.count("lower")
    assert_closed(faces_of(mesh))
    faces_left = {frozenset(face) for face in faces_of(mesh).tolist()}
    assert {frozenset(face) for face in mirror[faces_of(mesh)].tolist()} == faces_left


def test_shape_survives(ball):
    vertices, faces, mirror = ball
    mesh = CollapsibleMesh(vertices, faces)
    decimate(mesh, CollapseRules(mirror.tolist(), half(vertices), {"upper": 70, "lower": 70}))
    corners = vertices[faces_of(mesh)]
    a, b, c = np.moveaxis(corners, 1, 0)
    whole = 4 / 3 * np.pi * 0.1 * 0.2 * 0.15
    assert (a * np.cross(b, c)).sum() / 6 == pytest.approx(whole, rel=0.08)
    # Every corner is a vertex of the ellipsoid, every face looks outwards.
    assert ((a + b + c) * np.cross(b - a, c - a)).sum(axis=1).min() > 0


def test_protected_vertices_stay(ball):
    vertices, faces, mirror = ball
    mesh = CollapsibleMesh(vertices, faces)
    protected = {3, 100, 101, 102, 257}
    targets = {"upper": 50, "lower": 50}
    decimate(mesh, CollapseRules(mirror.tolist(), half(vertices), targets, protected=protected))
    assert protected <= set(mesh.vertices)


def test_seams_are_not_crossed(ball):
    """Vertices on the border of two texture charts only merge along the border."""
    vertices, faces, mirror = ball
    on_border = np.abs(vertices[:, 2]) < 1e-9
    charts = {v: {0, 1} if on_border[v] else {0} for v in range(len(vertices))}
    rules = CollapseRules(mirror.tolist(), ["skin"] * len(vertices), {"skin": 100}, charts)
    mesh = CollapsibleMesh(vertices, faces)
    allowed = [
        other
        for vertex in np.flatnonzero(on_border).tolist()
        for other in mesh.neighbours(vertex)
        if rules.allow(vertex, other, Counter(skin=len(vertices)))
    ]
    assert allowed
    assert on_border[allowed].all()


def test_undo_restores_the_mesh(ball):
    vertices, faces, _ = ball
    mesh = CollapsibleMesh(vertices, faces)
    fresh = CollapsibleMesh(vertices, faces)
    kept = min(mesh.neighbours(40))
    before = mesh.collapse(40, kept)
    assert 40 not in mesh
    assert mesh.triangles != fresh.triangles
    mesh.undo(before)
    assert mesh.triangles == fresh.triangles
    for vertex in (40, kept):
        assert mesh.neighbours(vertex) == fresh.neighbours(vertex)
    assert mesh.cost(kept, 40) == fresh.cost(kept, 40)

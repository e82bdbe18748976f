"""Points on the surface of a mesh."""

import numpy as np

from human_models.open_body.face import Surface


def test_surface_finds_and_mirrors_points():
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4]])
    surface = Surface(vertices, faces, np.array([1, 0, 2, 3, 4]))
    point = surface.from_front(np.array([0.2, 0.3]), np.arange(4))
    np.testing.assert_allclose(surface.position(point), [0.2, 0.3, 0.5])
    twin = surface.mirrored(point)
    np.testing.assert_allclose(surface.position(twin), [-0.2, 0.3, 0.5])
    missed = surface.from_front(np.array([2.0, 0.1]), np.arange(4))
    np.testing.assert_allclose(surface.position(missed), [1, 0, 0])
    foremost = surface.nearest_vertex(np.array([0.1, 0.0]), vertices[:, 2] > 0.5)
    np.testing.assert_allclose(surface.position(foremost), [0, 0, 1])

"""The plane under feet."""

import numpy as np

from main.motion.world import Plane, fit_floor, world_from_camera

UP = np.array([0.05, -0.95, -0.3]) / np.linalg.norm([0.05, -0.95, -0.3])
HEIGHT = -1.6


def points_on_plane(rng, count, spread):
    across = np.linalg.svd(UP[None])[2][1:]
    points = rng.normal(0, spread, (count, 2)) @ across + HEIGHT * UP
    return points + rng.normal(0, 0.01, (count, 1)) * UP


def test_plane_of_many_points_in_spite_of_others():
    rng = np.random.default_rng(0)
    points = np.concatenate([points_on_plane(rng, 300, 1.5), rng.normal(0, 1, (60, 3))])
    plane = fit_floor(points, np.array([0.0, -1, 0]))
    assert plane.up @ UP > np.cos(np.radians(1))
    assert abs(plane.height - HEIGHT) < 0.02


def test_people_at_one_place_leave_the_slope_to_the_expectation():
    rng = np.random.default_rng(1)
    plane = fit_floor(points_on_plane(rng, 50, 0.001), UP)
    assert plane.up @ UP > np.cos(np.radians(2))
    assert abs(plane.height - HEIGHT) < 0.02
    one = fit_floor(HEIGHT * UP[None], UP)
    np.testing.assert_allclose(one.up, UP, atol=1e-9)


def test_world_stands_on_the_floor():
    transform = world_from_camera(Plane(UP, HEIGHT))
    rotation = transform[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    points = points_on_plane(np.random.default_rng(2), 20, 2.0)
    world = points @ rotation.T + transform[:3, 3]
    assert np.abs(world[:, 1]).max() < 0.05
    np.testing.assert_allclose(transform[:3, 3], [0, 1.6, 0], atol=1e-12)  # where the camera is
    ahead = rotation @ np.array([0, 0, 1.0])
    assert ahead[2] < -0.9
    assert (rotation @ np.array([1.0, 0, 0]))[0] > 0.99

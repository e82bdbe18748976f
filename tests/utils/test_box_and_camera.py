"""Overlaps of boxes, and projection of points in arrays and tensors."""

import numpy as np
import pytest
import torch

from utils.camera import DEPTH_EPSILON, intersection_over_union, project, shared_areas

POINTS = np.array([[0.5, -0.25, 2.0], [0.0, 1.0, 4.0]])
FOCAL, PRINCPT = np.array([100.0, 200.0]), np.array([30.0, 40.0])
PIXELS = np.array([[55.0, 15.0], [30.0, 90.0]])


def test_overlap_of_each_pair_of_boxes():
    first = np.array([[0.0, 0, 10, 10], [100, 100, 10, 10]])
    second = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [100, 109, 10, 10]])
    assert shared_areas(first, second).tolist() == [[100, 50, 0], [0, 0, 10]]
    expected = [[1, 50 / 150, 0], [0, 0, 10 / 190]]
    np.testing.assert_allclose(intersection_over_union(first, second), expected)


def test_boxes_without_area_overlap_nothing():
    boxes = np.array([[3.0, 3, 0, 0]])
    assert intersection_over_union(boxes, boxes).tolist() == [[0]]


def test_exact_projection():
    np.testing.assert_allclose(project(POINTS, FOCAL, PRINCPT, depth_epsilon=0), PIXELS)


def test_arrays_and_tensors_are_projected_alike_with_the_published_epsilon():
    pixels = project(POINTS, FOCAL, PRINCPT)
    tensors = map(torch.from_numpy, (POINTS, FOCAL, PRINCPT))
    np.testing.assert_array_equal(project(*tensors).numpy(), pixels)
    expected = POINTS[:, :2] / (POINTS[:, 2:] + DEPTH_EPSILON) * FOCAL + PRINCPT
    np.testing.assert_array_equal(pixels, expected)


def test_points_behind_the_camera_are_projected_as_if_just_before_it():
    behind = POINTS * [1, 1, -1]
    at_once = project(behind, FOCAL, PRINCPT, depth_epsilon=0, nearest_m=0.1)
    assert at_once[0].tolist() == pytest.approx([530, -460])

"""Skeletons, points and labels."""

import numpy as np
import pytest
from jaxtyping import UInt8

from utils.render import PERSON_COLOURS, draw_skeleton, draw_vertices, person_colour


def black(width: int = 200, height: int = 100) -> UInt8[np.ndarray, "H W 3"]:
    image = np.zeros((height, width, 3), np.uint8)
    image.flags.writeable = False
    return image


def test_bone_runs_between_its_joints() -> None:
    joints = np.array([(20.0, 50.0), (180.0, 50.0), (100.0, 10.0)])
    image = draw_skeleton(black(), joints, [(0, 1)], (200, 100, 50))
    assert image[50, 100] == pytest.approx((200, 100, 50), rel=0.15)  # smooth lines are a bit paler
    assert image[50, 15].max() == 0
    assert image[45, 100].max() == 0
    assert image[10, 100].min() > 100  # a joint without a bone is a dot
    assert image[30, 100].max() == 0


def test_bones_are_smooth_and_placed_between_pixels() -> None:
    def shade(y: float) -> float:
        joints = np.array([(-50.0, y), (250.0, y)])
        image = draw_skeleton(black(), joints, [(0, 1)], (255, 255, 255))[:, 100, 0].astype(float)
        return float(np.sum(image * np.arange(100)) / image.sum())

    for y in (50.0, 50.25, 50.5, 50.75):
        assert shade(y) == pytest.approx(y, abs=0.13)


def test_joints_that_are_not_finite_or_far_away_are_left_out() -> None:
    joints = np.array([(20.0, 50.0), (np.nan, 5.0), (np.inf, 5.0), (1e9, 50.0), (60.0, 50.0)])
    edges = [(0, 1), (1, 2), (0, 3), (0, 4)]
    image = draw_skeleton(black(), joints, edges, (255, 255, 255))
    expected = draw_skeleton(black(), joints[[0, 4]], [(0, 1)], (255, 255, 255))
    np.testing.assert_array_equal(image, expected)


def test_lines_grow_with_the_image() -> None:
    joints = np.array([(10.0, 50.0), (190.0, 50.0)])
    widths = [
        np.count_nonzero(draw_skeleton(black(*size), joints, [(0, 1)], (255, 255, 255))[:, 100, 0])
        for size in ((200, 100), (2000, 1000), (4000, 2000))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_vertices_are_points() -> None:
    points = np.array([(10.4, 20.4), (199.4, 99.4), (-0.6, 5.0), (200.0, 5.0), (np.nan, 1.0)])
    image = draw_vertices(black(), points, (9, 8, 7))
    rows, columns = np.nonzero(image.any(axis=-1))
    assert sorted(zip(columns.tolist(), rows.tolist(), strict=True)) == [(10, 20), (199, 99)]
    assert image[20, 10].tolist() == [9, 8, 7]


def test_colours_differ_and_repeat() -> None:
    colours = np.array(PERSON_COLOURS)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60
    assert person_colour(2) == person_colour(2 + len(PERSON_COLOURS))

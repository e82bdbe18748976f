"""Boxes and their overlaps, crops, and projection of points in arrays and tensors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.camera import (
    DEPTH_EPSILON,
    Box,
    Camera,
    CropAugmentation,
    clip_box,
    crop_person,
    image_to_crop,
    intersection_over_union,
    person_box,
    project,
    shared_areas,
)

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


PARITY = dict(np.load(Path(__file__).parents[1] / "parity" / "crops.npz"))
IMAGE = PARITY["image"]
HEIGHT, WIDTH = IMAGE.shape[:2]
CASES = [
    (box, augmentation)
    for box in PARITY["processed"][:3]
    for augmentation in PARITY["aug_scale_rot_flip"]
]


def test_person_boxes():
    for xywh, expected in zip(PARITY["boxes_xywh"], PARITY["processed"], strict=True):
        box = person_box(Box(*xywh), WIDTH, HEIGHT, ratio=1.2)
        if np.isnan(expected).any():
            assert box is None
        else:
            np.testing.assert_allclose(np.array(box), expected, rtol=1e-6)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_crops(number):
    box, (scale, rotation, flip) = CASES[number]
    augmentation = CropAugmentation(scale, rotation, bool(flip))
    matrix = image_to_crop(Box(*box), (512, 384), WIDTH, augmentation)
    if flip:  # the expected map is that of the mirrored image
        matrix = matrix @ np.array([[-1, 0, WIDTH - 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(matrix, PARITY["img2bb"][number], rtol=1e-4, atol=1e-3)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    np.testing.assert_allclose(inverse, PARITY["bb2img"][number], rtol=1e-4, atol=1e-2)
    for shape, step in (((512, 384), 8), ((256, 192), 4)):
        crop = crop_person(IMAGE, Box(*box), shape, augmentation)[::step, ::step]
        assert np.abs(crop - PARITY["crop_every_8th_pixel"][number]).max() <= 0.02


@pytest.mark.parametrize(
    "box",
    [
        Box(0, 0, 0, 10),
        Box(10, 10, -5, 20),
        Box(WIDTH + 5, 0, 50, 50),
        Box(-100, 0, 50, 50)._replace(width=-1),
        Box(float("nan"), 0, 10, 10),
        Box(0, 0, float("inf"), 10),
        Box(5, 5, 1, 1),
    ],
)
def test_box_without_area_is_no_box(box):
    assert person_box(box, WIDTH, HEIGHT) is None


def test_person_box_has_the_aspect_and_holds_the_clipped_box():
    for box in (Box(10, 20, 300, 100), Box(10, 20, 30, 300), Box(-50, -50, 5000, 5000)):
        clipped, grown = clip_box(box, WIDTH, HEIGHT), person_box(box, WIDTH, HEIGHT, ratio=1.0)
        assert clipped is not None
        assert grown is not None
        assert grown.width / grown.height == pytest.approx(0.75)
        assert grown.center == pytest.approx(clipped.center)
        assert grown.width >= clipped.width - 1e-9
        assert grown.height >= clipped.height - 1e-9


def test_flip_twice_is_identity():
    box, flip = Box(100, 50, 150, 200), CropAugmentation(flip=True)
    mirrored_box = Box(WIDTH - 1 - box.x - box.width, *box[1:])
    plain = crop_person(IMAGE, box, (256, 192))
    mirrored = np.ascontiguousarray(IMAGE[:, ::-1])
    again = crop_person(mirrored, mirrored_box, (256, 192), flip)
    assert np.abs(plain - again).max() <= 0.02


def test_crop_leaves_the_image_alone_and_is_black_outside():
    before = IMAGE.copy()
    crop = crop_person(IMAGE, Box(-1000, -1000, 300, 400), (256, 192))
    assert not crop.any()
    np.testing.assert_array_equal(before, IMAGE)


def test_camera_of_the_crop_in_the_image():
    box = Box(30.5, -20, 90, 120)
    camera = Camera((5000, 5000), (96, 128)).in_image(box, (256, 192))
    assert camera.focal == pytest.approx((5000 / 192 * 90, 5000 / 256 * 120))
    assert camera.princpt == pytest.approx((30.5 + 45, -20 + 60))

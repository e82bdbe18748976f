"""The built-in detector: on photographs that an install has, and on many people."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from main.pipeline import networks
from main.pipeline.networks import (
    MoveNet,
    SmallNetwork,
    _Detections,
    cut_by_a_side,
    non_maximum_suppression,
    tiles,
)
from utils.camera import Box, intersection_over_union
from utils.errors import UserError
from utils.image import read_image

PHOTOGRAPHS = Path(find_spec("skimage").origin).parent / "data"
BOXES = {"astronaut.png": (14.0, 9.8, 345.3, 497.6), "camera.png": (9.4, 61.0, 338.4, 443.4)}
"""As the network finds them; checked by eye."""


def photograph(name):
    return read_image(PHOTOGRAPHS / name)


def overlap(found, expected):
    return intersection_over_union(np.array(expected, float).reshape(-1, 4), found)


@pytest.fixture(scope="module")
def detector():
    return MoveNet(0.5)


@pytest.mark.parametrize("name", BOXES)
def test_one_person_in_a_photograph(detector, name):
    boxes, scores = detector(photograph(name))
    assert len(boxes) == 1
    assert scores[0] > 0.6
    assert overlap(boxes, BOXES[name]).item() > 0.95


def test_more_people_than_places_and_each_once(detector):
    image = cv2.resize(photograph("astronaut.png"), (160, 160), interpolation=cv2.INTER_AREA)
    crowd = np.tile(image, (4, 4, 1))
    scale = 160 / 512
    expected = [
        np.array(BOXES["astronaut.png"]) * scale + [160 * column, 160 * row, 0, 0]
        for row in range(4)
        for column in range(4)
    ]
    boxes, _ = detector(crowd)
    best = overlap(boxes, expected).max(axis=1)
    assert (best > 0.5).sum() == 16
    assert len(boxes) <= 17


def test_a_small_person_is_found_by_a_closer_look(detector):
    image = np.full((720, 1280, 3), 128, np.uint8)
    small = cv2.resize(photograph("camera.png"), (90, 90), interpolation=cv2.INTER_AREA)
    image[500:590, 900:990] = small
    boxes, _ = detector(image)
    expected = np.array(BOXES["camera.png"]) * 90 / 512 + [900, 500, 0, 0]
    assert overlap(boxes, expected).max() > 0.5


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2000, 3), (2000, 3, 3), (97, 64, 3)])
def test_images_without_anyone_and_odd_ones(detector, shape):
    boxes, scores = detector(np.zeros(shape, np.uint8))
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_a_box_without_size_is_cut_out_all_the_same():
    pixels = networks.Square((4.0, 4.0), 0.0).cut(np.full((9, 9, 3), 7, np.uint8), 8)
    assert (pixels == 7).all()


def test_tiles_cover_a_part_and_overlap():
    seen = np.zeros((300, 400), int)
    for x, y, width, height in tiles(Box(0, 0, 400, 300)):
        seen[int(y) : int(y + height), int(x) : int(x + width)] += 1
    assert seen.min() == 1
    assert seen.max() == 4


def test_whoever_a_side_of_the_image_cuts_off_may_be_less_sure():
    boxes = [[0, 40, 20, 60], [80, 40, 20, 60], [1, 40, 20, 60], [0, 40, 60, 60], [0, 90, 4, 10]]
    expected = [True, True, False, False, False]
    assert cut_by_a_side(np.array(boxes, float), 100, 100).tolist() == expected


def test_people_of_a_street_and_one_at_its_edge(detector):
    image = read_image(Path(find_spec("ultralytics").origin).parent / "assets" / "bus.jpg")
    boxes, scores = detector(image)
    assert len(boxes) == 4
    assert scores[:3].min() > 0.5 > scores[3]
    assert boxes[3, 0] == 0


def test_doubles_go_and_people_before_each_other_stay():
    points = np.zeros((4, 17, 3))
    points[..., 2] = 0.9
    points[2, :, :2] = 60  # somebody else, whose box overlaps
    boxes = np.array(
        [[0, 0, 50, 100], [2, 1, 50, 100], [20, 0, 50, 100], [0, 0, 40, 50]], np.float64
    )
    found = non_maximum_suppression(_Detections(boxes, np.array([0.5, 0.9, 0.4, 0.3]), points))
    np.testing.assert_array_equal(found.boxes, boxes[[1, 2]])


def test_a_missing_or_damaged_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="restore it from the repository") as error:
        SmallNetwork("movenet_multipose")
    assert "\n" not in str(error.value)
    (tmp_path / "movenet_multipose.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot be used") as error:
        SmallNetwork("movenet_multipose")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted(networks.FOLDER.glob("*.onnx")), ids=lambda path: path.stem)
def test_another_runtime_computes_the_same(path):
    """OpenCV reads the files, too: nothing in them is particular to onnxruntime."""
    network = SmallNetwork(path.stem)
    size = (network.side, network.side)
    pixels = cv2.resize(photograph("astronaut.png"), size, interpolation=cv2.INTER_AREA)
    other = cv2.dnn.readNetFromONNX(str(path))
    batch = pixels[None].astype(network._type)
    other.setInput(batch if batch.dtype == np.int32 else batch / np.float32(255), network._input)
    theirs = other.forward(network._outputs)
    for ours, same in zip(network(pixels), theirs, strict=True):
        np.testing.assert_allclose(ours.ravel(), same.ravel(), rtol=1e-4, atol=2e-3)

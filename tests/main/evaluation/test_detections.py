"""Detections matched with people, and errors normalised by how many were found."""

import numpy as np
import pytest

from main.evaluation.benchmark import DetectionMatch, match_detections, read_detections
from utils.errors import UserError

A, B, C = [0.0, 0, 100, 100], [50.0, 0, 100, 100], [500.0, 0, 40, 80]


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


def padded(tight):
    """As in dataset files."""
    return np.concatenate([tight[:, :2] - 0.1 * tight[:, 2:], 1.2 * tight[:, 2:]], axis=1)


PEOPLE = (["1.jpg", "1.jpg", "2.jpg"], padded(boxes(A, B, C)).astype(np.float32))


def test_pairs_that_overlap_most_come_first():
    found = match_detections(*PEOPLE, {"1.jpg": boxes([45, 0, 100, 100], [10, 0, 100, 100])})
    assert list(found.boxes) == [0, 1]
    np.testing.assert_allclose(found.boxes[0], [0, -10, 120, 120])
    np.testing.assert_allclose(found.boxes[1], [35, -10, 120, 120])
    assert (found.missed, found.false) == (1, 0)


def test_everyone_is_found_once():
    twice = {"1.jpg": boxes(A, A, B), "2.jpg": boxes([0, 0, 10, 10]), "3.jpg": boxes(A)}
    found = match_detections(*PEOPLE, twice)
    assert list(found.boxes) == [0, 1]
    assert (found.missed, found.false) == (1, 2)  # images without people are no part of the set
    assert found.f1 == pytest.approx(2 / (2 + 0.5 * 3))


def test_least_overlap():
    assert list(match_detections(*PEOPLE, {"2.jpg": boxes([530, 0, 40, 80])}).boxes) == [2]  # 1/7
    with pytest.raises(UserError, match="image paths"):
        match_detections(*PEOPLE, {"2.jpg": boxes([534, 0, 40, 80])})


def test_normalised_errors():
    found = DetectionMatch({0: np.zeros(4), 1: np.zeros(4)}, missed=1, false=1)
    means = {"mpvpe_all": {"mean": 60.0, "count": 2}, "mpjpe_body": {"mean": None, "count": 0}}
    report = found.report(means)
    assert report == {
        "f1": pytest.approx(2 / 3),
        "found": 2,
        "missed": 1,
        "false": 1,
        "nmve_all": pytest.approx(90.0),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": 1}',
        '{"a": [1, 2, 3, 4]}',
        '{"a": [[1, 2, 3]]}',
        '{"a": [[1, 2, "x", 4]]}',
        '{"a": [[1, 2, NaN, 4]]}',
        '{"a": [[1, 2, 0, 4]]}',
        '{"a": {"b": 1}}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"boxes\.json") as refusal:
        read_detections(path)
    assert "\n" not in str(refusal.value)


def test_files_of_boxes(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"a b.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]], "none.jpg": []}')
    detections = read_detections(path)
    assert detections["a b.jpg"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert detections["none.jpg"].shape == (0, 4)
    with pytest.raises(UserError, match=r"absent\.json"):
        read_detections(tmp_path / "absent.json")

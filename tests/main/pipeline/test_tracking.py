"""Numbers stay with people, and no detection is lost."""

import numpy as np

from main.pipeline.detection import Detection
from main.pipeline.tracking import Tracker
from utils.camera import Box


def detections(*boxes, score=0.9):
    return [Detection(Box(*box), score) for box in boxes]


def test_numbers_follow_people_who_move_and_change_order():
    tracker = Tracker(fps=30)
    for frame in range(20):
        left, right = (10 + 4 * frame, 0, 50, 100), (400 - 4 * frame, 0, 50, 100)
        order = (left, right) if frame % 2 == 0 else (right, left)
        assert tracker(detections(*order)) == ([1, 2] if frame % 2 == 0 else [2, 1])


def test_short_absence_keeps_the_number_and_a_long_one_does_not():
    tracker = Tracker(fps=10)
    box = (10, 10, 50, 100)
    for _ in range(5):
        assert tracker(detections(box)) == [1]
    for _ in range(20):
        assert tracker([]) == []
    assert tracker(detections(box)) == [1]
    for _ in range(30):
        tracker([])
    assert tracker(detections(box)) == [2]


def test_everyone_gets_a_number_of_their_own():
    assert Tracker(30)(detections(*[(0, 0, 50, 100)] * 5)) == [1, 2, 3, 4, 5]


def test_whoever_comes_later_is_numbered_at_once():
    tracker = Tracker(30)
    there = (10, 10, 50, 100)
    assert tracker(detections(there)) == [1]
    assert tracker(detections(there, (300, 10, 50, 100))) == [1, 2]
    assert tracker(detections(there, (303, 10, 50, 100))) == [1, 2]


def test_no_detection_is_dropped_whatever_it_is_like():
    tracker = Tracker(30)
    rng = np.random.default_rng(0)
    for _ in range(30):
        boxes = rng.uniform(0, 300, (rng.integers(0, 6), 4))
        odd = [(5, 5, 0, 10), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)]
        frame = detections(*boxes.tolist(), *odd, score=float(rng.uniform(0, 1)))
        numbers = tracker(frame)
        assert len(set(numbers)) == len(frame)
        assert min(numbers) >= 1


def test_each_tracker_counts_from_one():
    for _ in range(2):
        assert Tracker(30)(detections((0, 0, 50, 100))) == [1]

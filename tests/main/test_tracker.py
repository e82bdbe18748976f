"""Identities stay with people, and no detection is lost."""

import numpy as np

from main.detector import Detection
from main.flow import ChooseLargest, choose_identity
from main.tracker import Tracker, overlaps
from utils.box import Box


def detections(*boxes):
    return [Detection(Box(*box), 0.9) for box in boxes]


def test_overlap():
    table = overlaps([Box(0, 0, 10, 10)], [Box(0, 0, 10, 10), Box(5, 0, 10, 10), Box(20, 0, 5, 5)])
    np.testing.assert_allclose(table, [[1, 1 / 3, 0]])
    assert overlaps([], [Box(0, 0, 1, 1)]).shape == (0, 1)


def test_identities_follow_people_who_move_and_change_order():
    tracker = Tracker(fps=30)
    for frame in range(20):
        left, right = (10 + 4 * frame, 0, 50, 100), (400 - 4 * frame, 0, 50, 100)
        order = (left, right) if frame % 2 == 0 else (right, left)
        identities = tracker(frame, detections(*order))
        assert identities == ([1, 2] if frame % 2 == 0 else [2, 1])


def test_short_absence_keeps_the_identity_and_a_long_one_does_not():
    tracker = Tracker(fps=10)
    box = (10, 10, 50, 100)
    assert tracker(0, detections(box)) == [1]
    assert tracker(1, []) == []
    assert tracker(9, detections(box)) == [1]
    assert tracker(30, detections(box)) == [2]


def test_everyone_gets_a_number_of_their_own():
    identities = Tracker(30)(0, detections(*[(0, 0, 50, 100)] * 5))
    assert identities == [1, 2, 3, 4, 5]


def test_choice_by_number():
    people = list(zip([2, 5], detections((0, 0, 5, 5), (0, 0, 9, 9)), strict=True))
    assert [one for one, _ in choose_identity(5)(people)] == [5]
    assert choose_identity(1)(people) == []


def test_largest_stays_the_same_person():
    choose = ChooseLargest(patience=3)
    one, two = detections((0, 0, 50, 100), (0, 0, 40, 90))
    assert choose([(1, one), (2, two)]) == [(1, one)]
    assert choose([(1, two), (2, one)]) == [(1, two)]
    assert choose([(2, one)]) == []
    assert choose([(2, one)]) == []
    assert choose([(2, one)]) == []
    assert choose([(2, one)]) == [(2, one)]

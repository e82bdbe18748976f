"""Numbers stay with people; batches over people and frames: full, every frame once, in order."""

import time

import numpy as np
import pytest
import torch

from main.motion.rows import COLUMNS
from main.pipeline.detection import Detection
from main.pipeline.estimator import Estimator, Person, PersonCrop
from main.pipeline.stages import (
    FRAMES_PER_BATCH,
    CroppedFrame,
    CroppedPerson,
    Tracker,
    batches,
    estimate_people,
)
from utils.camera import Box
from utils.errors import UserError

PIXELS = np.zeros((2, 2, 3), np.float32)
VALUES = {
    name: np.zeros(shape, np.float32) for name, shape in COLUMNS.items() if name != "box_xywh"
}


@pytest.fixture(autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def cropped(counts):
    """A frame for each count of people; crops are numbered by the place of their box."""
    number = 0
    for index, count in enumerate(counts):
        crops = [
            PersonCrop(PIXELS, Box(number + k, 0, 1, 1), Box(number + k, 0, 1, 1))
            for k in range(count)
        ]
        number += count
        detection = Detection(Box(0, 0, 1, 1), 1.0)
        yield CroppedFrame(
            index, [CroppedPerson(k, detection, crop) for k, crop in enumerate(crops)]
        )


class Numbers(Estimator):
    """Stands in for an estimator: a person's box has the number of the crop."""

    def __init__(self):
        self.sizes = []

    def estimate(self, crops, *, want_vertices=True):
        assert not want_vertices
        self.sizes.append(len(crops))
        time.sleep(0.002 * (len(self.sizes) % 3))
        return [
            Person(**VALUES, box_xywh=np.array(crop.box, np.float32), vertices_m=None)
            for crop in crops
        ]


def test_batches_are_full_though_frames_hold_odd_numbers_of_people():
    made = list(batches(cropped([3, 3, 3, 0, 5, 1]), 4))
    assert [len(batch.crops) for batch in made] == [4, 4, 4, 3]
    assert [[frame.number for frame in batch.frames] for batch in made] == [
        [0],
        [1],
        [2, 3],
        [4, 5],
    ]


def test_more_people_in_a_frame_than_in_a_batch():
    made = list(batches(cropped([9, 1]), 4))
    assert [len(batch.crops) for batch in made] == [4, 4, 2]
    assert [len(batch.frames) for batch in made] == [0, 0, 2]


def test_empty_frames_do_not_wait_forever():
    stream = batches(cropped([1] + [0] * 1000), 2)
    assert len(next(stream).frames) == FRAMES_PER_BATCH * 2


@pytest.mark.parametrize("workers", [1, 3])
def test_every_frame_comes_once_in_order_with_its_own_people(workers):
    counts = [2, 0, 0, 7, 1, 1, 3, 0] * 5
    estimator = Numbers()
    frames = list(estimate_people(cropped(counts), estimator, 4, workers))
    assert [frame.number for frame in frames] == list(range(len(counts)))
    assert [len(frame.people) for frame in frames] == counts
    people = [one.person.box_xywh[0] for frame in frames for one in frame.people]
    assert people == list(range(sum(counts)))
    assert max(estimator.sizes) == 4


class NoNumbers(Numbers):
    """Gives NaN or infinity for people of some numbers."""

    def __init__(self, broken):
        super().__init__()
        self.broken = broken

    def estimate(self, crops, *, want_vertices=True):
        people = super().estimate(crops, want_vertices=want_vertices)
        strange = {0: {"betas": np.full(10, np.nan)}, 1: {"transl": np.array([0, np.inf, 0])}}
        return [
            person._replace(**strange[int(number) % 2]) if number in self.broken else person
            for person in people
            for number in [person.box_xywh[0]]
        ]


def test_people_who_are_no_numbers_are_left_out_and_said_so(caplog):
    frames = list(estimate_people(cropped([2, 3, 1]), NoNumbers({1, 2, 3}), 4))
    people = [[one.person.box_xywh[0] for one in frame.people] for frame in frames]
    assert people == [[0], [4], [5]]
    first, last = caplog.messages
    assert first.startswith("frame 0: the network gave NaN or infinity")
    assert last == "3 of 6 estimates were left out as NaN or infinite"


def test_nobody_who_is_numbers_is_an_error():
    with pytest.raises(UserError, match="NaN or infinity for every person; download its weights"):
        list(estimate_people(cropped([2, 0, 1]), NoNumbers({0, 1, 2}), 4))
    assert len(list(estimate_people(cropped([0, 0]), NoNumbers({0}), 4))) == 2


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

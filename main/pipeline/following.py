"""People found again from frame to frame by their keypoints."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from main.pipeline.detection import Detection, Detector, pairs
from main.pipeline.keypoints import FoundPerson, KeypointFinder
from utils.camera import Box, intersection_over_union

INTERVAL_S: Final = 0.2
"""Time between two runs of the detector, while everyone is found again by their keypoints."""
_SAME_PERSON: Final = 0.3
"""Overlap of the boxes of a person in two frames, at least."""
_ONE_PERSON: Final = 0.8
"""Overlap of two people from which the detector is asked whether they are one."""
_SURE: Final = 0.2
"""Score of keypoints by which a box is moved; at least three."""
_LOST: Final = 0.6
"""Share of the keypoints' mean score when the person was detected; below it they are lost."""
_LARGEST_GROWTH: Final = 1.1
"""Of a box from a frame to the next."""


class _Followed(NamedTuple):
    detection: Detection
    found: FoundPerson
    confidence: float
    """Mean score of the body's keypoints when the person was detected."""


class KeypointDetector:
    """People with keypoints by the built-in networks, for the frames of one clip in their order.

    A detector runs where somebody may be new: every so many frames, where nobody was found, and
    where somebody is lost. In between, boxes move with the keypoints.
    """

    def __init__(self, detector: Detector, finder: KeypointFinder, interval: int) -> None:
        """Begin a clip.

        Args:
            interval: frames from one run of the detector to the next; 1: each frame.
        """
        self.detector, self.finder, self.interval = detector, finder, interval
        self.people: list[_Followed] = []
        self.detected_ago = 0

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        self.detected_ago += 1
        followed = None
        if self.people and self.detected_ago < self.interval:
            followed = self._follow(image)
        if followed is None:
            followed = self._detect(index, image)
            self.detected_ago = 0
        self.people = followed
        return [one.detection for one in followed]

    def _detect(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[_Followed]:
        detections = self.detector(index, image)
        boxes = [one.box for one in detections]
        before: list[FoundPerson | None] = [None] * len(boxes)
        for new, old in pairs(boxes, [one.detection.box for one in self.people], _SAME_PERSON):
            before[new] = self.people[old].found
        found = self.finder(image, boxes, before)
        return [
            _Followed(one._replace(keypoints=person.keypoints), person, _confidence(person))
            for one, person in zip(detections, found, strict=True)
        ]

    def _follow(self, image: UInt8[np.ndarray, "H W 3"]) -> list[_Followed] | None:
        """Everyone where their keypoints went; None where the detector should look again."""
        boxes = [one.detection.box for one in self.people]
        found = self.finder(image, boxes, [one.found for one in self.people])
        followed = []
        for one, person in zip(self.people, found, strict=True):
            if (moved := _moved(one, person)) is None:
                return None
            followed.append(moved)
        array = np.array([one.detection.box for one in followed], np.float64)
        overlap = np.triu(intersection_over_union(array, array), 1)
        return None if (overlap > _ONE_PERSON).any() else followed


def _moved(one: _Followed, person: FoundPerson) -> _Followed | None:
    """Somebody where the keypoints went; None: they are lost."""
    box = moved_box(one.detection.box, one.found.body, person.body)
    if box is None or _confidence(person) < _LOST * one.confidence:
        return None
    detection = Detection(box, one.detection.score, person.keypoints)
    return one._replace(detection=detection, found=person)


def moved_box(
    box: Box, before: Float[np.ndarray, "17 3"], now: Float[np.ndarray, "17 3"]
) -> Box | None:
    """A box moved and scaled as keypoints (x, y, score); None if too few are known in both."""
    known = np.minimum(before[:, 2], now[:, 2]) > _SURE
    if known.sum() < 3:
        return None
    old, new = before[known, :2], now[known, :2]
    spread_before, spread_now = float(old.std(axis=0).sum()), float(new.std(axis=0).sum())
    growth = spread_now / max(spread_before, 1e-6)
    growth = min(max(growth, 1 / _LARGEST_GROWTH), _LARGEST_GROWTH)
    # Where the box's centre would be by each keypoint; one that jumped does not count.
    center = np.median(new + growth * (np.array(box.center) - old), axis=0)
    width, height = box.width * growth, box.height * growth
    return Box(float(center[0] - width / 2), float(center[1] - height / 2), width, height)


def _confidence(person: FoundPerson) -> float:
    return float(person.body[:, 2].mean())

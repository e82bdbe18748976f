"""Who is who from frame to frame: boxes are joined by overlap."""

from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from main.detector import Detection
from utils.box import Box

MIN_OVERLAP: Final = 0.3
"""Least intersection over union of a person's boxes in consecutive sightings."""
MEMORY_S: Final = 1.0
"""How long a person who is not seen keeps the identity."""


def overlaps(ours: list[Box], theirs: list[Box]) -> Float[np.ndarray, "A B"]:
    """Intersection over union of every pair."""
    a, b = np.array(ours).reshape(-1, 1, 4), np.array(theirs).reshape(1, -1, 4)
    start = np.maximum(a[..., :2], b[..., :2])
    end = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.prod(np.clip(end - start, 0, None), axis=-1)
    union = np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - shared
    return shared / np.maximum(union, 1e-9)


class Tracker:
    """Gives each detection an identity, counted from 1; none is ever dropped."""

    def __init__(self, fps: float) -> None:
        self.memory = max(1, round(MEMORY_S * fps))
        self.last_seen: dict[int, tuple[int, Box]] = {}
        self.count = 0

    def __call__(self, index: int, detections: list[Detection]) -> list[int]:
        """Identities of the detections in frame number `index`."""
        alive = {
            person: box
            for person, (seen, box) in self.last_seen.items()
            if index - seen <= self.memory
        }
        boxes = [detection.box for detection in detections]
        scores = overlaps(list(alive.values()), boxes)
        matched = {
            int(column): list(alive)[row]
            for row, column in zip(*linear_sum_assignment(-scores), strict=True)
            if scores[row, column] >= MIN_OVERLAP
        }
        identities = [matched.get(i) or self._new() for i in range(len(boxes))]
        self.last_seen = {
            person: seen for person, seen in self.last_seen.items() if person in alive
        } | {person: (index, box) for person, box in zip(identities, boxes, strict=True)}
        return identities

    def _new(self) -> int:
        self.count += 1
        return self.count

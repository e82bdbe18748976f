"""How a frame flows: frames -> people's boxes -> tracks -> crops in batches -> people.

Each step is a generator; at most a few batches of frames are in memory.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from main.detector import Detector
from main.estimator import Estimator, Person, PersonCrop
from main.tracker import Tracker
from utils.media import Frame

log = logging.getLogger(__name__)

FRAMES_PER_BATCH: Final = 4
"""Frames that may wait for a batch to fill, in multiples of its size: empty ones count too."""


class Sighting(NamedTuple):
    """A person in a frame: the track's number, how sure, and the network's input."""

    track: int
    score: float
    crop: PersonCrop


class SeenFrame(NamedTuple):
    number: int
    sightings: list[Sighting]


class EstimatedPerson(NamedTuple):
    track: int
    score: float
    person: Person


class EstimatedFrame(NamedTuple):
    number: int
    people: list[EstimatedPerson]


def find_people(
    frames: Iterable[Frame], detector: Detector, tracker: Tracker, estimator: Estimator
) -> Iterator[SeenFrame]:
    """Detect, track, and cut the network's inputs out of each frame."""
    outside_told = False
    for frame in frames:
        detections = detector(frame.index, frame.image)
        sightings = []
        for track, detection in zip(tracker(detections), detections, strict=True):
            crop = estimator.crop(frame.image, detection.box)
            if crop is None:
                level = logging.DEBUG if outside_told else logging.WARNING
                log.log(level, "frame %d: a box outside the image is left out", frame.index)
                outside_told = True
            else:
                sightings.append(Sighting(track, detection.score, crop))
        yield SeenFrame(frame.index, sightings)


def estimate_people(
    seen: Iterable[SeenFrame], estimator: Estimator, batch_size: int
) -> Iterator[EstimatedFrame]:
    """Run the network on batches filled over persons and frames; frames leave in order."""
    waiting: list[SeenFrame] = []
    for one in seen:
        waiting.append(one)
        crops = sum(len(frame.sightings) for frame in waiting)
        if crops >= batch_size or len(waiting) >= FRAMES_PER_BATCH * batch_size:
            yield from _estimate(waiting, estimator, batch_size)
            waiting = []
    yield from _estimate(waiting, estimator, batch_size)


def _estimate(
    seen: list[SeenFrame], estimator: Estimator, batch_size: int
) -> Iterator[EstimatedFrame]:
    crops = [sighting.crop for frame in seen for sighting in frame.sightings]
    people: list[Person] = []
    for start in range(0, len(crops), batch_size):
        people += estimator.estimate(crops[start : start + batch_size], want_vertices=False)
    remaining = iter(people)
    for number, sightings in seen:
        yield EstimatedFrame(
            number, [EstimatedPerson(s.track, s.score, next(remaining)) for s in sightings]
        )

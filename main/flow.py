"""How a frame flows: frames -> people's boxes -> identities -> crops in batches -> people.

Each step is a generator; at most a few batches of frames are in memory.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from main.detector import Detection, Detector
from main.estimator import Estimator, Person, PersonCrop
from main.tracker import Tracker
from utils.media import Frame

log = logging.getLogger(__name__)

FRAMES_PER_BATCH: Final = 4
"""Frames that may wait for a batch to fill, in multiples of its size: empty ones count too."""


class Sighting(NamedTuple):
    """A person in a frame: who, how sure, and the network's input."""

    identity: int
    score: float
    crop: PersonCrop


class SeenFrame(NamedTuple):
    frame: Frame
    sightings: list[Sighting]


class EstimatedPerson(NamedTuple):
    identity: int
    score: float
    person: Person


class EstimatedFrame(NamedTuple):
    frame: Frame
    people: list[EstimatedPerson]


Choice = Callable[[list[tuple[int, Detection]]], list[tuple[int, Detection]]]
"""Picks from the people of a frame, given with their identities."""


def choose_everyone(people: list[tuple[int, Detection]]) -> list[tuple[int, Detection]]:
    return people


def choose_identity(identity: int) -> Choice:
    """Only the person of that number (in order of appearance, from 1)."""
    return lambda people: [one for one in people if one[0] == identity]


class ChooseLargest:
    """The largest person of the first frame that shows anyone, as long as that one is seen.

    While that person is away nobody is chosen; after `patience` frames the largest is chosen anew.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.absent = patience, patience
        self.identity: int | None = None

    def __call__(self, people: list[tuple[int, Detection]]) -> list[tuple[int, Detection]]:
        chosen = [one for one in people if one[0] == self.identity]
        if not chosen and self.absent >= self.patience and people:
            chosen = [max(people, key=lambda one: one[1].box.width * one[1].box.height)]
            self.identity = chosen[0][0]
        self.absent = 0 if chosen else self.absent + 1
        return chosen


def find_people(
    frames: Iterable[Frame],
    detector: Detector,
    tracker: Tracker,
    choose: Choice,
    estimator: Estimator,
) -> Iterator[SeenFrame]:
    """Detect, identify, choose, and cut the network's inputs out of each frame."""
    outside_told = False
    for frame in frames:
        detections = detector(frame.index, frame.image)
        identities = tracker(frame.index, detections)
        sightings = []
        for identity, detection in choose(list(zip(identities, detections, strict=True))):
            crop = estimator.crop(frame.image, detection.box)
            if crop is None:
                level = logging.DEBUG if outside_told else logging.WARNING
                log.log(level, "frame %d: a box outside the image is left out", frame.index)
                outside_told = True
            else:
                sightings.append(Sighting(identity, detection.score, crop))
        yield SeenFrame(frame, sightings)


def estimate_people(
    seen: Iterable[SeenFrame], estimator: Estimator, batch_size: int, *, want_vertices: bool
) -> Iterator[EstimatedFrame]:
    """Run the network on batches filled over persons and frames; frames leave in order."""
    waiting: list[SeenFrame] = []
    for one in seen:
        waiting.append(one)
        crops = sum(len(frame.sightings) for frame in waiting)
        if crops >= batch_size or len(waiting) >= FRAMES_PER_BATCH * batch_size:
            yield from _estimate(waiting, estimator, batch_size, want_vertices=want_vertices)
            waiting = []
    yield from _estimate(waiting, estimator, batch_size, want_vertices=want_vertices)


def _estimate(
    seen: list[SeenFrame], estimator: Estimator, batch_size: int, *, want_vertices: bool
) -> Iterator[EstimatedFrame]:
    crops = [sighting.crop for frame in seen for sighting in frame.sightings]
    people: list[Person] = []
    for start in range(0, len(crops), batch_size):
        batch = crops[start : start + batch_size]
        people += estimator.estimate(batch, want_vertices=want_vertices)
    remaining = iter(people)
    for frame, sightings in seen:
        yield EstimatedFrame(
            frame, [EstimatedPerson(s.identity, s.score, next(remaining)) for s in sightings]
        )

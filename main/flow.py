"""How a frame flows: frames -> people's boxes -> tracks -> crops in batches -> people.

Each step is a generator; at most a few batches of frames are in memory.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

import torch

from main.detector import Detector
from main.estimator import Estimator, Person, PersonCrop
from main.tracker import Tracker
from utils.media import Frame
from utils.prefetch import parallel_map

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


class Batch(NamedTuple):
    """Inputs for one run of the network, and the frames whose last person is among them."""

    crops: list[PersonCrop]
    frames: list[SeenFrame]


def batches(seen: Iterable[SeenFrame], size: int) -> Iterator[Batch]:
    """Full batches over people and frames; a frame's people may be in several."""
    crops: list[PersonCrop] = []
    frames: list[SeenFrame] = []
    for frame in seen:
        for sighting in frame.sightings:
            if len(crops) == size:
                yield Batch(crops, frames)
                crops, frames = [], []
            crops.append(sighting.crop)
        frames.append(frame)
        if len(frames) >= FRAMES_PER_BATCH * size:
            yield Batch(crops, frames)
            crops, frames = [], []
    yield Batch(crops, frames)


def estimate_people(
    seen: Iterable[SeenFrame], estimator: Estimator, batch_size: int, workers: int = 1
) -> Generator[EstimatedFrame, None, None]:
    """Run the network on batches, `workers` of them at a time; frames leave in order.

    The workers share PyTorch's threads: each that works alone wastes no time on waiting for others.
    """
    threads = max(1, torch.get_num_threads() // workers)

    def estimate(batch: Batch) -> tuple[list[SeenFrame], list[Person]]:
        torch.set_num_threads(threads)  # of this thread, and of those that begin later
        return batch.frames, estimator.estimate(batch.crops, want_vertices=False)

    people: deque[Person] = deque()
    with closing(parallel_map(estimate, batches(seen, batch_size), workers)) as estimated:
        for frames, found in estimated:
            people.extend(found)
            for number, sightings in frames:
                yield EstimatedFrame(
                    number, [EstimatedPerson(s.track, s.score, people.popleft()) for s in sightings]
                )

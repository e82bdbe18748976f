"""Evaluating with a detector's boxes: who of the dataset was found, and what missing people cost.

Normalised errors are those of AGORA: the error of the people found, over F1 of finding them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from main.testing.metric_table import MeanAndCount
from utils.errors import UserError, first_line
from utils.files import read_json

_LEAST_OVERLAP: Final = 0.1
"""Intersection over union from which a detection can be a person's (as on AGORA's server)."""
_DATASET_PADDING: Final = 1.2
"""Boxes in dataset files are so much larger than people; detectors' boxes are made alike."""
_NORMALISED: Final = {"nmve_all": "mpvpe_all", "nmje_body": "mpjpe_body"}

OneBox = Float[np.ndarray, "4"]
Boxes = Float[np.ndarray, "_ 4"]
"""x, y, width, height in pixels."""


class Found(NamedTuple):
    """Which people a detector found."""

    boxes: dict[int, OneBox]
    """Row of the dataset's table -> its detection, padded as the boxes in the files are."""
    missed: int
    false: int
    """Detections that are nobody's, in the images of the dataset's people."""

    @property
    def f1(self) -> float:
        return len(self.boxes) / (len(self.boxes) + 0.5 * (self.false + self.missed))

    def report(self, means: Mapping[str, MeanAndCount]) -> dict[str, float | int]:
        """F1, counts, and the normalised errors (millimetres) of the metrics that there are."""
        report: dict[str, float | int] = {
            "f1": self.f1,
            "found": len(self.boxes),
            "missed": self.missed,
            "false": self.false,
        }
        for name, metric in _NORMALISED.items():
            mean = means[metric]["mean"] if metric in means else None
            if mean is not None:
                report[name] = mean / self.f1
        return report


def read_detections(path: Path) -> dict[str, Boxes]:
    """A file {"image path as in the dataset": [[x, y, width, height], ...]} in pixels.

    Raises UserError where it is missing or says something else.
    """
    content = read_json(path, "file of detections")
    try:
        boxes = {
            image: np.array(rows, np.float64).reshape(len(rows), 4)
            for image, rows in content.items()
        }
        if not all(np.isfinite(rows).all() and (rows[:, 2:] > 0).all() for rows in boxes.values()):
            raise ValueError("a box has no area")
        return boxes
    except (ValueError, TypeError, AttributeError) as error:
        form = '{"image path": [[x, y, width, height], ...]}'
        raise UserError(
            f"--detections {path}: wrong ({first_line(error)}); write {form}"
        ) from error


def match(images: Sequence[str], body_boxes: Boxes, detections: Mapping[str, Boxes]) -> Found:
    """Give detections to people, image by image, the pairs that overlap most first.

    Args:
        images: of every person, as `detections` calls them.
        body_boxes: of every person, padded as the files' are.

    Raises UserError where nobody was found.
    """
    people: defaultdict[str, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        people[image].append(place)
    boxes: dict[int, OneBox] = {}
    false = 0
    for image, places in people.items():
        detected = detections.get(image, np.zeros((0, 4)))
        true = _resized(body_boxes[places], 1 / _DATASET_PADDING)
        pairs = _greedy(_overlaps(true, detected))
        padded = _resized(detected, _DATASET_PADDING)
        boxes |= {places[person]: padded[detection] for person, detection in pairs}
        false += len(detected) - len(pairs)
    if not boxes:
        raise UserError("--detections: no box is anybody's; are its image paths the dataset's?")
    return Found(dict(sorted(boxes.items())), len(images) - len(boxes), false)


def _greedy(overlaps: Float[np.ndarray, "P D"]) -> Sequence[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    left = overlaps.copy()
    while left.size and left.max() >= _LEAST_OVERLAP:
        person, detection = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(person), int(detection)))
        left[person], left[:, detection] = 0, 0
    return pairs


def _overlaps(
    first: Float[np.ndarray, "P 4"], second: Float[np.ndarray, "D 4"]
) -> Float[np.ndarray, "P D"]:
    """Intersection over union of every pair."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(
        first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:]
    )
    shared = (end - start).clip(min=0).prod(axis=2)
    either = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1)[None] - shared
    return shared / np.maximum(either, 1e-9)


def _resized(boxes: Boxes, ratio: float) -> Boxes:
    """Boxes larger or smaller about their centres."""
    size = boxes[:, 2:] * ratio
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - size) / 2, size], axis=1)

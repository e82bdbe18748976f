"""Evaluation with a detector's boxes: which people were found, and what the missing ones cost.

Normalised errors are those of AGORA: the error of the people found, over the F1 score of finding
them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from datasets.humandata.writer import BODY_BOX_SCALE
from main.evaluation.metrics import Means
from utils.box import intersection_over_union, scaled_boxes
from utils.errors import UserError, first_line
from utils.files import read_json

_LEAST_OVERLAP: Final = 0.1
"""Intersection over union from which a detection can be a person's (as on AGORA's server)."""
_NORMALISED: Final = {"nmve_all": "mpvpe_all", "nmje_body": "mpjpe_body"}

OneBox = Float[np.ndarray, "4"]
Boxes = Float[np.ndarray, "_ 4"]
"""x, y, width, height in pixels."""


class DetectionMatch(NamedTuple):
    """Which people of a dataset a detector found."""

    boxes: dict[int, OneBox]
    """Row of the dataset's table -> its detection, padded as the boxes in the files are."""
    missed: int
    false: int
    """Number of detections in the images of the dataset's people that belong to nobody."""

    @property
    def f1(self) -> float:
        return len(self.boxes) / (len(self.boxes) + 0.5 * (self.false + self.missed))

    def report(self, means: Means) -> dict[str, float | int]:
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

    Raises:
        UserError: the file is missing or of another form.
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


def match_detections(
    images: Sequence[str], body_boxes: Boxes, detections: Mapping[str, Boxes]
) -> DetectionMatch:
    """Assign detections to people, image by image, the pairs that overlap most first.

    Args:
        images: the image of every person, as `detections` names it.
        body_boxes: the box of every person, padded as the boxes in dataset files are.

    Raises:
        UserError: nobody was found.
    """
    people: defaultdict[str, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        people[image].append(place)
    boxes: dict[int, OneBox] = {}
    false = 0
    for image, places in people.items():
        detected = detections.get(image, np.zeros((0, 4)))
        true = scaled_boxes(body_boxes[places], 1 / BODY_BOX_SCALE)
        pairs = _greedy_pairs(intersection_over_union(true, detected))
        padded = scaled_boxes(detected, BODY_BOX_SCALE)
        boxes |= {places[person]: padded[detection] for person, detection in pairs}
        false += len(detected) - len(pairs)
    if not boxes:
        raise UserError("--detections: no box matches a person; are its image paths the dataset's?")
    return DetectionMatch(dict(sorted(boxes.items())), len(images) - len(boxes), false)


def _greedy_pairs(overlaps: Float[np.ndarray, "P D"]) -> list[tuple[int, int]]:
    """Pairs of person and detection; nobody and nothing is in two of them."""
    pairs: list[tuple[int, int]] = []
    left = overlaps.copy()
    while left.size and left.max() >= _LEAST_OVERLAP:
        person, detection = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(person), int(detection)))
        left[person], left[:, detection] = 0, 0
    return pairs

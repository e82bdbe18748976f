"""Which hand convention a HumanData file has: what it states, what is known of it, what it looks
like. Rotations of fingers are given from the flat hand or from MANO's mean hand."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float

from datasets.humandata.entries import Entries
from datasets.humandata.layout import FAMILIES
from datasets.sources import SOURCES, Source
from human_models.joints import HANDS_MEAN, SIDES

_FEWEST: Final = 10
"""Hands below which their mean tells nothing of the convention."""


def source_of(path: Path) -> Source | None:
    """The dataset that a file belongs to, by its name; None if none or several differing ones."""
    found = [
        source
        for source in SOURCES.values()
        if any(fnmatch(path.name, name) for name in (*(source.train or ()), *(source.test or ())))
    ]
    agree = len({source.flat_hands for source in found}) == 1
    return found[0] if agree else None


def stated_flat_hands(entries: Entries) -> Bool[np.ndarray, " N"] | None:
    """What a file says of each row: of the rows first, else of the whole; None if nothing."""
    for family in FAMILIES:
        of_rows = entries.get(family, {}).get("flat_hand_mean")
        if of_rows is not None:
            rows = np.asarray(of_rows).reshape(len(entries["image_path"]), -1)
            return np.logical_or.reduce(rows != 0, axis=1)
    of_file = entries.get("misc", {}).get("flat_hand_mean")
    if of_file is None:
        return None
    return np.full(len(entries["image_path"]), bool(np.all(of_file)))


def mean_hand_share(poses: Float[np.ndarray, "N ..."], side: str) -> float | None:
    """How much of the mean hand is in the average of hand poses (15 rotations a row).

    About 0 for hands given from the mean hand, 1 for hands given from the flat hand, -1 for flat
    hands given from the mean hand. Rows that are zero or not finite do not count; None if too few
    are left.
    """
    flat = np.asarray(poses, np.float64).reshape(len(poses), -1)
    known = flat[np.isfinite(flat).all(axis=1) & (flat != 0).any(axis=1)]
    if len(known) < _FEWEST or flat.shape[1] != 45:
        return None
    mean = np.array(HANDS_MEAN[side]).ravel()
    return float(known.mean(axis=0) @ mean / (mean @ mean))


def from_mean_hand(parameters: dict[str, Any], flat: Bool[np.ndarray, " N"]) -> dict[str, Any]:
    """Parameters with the hands of the marked rows given from the mean hand instead, as the
    reader of datasets gives them."""
    changed = {name: value for name, value in parameters.items() if name != "flat_hand_mean"}
    for side in SIDES:
        pose = changed.get(f"{side}_hand_pose")
        if pose is not None:
            pose = np.asarray(pose)
            mean = np.array(HANDS_MEAN[side], pose.dtype)
            relative = pose.reshape(len(flat), 15, 3) - flat[:, None, None] * mean
            changed[f"{side}_hand_pose"] = relative
    return changed

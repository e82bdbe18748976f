"""Columns and keypoints of several HumanData files, one below the other."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from datasets.humandata.entries import Entries
from datasets.humandata.layout import (
    JOINTS,
    PART_BOXES,
    ROW_TEXTS,
    is_keypoints,
    is_list,
    mask_names,
)
from utils.errors import UserError

log = logging.getLogger(__name__)

Keep = Literal["common", "all"]
"""common: joints and entries that all files have; all: those of any, with zeros (confidence 0)
for the rows that lack them."""

_ZERO_IS_UNKNOWN: Final = frozenset(
    {
        *PART_BOXES,
        *ROW_TEXTS,
        *("global_orient", "body_pose", "left_hand_pose", "right_hand_pose"),
        *("leye_pose", "reye_pose", "lhand_root", "rhand_root"),
        *("transl", "betas", "betas_extra", "iscrowd"),
    }
)
"""Entries of which loaders take zeros (or empty texts) as not known."""
_DEFAULTS: Final = {"gender": "neutral", "annot_valid": 1, "valid_label": 1, "num_keypoints": 1}
"""What stands for an absent entry: loaders keep such rows."""


class Part(NamedTuple):
    """One of the files."""

    path: Path
    entries: Entries

    @property
    def length(self) -> int:
        return len(self.entries["image_path"])


def join_columns(where: str, parts: Sequence[Part], lengths: Sequence[int], keep: Keep) -> Entries:
    """Columns one below the other; `parts` have nothing but columns (or single values)."""
    merged: Entries = {}
    names = dict.fromkeys(name for part in parts for name in part.entries)
    for name in names:
        entry = f"{where}.{name}" if where else name
        found = [part.entries.get(name) for part in parts]
        present = [value for value in found if value is not None]
        if not all(map(is_list, present)):
            if len(present) == len(parts) and all(same(value, present[0]) for value in present):
                merged[name] = present[0]
            else:
                log.warning("entry '%s' is left out: the files say different things", entry)
            continue
        if name == "betas_neutral":  # where it is absent, the betas are those of the neutral body
            found = [part.entries.get(name, part.entries.get("betas")) for part in parts]
        lacking = [part.path for part, value in zip(parts, found, strict=True) if value is None]
        fillable = name in _ZERO_IS_UNKNOWN or name in _DEFAULTS
        if lacking and not fillable and keep == "common":
            log.warning("entry '%s' is left out: %s has none", entry, lacking[0])
            continue
        if lacking and name not in PART_BOXES:
            log.warning("entry '%s': %s has none, it counts as unknown", entry, lacking[0])
        absent: Any = _DEFAULTS.get(name, np.zeros_like(np.asarray(present[0])[0]))
        columns = [
            np.stack([absent] * length) if value is None else value
            for value, length in zip(found, lengths, strict=True)
        ]
        merged[name] = _concatenated(entry, columns, parts)
    return merged


def _concatenated(entry: str, columns: Sequence[Any], parts: Sequence[Part]) -> Any:
    """One column of all; triples and flat rows are the same, shorter coefficients get zeros."""
    if all(isinstance(column, list) for column in columns):
        return [value for column in columns for value in column]
    arrays = [np.asarray(column) for column in columns]
    if len({array.ndim for array in arrays}) > 1:
        arrays = [array.reshape(len(array), -1) for array in arrays]
    if all(array.ndim == 2 for array in arrays) and any(
        n in entry for n in ("betas", "expression")
    ):
        width = max(array.shape[1] for array in arrays)
        arrays = [np.pad(array, [(0, 0), (0, width - array.shape[1])]) for array in arrays]
    for part, array in zip(parts, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            shapes = f"{array.shape[1:]} a row, in {parts[0].path} {arrays[0].shape[1:]}"
            raise UserError(
                f"{part.path}: entry '{entry}' has shape {shapes}; they do not go together"
            )
    return np.concatenate(arrays)


def join_keypoints(parts: Sequence[Part], keep: Keep) -> Entries:
    """Arrays of all 190 joints with one mask."""
    merged: Entries = {}
    names = dict.fromkeys(
        k for part in parts for k, v in part.entries.items() if is_keypoints(k, v)
    )
    for key in names:
        having = [part for part in parts if key in part.entries]
        if len(having) < len(parts) and keep == "common":
            lacking = next(part.path for part in parts if part not in having)
            log.warning("entry '%s' is left out: %s has none", key, lacking)
            continue
        dimensions = max(part.entries[key].shape[2] for part in having)
        points, masks = zip(*(_points(part, key, dimensions) for part in parts), strict=True)
        common, union = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
        partly = int(union.sum() - common.sum())
        if partly and keep == "common":
            log.warning("'%s': %d joints are left out: not all files have them", key, partly)
        elif partly:
            told = "'%s': %d joints are absent from some files and have confidence 0 there; %s"
            log.warning(
                told, key, partly, "loaders that look at the mask alone take them as (0, 0)"
            )
        merged[key] = np.concatenate(points)
        merged[mask_names(key)[0]] = (common if keep == "common" else union).astype(np.uint8)
    return merged


def _points(part: Part, key: str, dimensions: int) -> tuple[np.ndarray, UInt8[np.ndarray, "190"]]:
    """A file's keypoints with 190 joints, and which of them it has."""
    whole = np.zeros((part.length, JOINTS, dimensions), np.float32)
    mask = np.zeros(JOINTS, np.uint8)
    if key in part.entries:
        points = part.entries[key]
        count, width = points.shape[1:]
        whole[:, :count, :width] = points
        whole[:, :count, width:] = 1
        stated = [part.entries[name] for name in mask_names(key) if name in part.entries]
        seen = np.logical_or.reduce(whole[:, :count, -1] > 0, axis=0)
        mask[:count] = np.asarray(stated[0]) == 1 if stated else seen
    return whole, mask


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(np.array_equal(one, other))

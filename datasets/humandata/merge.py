"""HumanData files from HumanData files: merging, slicing, selecting.

In this format, the mask of joints and the list of parameters apply to all rows of a file, and
loaders read zeros of a joint in the mask as a point in the corner of the image. By default, only
the joints and entries that all files have are therefore kept, and the others are logged.
"""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from datasets.humandata.file import (
    BOXES,
    FAMILIES,
    FILE_WIDE,
    KEYPOINTS_2D,
    META_PAIRS,
    PART_BOXES,
    ROW_TEXTS,
    Entries,
    is_keypoints,
    is_list,
    is_mask,
    is_row_entry,
    mask_names,
    stated_flat_hands,
    subtract_mean_hand,
    without_row_references,
)
from datasets.humandata.writer import complete_keypoints
from datasets.sources import assumed_flat_hands
from utils.errors import UserError

log = logging.getLogger(__name__)

Keep = Literal["common", "all"]
"""common: joints and entries that all files have; all: those that any file has, with zeros
(confidence 0) for rows without them."""

_ZERO_IS_UNKNOWN: Final = frozenset(
    {
        *PART_BOXES,
        *ROW_TEXTS,
        *("global_orient", "body_pose", "left_hand_pose", "right_hand_pose"),
        *("leye_pose", "reye_pose", "lhand_root", "rhand_root"),
        *("transl", "betas", "betas_extra", "iscrowd"),
    }
)
"""Entries in which zeros (or empty texts) mean unknown to loaders."""
_DEFAULTS: Final = {"gender": "neutral", "annot_valid": 1, "valid_label": 1, "num_keypoints": 1}
"""Values for absent entries, with which loaders keep the row."""


class Part(NamedTuple):
    """One of the files to merge."""

    path: Path
    entries: Entries

    @property
    def length(self) -> int:
        return len(self.entries["image_path"])


def merge(parts: Sequence[Part], keep: Keep = "common") -> Entries:
    """All rows, file after file. If conventions differ, hands become relative to the mean hand.

    Raises:
        UserError: the files are incompatible: body parameters of different models, no common 2D
            keypoints, or 3D keypoints of which only some are relative to the root.
    """
    families = [[family for family in FAMILIES if family in part.entries] for part in parts]
    for part, of_part in zip(parts, families, strict=True):
        if of_part != families[0]:
            raise UserError(
                f"{part.path} has parameters of {' and '.join(of_part) or 'no body model'}, "
                f"{parts[0].path} of {' and '.join(families[0]) or 'none'}; merge files of one kind"
            )
    parts = [Part(part.path, without_row_references(part.entries)) for part in parts]
    parts, flat_hands = _one_hand_convention(_cameras_by_row(parts))
    merged = _row_entries(parts, keep) | join_keypoints(parts, keep) | _file_wide(parts)
    for key in (*families[0], "meta"):
        columns = [Part(part.path, part.entries.get(key, {})) for part in parts]
        lengths = [part.length for part in parts]
        merged[key] = join_columns(key, columns, lengths, keep)
    merged["misc"] = _misc(parts, merged)
    if families[0]:
        merged["misc"]["flat_hand_mean"] = flat_hands
    if not merged["meta"]:
        del merged["meta"]
    if not any(key in merged for key in KEYPOINTS_2D):
        names = ", ".join(str(part.path) for part in parts)
        raise UserError(
            f"{names}: no 2D keypoints that all of them have; merge them with --keep all"
        )
    return merged


def _one_hand_convention(parts: list[Part]) -> tuple[list[Part], bool]:
    flats = []
    for part in parts:
        stated = stated_flat_hands(part.entries)
        if stated is None:
            assumed = assumed_flat_hands(part.path)
            stated = np.full(part.length, assumed)
            if any(family in part.entries for family in FAMILIES):
                log.warning("%s has no flat_hand_mean; %s is assumed", part.path, assumed)
        flats.append(stated)
    everywhere = np.concatenate(flats)
    differ = bool(everywhere.any() and not everywhere.all())
    converted = []
    for part, flat in zip(parts, flats, strict=True):
        entries = dict(part.entries)
        for family in FAMILIES:
            if family in entries:
                entries[family] = subtract_mean_hand(entries[family], flat & differ)
        if differ and flat.any():
            log.warning("%s: hand poses become relative to the mean hand", part.path)
        converted.append(Part(part.path, entries))
    return converted, bool(everywhere.all())


def _cameras_by_row(parts: Sequence[Part]) -> list[Part]:
    """Give each row the camera of its file, unless all files have the same one."""
    parts = list(parts)
    for name in META_PAIRS:
        of_files = [part.entries.get("misc", {}).get(name) for part in parts]
        if all(value is not None and np.array_equal(value, of_files[0]) for value in of_files):
            continue
        for i, (part, of_file) in enumerate(zip(parts, of_files, strict=True)):
            if of_file is not None:
                misc = {key: value for key, value in part.entries["misc"].items() if key != name}
                rows = np.tile(np.broadcast_to(np.ravel(of_file), 2), (part.length, 1))
                meta = {name: rows, **part.entries.get("meta", {})}
                parts[i] = Part(part.path, {**part.entries, "misc": misc, "meta": meta})
    return parts


def _row_entries(parts: list[Part], keep: Keep) -> Entries:
    rows = []
    for part in parts:
        own = {
            key: value
            for key, value in part.entries.items()
            if is_row_entry(key, value, part.length) and not is_keypoints(key, value)
        }
        for key in BOXES:
            if key in own and own[key].shape[1] == 4:
                own[key] = np.pad(own[key], [(0, 0), (0, 1)], constant_values=1)
        rows.append(Part(part.path, own))
    return join_columns("", rows, [part.length for part in parts], keep)


def _file_wide(parts: Sequence[Part]) -> Entries:
    merged: Entries = {}
    names = dict.fromkeys(key for part in parts for key in part.entries)
    for key in names:
        value = parts[0].entries.get(key)
        of_rows = is_row_entry(key, value, parts[0].length) or is_keypoints(key, value)
        if key in (*FAMILIES, "meta", "misc") or is_mask(key) or (of_rows and key not in FILE_WIDE):
            continue
        if all(same(part.entries.get(key), value) for part in parts):
            merged[key] = value
        elif value is not None or key in FILE_WIDE:
            log.warning("entry '%s' is left out: the files differ in it", key)
    return merged


def _misc(parts: Sequence[Part], merged: Entries) -> dict[str, Any]:
    """Settings on which all files agree."""
    of_files = [part.entries.get("misc", {}) for part in parts]
    aligned = {bool(misc.get("kps3d_root_aligned")) for misc in of_files}
    if len(aligned) > 1 and any(key.startswith("keypoints3d") for key in merged):
        raise UserError(
            f"{parts[0].path} and others differ in misc.kps3d_root_aligned, so their 3D keypoints "
            "are incompatible; merge files that agree in it"
        )
    names = dict.fromkeys(name for misc in of_files for name in misc if name != "flat_hand_mean")
    agreed = {}
    for name in names:
        values = [misc.get(name) for misc in of_files]
        if all(same(value, values[0]) for value in values):
            agreed[name] = values[0]
        else:
            log.warning("entry 'misc.%s' is left out: the files differ in it", name)
    return agreed


def join_columns(where: str, parts: Sequence[Part], lengths: Sequence[int], keep: Keep) -> Entries:
    """Concatenate columns; `parts` contain only columns or single values."""
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
                log.warning("entry '%s' is left out: the files differ in it", entry)
            continue
        if name == "betas_neutral":  # if it is absent, `betas` are for the neutral body
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
    """Concatenate one column: triples and flat rows are equal, coefficients are zero-padded."""
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
            shapes = f"{array.shape[1:]} per row, in {parts[0].path} {arrays[0].shape[1:]}"
            raise UserError(
                f"{part.path}: entry '{entry}' has shape {shapes}; they are incompatible"
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
        completed = {id(part): complete_keypoints(part.path, key, part.entries) for part in having}
        joints, width = completed[id(having[0])][0].shape[1:]
        points, masks = [], []
        for part in parts:
            absent = np.zeros((part.length, joints, width), np.float32), np.zeros(joints, np.uint8)
            of_part, mask = completed.get(id(part), absent)
            points.append(of_part)
            masks.append(mask)
        merged[key] = _concatenated(key, points, parts).astype(np.float32, copy=False)
        common, union = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
        partly = int(union.sum() - common.sum())
        if partly and keep == "common":
            log.warning("'%s': %d joints are left out: not all files have them", key, partly)
        elif partly:
            log.warning(
                "'%s': %d joints are absent from some files and have confidence 0 there; loaders "
                "that only use the mask read them as (0, 0)",
                *(key, partly),
            )
        merged[mask_names(key)[0]] = (common if keep == "common" else union).astype(np.uint8)
    return merged


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(np.array_equal(one, other))


def slice_rows(text: str, length: int) -> Int[np.ndarray, " K"]:
    """The rows of START:STOP[:STEP], as in Python; each of the three may be left out.

    Raises:
        UserError: the text is not a slice, or selects no rows.
    """
    pieces = text.split(":")
    try:
        numbers = [int(piece) if piece.strip() else None for piece in pieces]
        chosen = np.arange(length)[slice(*numbers)] if len(pieces) in (2, 3) else None
    except ValueError:  # no number, or a step of 0
        chosen = None
    if chosen is None:
        raise UserError(f"--rows {text}: give START:STOP or START:STOP:STEP")
    if not len(chosen):
        raise UserError(f"--rows {text}: no such rows; the file has {length}")
    return chosen


def subset_rows(
    file: Path, image_path: Sequence[str], pattern: str | None, count: int | None, seed: int
) -> Int[np.ndarray, " K"]:
    """The rows whose image matches the pattern, or `count` of them at random; None: all.

    Raises:
        UserError: no image matches the pattern.
    """
    rows = np.arange(len(image_path))
    if pattern is not None:
        rows = np.array([i for i, path in enumerate(image_path) if fnmatch(path, pattern)], int)
        if not len(rows):
            raise UserError(
                f"{file}: no image_path matches '{pattern}'; the first is '{image_path[0]}'"
            )
    if count is not None and count < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return rows

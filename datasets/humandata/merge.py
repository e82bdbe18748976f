"""Several HumanData files as one.

What not all of them have cannot be said row by row in this format: masks of joints and the absence
of a parameter hold for a whole file, and loaders take a zero of a joint that the mask has for a
point at the image's corner. So by default only what is common to all is kept, and the rest told.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets.humandata.entries import Entries, is_row_entry, without_own_rows
from datasets.humandata.hands import from_mean_hand, source_of, stated_flat_hands
from datasets.humandata.join import Keep, Part, join_columns, join_keypoints, same
from datasets.humandata.layout import (
    BOXES,
    FAMILIES,
    FILE_WIDE,
    KEYPOINTS_2D,
    META_PAIRS,
    is_keypoints,
    is_mask,
)
from utils.errors import UserError

log = logging.getLogger(__name__)


def merge(parts: Sequence[Part], keep: Keep = "common") -> Entries:
    """All rows, file after file. Hands given in both ways are brought to the mean hand.

    Raises:
        UserError: the files do not go together: body parameters of different models, no common 2D
            keypoints, 3D keypoints relative to the root and not.
    """
    families = [[family for family in FAMILIES if family in part.entries] for part in parts]
    for part, of_part in zip(parts, families, strict=True):
        if of_part != families[0]:
            raise UserError(
                f"{part.path} has parameters of {' and '.join(of_part) or 'no body model'}, "
                f"{parts[0].path} of {' and '.join(families[0]) or 'none'}; merge files of one kind"
            )
    parts = [Part(part.path, without_own_rows(part.entries)) for part in parts]
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
        stated, known = stated_flat_hands(part.entries), source_of(part.path)
        if stated is None:
            stated = np.full(part.length, known.flat_hands if known else False)
            told = "%s does not say flat_hand_mean: %s is taken"
            if any(family in part.entries for family in FAMILIES):
                log.warning(told, part.path, bool(stated[0]))
        flats.append(stated)
    everywhere = np.concatenate(flats)
    differ = bool(everywhere.any() and not everywhere.all())
    converted = []
    for part, flat in zip(parts, flats, strict=True):
        entries = dict(part.entries)
        for family in FAMILIES:
            if family in entries:
                entries[family] = from_mean_hand(entries[family], flat & differ)
        if differ and flat.any():
            log.warning("%s: hands from the flat hand now count from the mean hand", part.path)
        converted.append(Part(part.path, entries))
    return converted, bool(everywhere.all())


def _cameras_by_row(parts: Sequence[Part]) -> list[Part]:
    """Cameras of whole files become cameras of their rows, unless it is one camera."""
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
        mine = {
            key: value
            for key, value in part.entries.items()
            if is_row_entry(key, value, part.length) and not is_keypoints(key, value)
        }
        for key in BOXES:
            if key in mine and mine[key].shape[1] == 4:
                mine[key] = np.pad(mine[key], [(0, 0), (0, 1)], constant_values=1)
        rows.append(Part(part.path, mine))
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
            log.warning("entry '%s' is left out: the files say different things", key)
    return merged


def _misc(parts: Sequence[Part], merged: Entries) -> dict[str, Any]:
    """Settings on which all files agree."""
    of_files = [part.entries.get("misc", {}) for part in parts]
    aligned = {bool(misc.get("kps3d_root_aligned")) for misc in of_files}
    if len(aligned) > 1 and any(key.startswith("keypoints3d") for key in merged):
        raise UserError(
            f"{parts[0].path} and others differ in misc.kps3d_root_aligned: their 3D keypoints do "
            "not go together; merge files that agree in it"
        )
    names = dict.fromkeys(name for misc in of_files for name in misc if name != "flat_hand_mean")
    agreed = {}
    for name in names:
        values = [misc.get(name) for misc in of_files]
        if all(same(value, values[0]) for value in values):
            agreed[name] = values[0]
        else:
            log.warning("entry 'misc.%s' is left out: the files say different things", name)
    return agreed

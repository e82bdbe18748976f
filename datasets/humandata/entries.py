"""Whole HumanData files as dictionaries of entries, to be cut, joined and written again."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from datasets.humandata.file import HumanDataFile, texts
from datasets.humandata.layout import (
    BOOKKEEPING,
    BOXES,
    DICTIONARIES,
    FILE_WIDE,
    JOINT_COUNTS,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    ROW_TEXTS,
    is_keypoints,
    is_list,
    is_mask,
    mask_names,
)
from human_models.safe_pickle import load_npz, load_pickle

log = logging.getLogger(__name__)

Entries = dict[str, Any]
"""A file's entries by name: dictionaries as such, keypoints with all their joints."""

_ROWS_ELSEWHERE: Final = ("frame_range", "mano")
"""Entries that count or list rows in a way of their own, so they do not outlive a new order."""


def entry_names(path: Path) -> list[str]:
    """Raises UserError where the file is missing or is no .npz (or .pkl)."""
    if path.suffix in (".pkl", ".pickle"):
        content = load_pickle(path)
        return list(content) if isinstance(content, Mapping) else []
    load_npz(path, ())  # tells what is wrong with the archive
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_entries(path: Path) -> Entries:
    """All entries of a file; empty ones and the bookkeeping are left out.

    Raises UserError, naming the file and the entry, for what has not a row a person.
    """
    file = HumanDataFile(path)
    entries = {key: file.get(key) for key in entry_names(path) if key not in BOOKKEEPING}
    entries = {key: value for key, value in entries.items() if value is not None}
    entries["image_path"] = texts(file, "image_path", file.require("image_path"), None)
    length = len(entries["image_path"])
    for key, value in entries.items():
        if key in DICTIONARIES:
            entries[key] = _rows_of_dictionary(file, key, length)
        elif is_keypoints(key, value):
            entries[key] = _whole(file, key, np.asarray(value), entries)
        if key in (*BOXES, *KEYPOINTS_2D, *KEYPOINTS_3D, *ROW_TEXTS) and len(value) != length:
            raise file.wrong(key, f"has {len(value)} rows, image_path has {length}")
    return entries


def _rows_of_dictionary(file: HumanDataFile, key: str, length: int) -> dict[str, Any]:
    rows = {name: value for name, value in file.dictionary(key).items() if value is not None}
    for name, value in rows.items():
        if key != "misc" and is_list(value) and len(value) != length:
            raise file.wrong(f"{key}.{name}", f"has {len(value)} rows, image_path has {length}")
    return rows


def _whole(file: HumanDataFile, key: str, points: np.ndarray, entries: Entries) -> np.ndarray:
    """Keypoints with every joint that their mask speaks of, zero where it has none."""
    stored = points.shape[1]
    mask = next((np.asarray(entries[name]) for name in mask_names(key) if name in entries), None)
    if mask is None:
        if key in (*KEYPOINTS_2D, *KEYPOINTS_3D) and stored not in JOINT_COUNTS:
            raise file.wrong(f"{key}_mask", f"missing, but '{key}' is compressed by it")
        return points
    if len(mask) == stored:
        return points
    present = np.flatnonzero(mask == 1)
    if len(present) != stored:
        raise file.wrong(key, f"{stored} joints; the mask has {len(present)} of {len(mask)}")
    whole = np.zeros((len(points), len(mask), points.shape[2]), points.dtype)
    whole[:, present] = points
    return whole


def is_row_entry(key: str, value: Any, length: int) -> bool:
    """Whether a top-level entry has a value a row: what is unknown has if its length says so."""
    if key in FILE_WIDE or is_mask(key):
        return False
    return is_list(value) and len(value) == length


def take_rows(entries: Entries, rows: Int[np.ndarray, " K"]) -> Entries:
    """The same file with only some rows, in the given order; masks stay as they are."""
    length = len(entries["image_path"])
    taken: Entries = {}
    for key, value in without_own_rows(entries).items():
        if isinstance(value, Mapping) and key != "misc":
            taken[key] = {
                name: _taken(column, rows) if is_list(column) else column
                for name, column in value.items()
            }
        else:
            taken[key] = _taken(value, rows) if is_row_entry(key, value, length) else value
    return taken


def without_own_rows(entries: Entries) -> Entries:
    """Without entries that refer to rows of the file as it was; tells which."""
    for key in _ROWS_ELSEWHERE:
        if key in entries:
            log.warning("entry '%s' is left out: it refers to the rows of its file", key)
    return {key: value for key, value in entries.items() if key not in _ROWS_ELSEWHERE}


def _taken(column: Any, rows: Int[np.ndarray, " K"]) -> Any:
    if isinstance(column, list | tuple):
        return [column[row] for row in rows.tolist()]
    return column[rows]

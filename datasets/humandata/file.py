"""The entries of a HumanData file: their names and shapes, and how they are read.

Entries are read one by one (`HumanDataFile`) or all at once (`read_entries`). Rotations of fingers
are relative to the flat hand or to the mean hand of MANO.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from human_models.joints import HANDS_MEAN, SIDES
from human_models.safe_pickle import load_npz, load_pickle, names_in_npz
from utils.errors import UserError

log = logging.getLogger(__name__)

JOINTS: Final = 190
"""Joints of a keypoint array; smaller sets are its first joints."""
JOINT_COUNTS: Final = (127, 144, JOINTS)
"""Sizes of joint sets; each begins with the smaller ones."""
KEYPOINTS_2D: Final = (
    "keypoints2d",
    "keypoints2d_smplx",
    "keypoints2d_smpl",
    "keypoints2d_original",
)
KEYPOINTS_3D: Final = (
    "keypoints3d_cam",
    "keypoints3d",
    "keypoints3d_smplx",
    "keypoints3d_smpl",
    "keypoints3d_original",
)
PART_BOXES: Final = ("lhand_bbox_xywh", "rhand_bbox_xywh", "face_bbox_xywh")
BOXES: Final = ("bbox_xywh", *PART_BOXES)

_ROTATIONS: Final = {"global_orient": 1, "transl": 1}
_HANDS: Final = {"left_hand_pose": 15, "right_hand_pose": 15}
_FACE: Final = {"jaw_pose": 1, "leye_pose": 1, "reye_pose": 1}
_HAND_ROOTS: Final = {"lhand_root": 1, "rhand_root": 1}
TRIPLES: Final = {
    "smplx": _ROTATIONS | {"body_pose": 21} | _HANDS | _FACE | _HAND_ROOTS,
    "smpl": _ROTATIONS | {"body_pose": 23},
    "smplh": _ROTATIONS | {"body_pose": 21} | _HANDS | _HAND_ROOTS,
}
"""Parameters of a family that consist of vectors of three, with their number per row."""
COEFFICIENTS: Final = ("betas", "betas_neutral", "betas_extra", "expression")
FAMILIES: Final = tuple(TRIPLES)
LARGEST_TRAINED_BETA: Final = 3.0
"""Larger betas count as a bad fit, and the shape of the row is not learned."""

ROW_TEXTS: Final = ("image_path", "segmentation", "depth_path", "vertices3d_path")
ROW_OTHERS: Final = ("image_id", "vertices")
META_TEXTS: Final = ("gender",)
META_PAIRS: Final = ("focal_length", "principal_point")
DICTIONARIES: Final = (*FAMILIES, "meta", "misc")
BOOKKEEPING: Final = ("__key_strict__", "__data_len__", "__keypoints_compressed__")
FILE_WIDE: Final = (
    *("misc", "config", "mano", "frame_range"),
    *("keypoints2d_mask", "keypoints3d_mask"),
    *("keypoints2d_convention", "keypoints3d_convention"),
    *BOOKKEEPING,
)
"""Entries that have no row per person."""
KNOWN: Final = frozenset(
    (*KEYPOINTS_2D, *KEYPOINTS_3D, *BOXES, *FAMILIES, "meta", *ROW_TEXTS, *ROW_OTHERS, *FILE_WIDE)
)

Entries = dict[str, Any]
"""The entries of a file by name: dictionaries as they are, keypoints with all joints."""

_REFER_TO_ROWS: Final = ("frame_range", "mano")
"""Entries that refer to row numbers, so they become invalid when rows change."""


def is_mask(key: str) -> bool:
    return key.startswith("keypoints") and key.endswith("_mask")


def is_keypoints(key: str, value: object) -> bool:
    """Whether an entry is a keypoint array, which may be compressed."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 3
    return "keypoints" in key and not is_mask(key) and is_array


def is_list(value: object) -> TypeGuard[np.ndarray | list[Any] | tuple[Any, ...]]:
    """Whether a value is a sequence, which may have one row per person."""
    return value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, list | tuple)


def mask_names(key: str) -> tuple[str, str]:
    """The name of the mask of a keypoint array, and of the one that replaces it if it is absent."""
    return f"{key}_mask", f"{key[: len('keypoints2d')]}_mask"


def is_known(key: str) -> bool:
    return key in KNOWN or (is_mask(key) and key.removesuffix("_mask") in KNOWN)


def expanded(
    values: Shaped[np.ndarray, "N K ..."], present: Int[np.ndarray, " K"], joints: int
) -> Shaped[np.ndarray, "N J ..."]:
    """Values of the joints `present` as those of all `joints`, zero for the others."""
    full = np.zeros((len(values), joints, *values.shape[2:]), values.dtype)
    full[:, present] = values
    return full


def stated_flat_hands(entries: Mapping[str, Any]) -> Bool[np.ndarray, " N"] | None:
    """flat_hand_mean of each row, from its rows or else from the file; None if it has neither."""
    for family in FAMILIES:
        of_rows = entries.get(family, {}).get("flat_hand_mean")
        if of_rows is not None:
            rows = np.asarray(of_rows).reshape(len(entries["image_path"]), -1)
            return np.logical_or.reduce(rows != 0, axis=1)
    of_file = entries.get("misc", {}).get("flat_hand_mean")
    if of_file is None:
        return None
    return np.full(len(entries["image_path"]), bool(np.all(of_file)))


def subtract_mean_hand(
    parameters: Mapping[str, Any], flat: Bool[np.ndarray, " N"]
) -> dict[str, Any]:
    """Parameters (or columns) with hands (N, 15, 3) of the marked rows converted from relative to
    the flat hand to relative to the mean hand. Their flat_hand_mean is left out."""
    changed = {name: value for name, value in parameters.items() if name != "flat_hand_mean"}
    for side in SIDES:
        pose = changed.get(f"{side}_hand_pose")
        if pose is not None:
            pose = np.asarray(pose)
            mean = np.array(HANDS_MEAN[side], pose.dtype)
            relative = pose.reshape(len(flat), 15, 3) - flat[:, None, None] * mean
            changed[f"{side}_hand_pose"] = relative
    return changed


class HumanDataFile:
    """The entries of an .npz or pickle; those of an .npz are read on first use."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: the file is missing or not an .npz or a pickle of a dictionary.
        """
        self.path = path
        self._entries: Mapping[str, Any] | None = None
        if path.suffix in (".pkl", ".pickle"):
            content = load_pickle(path)
            if not isinstance(content, Mapping):
                raise UserError(f"{path} contains no dictionary; give a HumanData file")
            self._entries = content
        self.names = names_in_npz(path) if self._entries is None else list(self._entries)

    def get(self, key: str) -> Any:
        """None if the file has no such entry, or an empty one."""
        entries = load_npz(self.path, {key}) if self._entries is None else self._entries
        value = entries.get(key)
        return value.item() if isinstance(value, np.ndarray) and value.shape == () else value

    def require(self, key: str) -> Any:
        """Like `get`, but a missing entry is a UserError."""
        value = self.get(key)
        if value is None:
            raise self.wrong(key, f"missing; {self.advice_on_format()}")
        return value

    def advice_on_format(self) -> str:
        """Advice for a file that is not a HumanData file."""
        if self.get("imgname") is not None and self.get("pose_cam") is not None:
            return "these are BEDLAM's own labels, give its HumanData file (docs/datasets.md)"
        return "give a HumanData file"

    def dictionary(self, key: str) -> Mapping[str, Any]:
        """An entry that is a dictionary; empty if it is absent."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"is a {type(value).__name__}, not a dictionary")
        return value

    def mask(self, key: str) -> np.ndarray | None:
        """The mask of a keypoint array, of whatever shape."""
        masks = (self.get(name) for name in mask_names(key))
        return next((np.asarray(mask) for mask in masks if mask is not None), None)

    def stored_joints(self, key: str, stored: int) -> tuple[Int[np.ndarray, " K"], int]:
        """The joints that a keypoint array of `stored` joints has, and the size of its full set.

        Raises:
            UserError: its mask is missing or does not fit.
        """
        mask = self.mask(key)
        if mask is None:
            if stored not in JOINT_COUNTS:
                sets = "190, 144 or 127 joints"
                raise self.wrong(key, f"{stored} joints and no '{key}_mask'; give it, or {sets}")
            return np.arange(stored), stored
        if mask.ndim != 1:
            name = next(name for name in mask_names(key) if self.get(name) is not None)
            raise self.wrong(name, f"has shape {mask.shape}, expected (joints,)")
        # An array as long as its mask has all joints, whatever the flag of the file is.
        present = np.arange(stored) if len(mask) == stored else np.flatnonzero(mask == 1)
        if len(present) != stored:
            found = f"{stored} joints; the mask has {len(present)} of {len(mask)}"
            raise self.wrong(key, found)
        return present, len(mask)

    def wrong(self, key: str, reason: str, row: int | None = None) -> UserError:
        """The error of an entry, with the path and if known the row."""
        place = f"entry '{key}'" if row is None else f"entry '{key}', row {row}"
        return UserError(f"{self.path}: {place}: {reason}")


def texts(file: HumanDataFile, key: str, value: Any, length: int | None) -> np.ndarray:
    """An entry as an array of `length` strings (None: of any length).

    Raises:
        UserError: the value is something else; the message names the row.
    """
    texts = np.asarray(value) if np.ndim(value) == 1 else np.asarray(None)
    if texts.ndim != 1:
        raise file.wrong(key, "is not a list of strings")
    if texts.dtype.kind != "U":
        row = next((i for i, text in enumerate(value) if not isinstance(text, str)), None)
        if row is not None:
            raise file.wrong(key, f"{value[row]!r} is not a string", row)
        texts = texts.astype(str)
    _check_length(file, key, texts, length)
    return texts


def numbers(file: HumanDataFile, key: str, value: Any, length: int) -> Float32[np.ndarray, "N ..."]:
    """An entry as an array of numbers with `length` rows.

    Raises:
        UserError: the value is something else; the message names the row.
    """
    try:
        array = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise _uneven(file, key, value) from error
    if array.ndim == 0:
        raise file.wrong(key, "is one value, not a list")
    _check_length(file, key, array, length)
    return array


def _uneven(file: HumanDataFile, key: str, value: Any) -> UserError:
    """An error that names the row of a list that is not numeric, or has a different shape."""
    shape = None
    for row, item in enumerate(value):
        try:
            array = np.asarray(item, dtype=np.float32)
        except (ValueError, TypeError):
            return file.wrong(key, f"{str(item)[:40]!r} is not a number", row)
        if shape is not None and array.shape != shape:
            return file.wrong(key, f"has shape {array.shape}, the rows before {shape}", row)
        shape = array.shape
    return file.wrong(key, "is not an array of numbers")


def _check_length(file: HumanDataFile, key: str, column: np.ndarray, length: int | None) -> None:
    if length is not None and len(column) != length:
        short = len(column) if len(column) < length else None
        raise file.wrong(key, f"has {len(column)} rows, image_path has {length}", short)


def read_entries(path: Path) -> Entries:
    """All entries of a file, except empty ones and flags of the container.

    Raises:
        UserError: an entry does not have one row per person; the message names the entry.
    """
    file = HumanDataFile(path)
    entries = {key: file.get(key) for key in file.names if key not in BOOKKEEPING}
    entries = {key: value for key, value in entries.items() if value is not None}
    entries["image_path"] = texts(file, "image_path", file.require("image_path"), None)
    length = len(entries["image_path"])
    for key, value in entries.items():
        if key in DICTIONARIES:
            entries[key] = _rows_of_dictionary(file, key, length)
        elif is_keypoints(key, value):
            entries[key] = _with_all_joints(file, key, np.asarray(value))
        if key in (*BOXES, *KEYPOINTS_2D, *KEYPOINTS_3D, *ROW_TEXTS) and len(value) != length:
            raise file.wrong(key, f"has {len(value)} rows, image_path has {length}")
    return entries


def _rows_of_dictionary(file: HumanDataFile, key: str, length: int) -> dict[str, Any]:
    rows = {name: value for name, value in file.dictionary(key).items() if value is not None}
    for name, value in rows.items():
        if key != "misc" and is_list(value) and len(value) != length:
            raise file.wrong(f"{key}.{name}", f"has {len(value)} rows, image_path has {length}")
    return rows


def _with_all_joints(file: HumanDataFile, key: str, points: np.ndarray) -> np.ndarray:
    """Keypoints with all joints of the full set, zero where the mask has none."""
    if key not in (*KEYPOINTS_2D, *KEYPOINTS_3D) and file.mask(key) is None:
        return points
    return expanded(points, *file.stored_joints(key, points.shape[1]))


def is_row_entry(key: str, value: Any, length: int) -> bool:
    """Whether a top-level entry has one value per row; for unknown entries, the length decides."""
    if key in FILE_WIDE or is_mask(key):
        return False
    return is_list(value) and len(value) == length


def take_rows(entries: Entries, rows: Int[np.ndarray, " K"]) -> Entries:
    """The entries with only some rows, in the given order, and unchanged masks."""
    length = len(entries["image_path"])
    taken: Entries = {}
    for key, value in without_row_references(entries).items():
        if isinstance(value, Mapping) and key != "misc":
            taken[key] = {
                name: _taken(column, rows) if is_list(column) else column
                for name, column in value.items()
            }
        else:
            taken[key] = _taken(value, rows) if is_row_entry(key, value, length) else value
    return taken


def without_row_references(entries: Entries) -> Entries:
    """Remove entries that refer to row numbers, with a warning for each."""
    for key in _REFER_TO_ROWS:
        if key in entries:
            log.warning("entry '%s' is left out: it refers to the rows of its file", key)
    return {key: value for key, value in entries.items() if key not in _REFER_TO_ROWS}


def _taken(column: Any, rows: Int[np.ndarray, " K"]) -> Any:
    if isinstance(column, list | tuple):
        return [column[row] for row in rows.tolist()]
    return column[rows]


def as_numbers(value: Any) -> Float32[np.ndarray, "..."] | None:
    """Numbers as an array; None if the value is absent, not numeric, or ragged."""
    if value is None or isinstance(value, Mapping | str):
        return None
    try:
        return np.asarray(value, np.float32)
    except (ValueError, TypeError):
        return None

"""Writing HumanData files: the one way in this project."""

import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from datasets.humandata.layout import (
    BOOKKEEPING,
    JOINT_COUNTS,
    JOINTS,
    ROW_TEXTS,
    is_keypoints,
    is_mask,
    mask_names,
)
from utils.errors import UserError
from utils.files import atomic_path

_PICKLE_PROTOCOL: Final = 3
"""NumPy's own for .npz files up to its version 1.26, by which the published files are written."""


def write_humandata(
    path: Path, entries: Mapping[str, Any], *, compress_keypoints: bool = True
) -> None:
    """Write an .npz as mmhuman3d and the published code read it, whole or not at all.

    `entries` are those of the format, a row a person: image_path (N) of str, bbox_xywh (N 5),
    keypoints2d_* (N J 3), keypoints3d_* (N J 4), dictionaries smplx, meta, misc and so on; None is
    left out. Keypoints are given whole: all 190 joints, or the first 144 or 127, which are brought
    to 190; those without a confidence are confident (1). A keypoint array KEY gets the mask
    KEY_mask (190) of `entries`, else their keypoints2d_mask or keypoints3d_mask, else one made of
    the confidences as mmhuman3d does it: a joint exists if any row is confident of it. Compressed
    arrays hold the joints of the mask alone. `__key_strict__` is False, since the extra entries of
    files in the wild are kept; the other bookkeeping is written anew.

    Raises:
        UserError: an entry does not fit the format or the number of rows.
    """
    given = {key: value for key, value in entries.items() if value is not None}
    if "image_path" not in given:
        raise UserError(f"cannot write {path}: entry 'image_path' is missing; give every row's")
    length = len(given["image_path"])
    written = {key: _plain(key, value) for key, value in given.items() if key not in BOOKKEEPING}
    for key, value in written.items():
        if is_mask(key):
            written[key] = _mask(path, key, value)
    for key in [key for key, value in written.items() if is_keypoints(key, value)]:
        points, mask = _keypoints(path, key, written, compressed=compress_keypoints)
        if len(points) != length:
            found = f"has {len(points)} rows, image_path has {length}"
            raise UserError(f"cannot write {path}: entry '{key}' {found}")
        written[key], written[mask_names(key)[0]] = points, mask
    written |= {
        "__key_strict__": np.array(False),
        "__data_len__": np.array(length),
        "__keypoints_compressed__": np.array(compress_keypoints),
    }
    with (
        atomic_path(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for key, array in written.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if array.dtype.hasobject:
                    header = np.lib.format.header_data_from_array_1_0(array)
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(_pickled(array))
                else:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _plain(key: str, value: Any) -> np.ndarray:
    """The array that numpy would save for a value: a dictionary as an object of no dimensions."""
    if isinstance(value, Mapping):
        array = np.empty((), dtype=object)
        array[()] = dict(value)
        return array
    return np.asarray(value, dtype=str) if key in ROW_TEXTS else np.asarray(value)


def _mask(path: Path, key: str, value: np.ndarray) -> UInt8[np.ndarray, " J"]:
    if value.ndim != 1 or not np.isin(value, (0, 1)).all():
        raise UserError(f"cannot write {path}: entry '{key}' is no list of 0 and 1, one a joint")
    return _all_joints(value.astype(np.uint8)[None])[0]


def _keypoints(
    path: Path, key: str, written: Mapping[str, np.ndarray], *, compressed: bool
) -> tuple[np.ndarray, UInt8[np.ndarray, " J"]]:
    """An array as it is stored, and its mask."""
    points = written[key]
    if points.shape[2] == (2 if key.startswith("keypoints2d") else 3):
        confident = np.ones_like(points[..., :1])
        points = np.concatenate([points, confident], axis=2)
    points = _all_joints(points)
    given = [written[name] for name in mask_names(key) if name in written]
    seen = np.logical_or.reduce(points[..., -1] > 0, axis=0)
    mask = given[0] if given else seen.astype(np.uint8)
    if len(mask) != points.shape[1]:
        found = f"has {points.shape[1]} joints, its mask {len(mask)}"
        raise UserError(f"cannot write {path}: entry '{key}' {found}; give all of them")
    return points[:, mask == 1] if compressed else points, mask


def _all_joints(values: np.ndarray) -> np.ndarray:
    """Joints on the second axis: the known smaller sets are padded with zeros, others kept."""
    count = values.shape[1]
    if count not in JOINT_COUNTS or count == JOINTS:
        return values
    padding = [(0, 0)] * values.ndim
    padding[1] = (0, JOINTS - count)
    return np.pad(values, padding)


def _pickled(array: np.ndarray) -> bytes:
    """A pickle that NumPy 1 reads as well: its module `numpy.core` became `numpy._core` in 2."""
    content = pickle.dumps(array, protocol=_PICKLE_PROTOCOL)
    pieces, done = [], 0
    for opcode, argument, position in pickletools.genops(content):
        assert position is not None
        if opcode.name == "GLOBAL" and str(argument).startswith("numpy._core."):
            start = position + len(b"c")
            pieces += [content[done:start], b"numpy.core."]
            done = start + len(b"numpy._core.")
    return b"".join([*pieces, content[done:]])

"""Writes HumanData files, and makes their entries from parameters, joints and cameras."""

import logging
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from datasets.humandata.file import (
    BOOKKEEPING,
    JOINT_COUNTS,
    JOINTS,
    ROW_TEXTS,
    Entries,
    expanded,
    is_keypoints,
    is_mask,
    mask_names,
    take_rows,
)
from human_models.joints import FACE_KEYPOINTS, HAND_KEYPOINTS, JOINTS_FROM_MODEL, MODEL_JOINTS
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

_PICKLE_PROTOCOL: Final = 3
"""That of NumPy up to 1.26 for .npz files, which wrote the published files."""
BODY_BOX_SCALE: Final = 1.2
"""Padding of body boxes in the format."""
MISC: Final[Entries] = {
    "flat_hand_mean": False,
    "kps3d_root_aligned": False,
    "bbox_body_scale": BODY_BOX_SCALE,
    "bbox_hand_scale": 1.0,
    "bbox_face_scale": 1.0,
    "cam_param_type": "perspective",
}
"""Settings in files that are written here."""
_PART_JOINTS: Final = {
    part: [MODEL_JOINTS.index(name) for name in names]
    for part, names in (
        ("lhand", HAND_KEYPOINTS["left"]),
        ("rhand", HAND_KEYPOINTS["right"]),
        ("face", FACE_KEYPOINTS),
    )
}


def write_humandata(path: Path, entries: Mapping[str, Any]) -> None:
    """Write an .npz that mmhuman3d and the published code can read, atomically.

    `entries` are those of the format, one row per person: image_path (N) of str, bbox_xywh (N 5),
    keypoints2d_* (N J 3), keypoints3d_* (N J 4), dictionaries smplx, meta, misc and so on; values
    that are None are left out. Keypoints have all 190 joints, or the first 144 or 127, which are
    padded to 190; a missing confidence becomes 1. The mask of a keypoint array KEY is KEY_mask
    (190) of `entries`, else their keypoints2d_mask or keypoints3d_mask, else made from confidences
    as in mmhuman3d: a joint exists if its confidence is positive in any row. Files contain only
    the joints of the mask. `__key_strict__` is False, because extra entries are kept;
    the other flags of the container are rewritten.

    Raises:
        UserError: an entry does not fit the format or the number of rows.
    """
    present = {key: value for key, value in entries.items() if value is not None}
    if "image_path" not in present:
        raise UserError(
            f"cannot write {path}: entry 'image_path' is missing; give it for every row"
        )
    length = len(present["image_path"])
    written = {key: _plain(key, value) for key, value in present.items() if key not in BOOKKEEPING}
    for key, value in written.items():
        if is_mask(key):
            written[key] = _mask(path, key, value)
    for key in [key for key, value in written.items() if is_keypoints(key, value)]:
        points, mask = complete_keypoints(path, key, written)
        if len(points) != length:
            found = f"has {len(points)} rows, image_path has {length}"
            raise UserError(f"cannot write {path}: entry '{key}' {found}")
        written[key] = points[:, mask == 1]
        written[mask_names(key)[0]] = mask
    written |= {
        "__key_strict__": np.array(False),
        "__data_len__": np.array(length),
        "__keypoints_compressed__": np.array(True),
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
    """The array that NumPy saves for a value: a dictionary is an object without dimensions."""
    if isinstance(value, Mapping):
        array = np.empty((), dtype=object)
        array[()] = dict(value)
        return array
    return np.asarray(value, dtype=str) if key in ROW_TEXTS else np.asarray(value)


def _mask(path: Path, key: str, value: np.ndarray) -> UInt8[np.ndarray, " J"]:
    if value.ndim != 1 or not np.isin(value, (0, 1)).all():
        raise UserError(
            f"cannot write {path}: entry '{key}' is not a list of 0 and 1, one per joint"
        )
    return _all_joints(value.astype(np.uint8)[None])[0]


def complete_keypoints(
    path: Path, key: str, entries: Mapping[str, Any]
) -> tuple[np.ndarray, UInt8[np.ndarray, " J"]]:
    """A keypoint array with all joints and confidences, and its mask.

    Raises:
        UserError: the mask has another number of joints; the message names `path`.
    """
    points = entries[key]
    if points.shape[2] == (2 if key.startswith("keypoints2d") else 3):
        confident = np.ones_like(points[..., :1])
        points = np.concatenate([points, confident], axis=2)
    points = _all_joints(points)
    stated = [entries[name] for name in mask_names(key) if name in entries]
    if stated:
        mask = _all_joints((np.asarray(stated[0]) == 1)[None])[0]
    else:
        mask = np.logical_or.reduce(points[..., -1] > 0, axis=0)
    if len(mask) != points.shape[1]:
        found = f"has {points.shape[1]} joints, its mask {len(mask)}"
        raise UserError(f"cannot write {path}: entry '{key}' {found}; give all of them")
    return points, mask.astype(np.uint8)


def _all_joints(values: np.ndarray) -> np.ndarray:
    """Pad the known smaller joint sets (on the second axis) with zeros; keep others."""
    count = values.shape[1]
    if count not in JOINT_COUNTS or count == JOINTS:
        return values
    return expanded(values, np.arange(count), JOINTS)


def _pickled(array: np.ndarray) -> bytes:
    """A pickle that NumPy 1 can also read, in which `numpy._core` was called `numpy.core`."""
    content = pickle.dumps(array, protocol=_PICKLE_PROTOCOL)
    pieces, done = [], 0
    for opcode, argument, position in pickletools.genops(content):
        assert position is not None
        if opcode.name == "GLOBAL" and str(argument).startswith("numpy._core."):
            start = position + len(b"c")
            pieces += [content[done:start], b"numpy.core."]
            done = start + len(b"numpy._core.")
    return b"".join([*pieces, content[done:]])


class People(NamedTuple):
    """N people in images, one row each; metres and radians in the camera's frame, pixels."""

    image_path: list[str]
    image_size: Int[np.ndarray, "N 2"]
    """Width and height."""
    parameters: dict[str, np.ndarray]
    """SMPL-X parameters by the names of the format; hands relative to the mean hand."""
    joints_2d: Float[np.ndarray, "N 190 2"]
    joints_3d: Float[np.ndarray, "N 190 3"]
    joints_known: Bool[np.ndarray, "190"]
    focal: Float[np.ndarray, "N 2"]
    princpt: Float[np.ndarray, "N 2"]
    boxes: Float[np.ndarray, "N 5"]
    """x, y, width, height, confidence of bodies, not padded; NaN: use the box of the joints."""


def scatter_network_joints(
    joints: Float[np.ndarray, "N 137 D"],
) -> tuple[Float[np.ndarray, "N 190 D"], Bool[np.ndarray, "190"]]:
    """The joints of the network at their indices in HumanData, and which indices they fill.

    This uses the order of the network (JOINTS_FROM_MODEL), because the table for reading files
    swaps the eyes.
    """
    known = np.isin(np.arange(JOINTS), JOINTS_FROM_MODEL)
    return expanded(joints.astype(np.float32), np.array(JOINTS_FROM_MODEL), JOINTS), known


def humandata_entries(people: People) -> Entries:
    """Entries for `write_humandata`. Body boxes are padded by 1.2 and clipped to the image, boxes
    of hands and faces enclose their joints; people with boxes outside the image are left out.

    Raises:
        UserError: nobody is inside an image.
    """
    in_front = (people.joints_3d[..., 2] > 0) & people.joints_known
    confidence = in_front[..., None].astype(np.float32)
    joints_2d = np.concatenate([people.joints_2d, confidence], axis=2).astype(np.float32)
    joints_3d = np.concatenate([people.joints_3d, confidence], axis=2).astype(np.float32)
    has_box = np.isfinite(people.boxes).all(axis=1)
    tight = np.where(has_box[:, None], people.boxes, _enclosing(joints_2d))
    body = _clipped(_padded(tight), people.image_size)
    parts = {
        f"{part}_bbox_xywh": _clipped(_enclosing(joints_2d[:, joints]), people.image_size)
        for part, joints in _PART_JOINTS.items()
    }
    mask = people.joints_known.astype(np.uint8)
    rotations = {
        name: values.reshape(len(values), -1, 3) if values.shape[1] in (45, 63) else values
        for name, values in people.parameters.items()
    }
    entries: Entries = {
        "image_path": np.array(people.image_path, dtype=str),
        "bbox_xywh": body,
        **parts,
        "keypoints2d_smplx": joints_2d * in_front[..., None],
        "keypoints2d_smplx_mask": mask,
        "keypoints3d_smplx": joints_3d * in_front[..., None],
        "keypoints3d_smplx_mask": mask,
        "smplx": {name: values.astype(np.float32) for name, values in rotations.items()},
        "meta": {
            "height": people.image_size[:, 1].tolist(),
            "width": people.image_size[:, 0].tolist(),
            "focal_length": people.focal.astype(np.float32),
            "principal_point": people.princpt.astype(np.float32),
        },
        "misc": dict(MISC),
    }
    inside = body[:, 2] > 0
    if not inside.any():
        raise UserError("nobody is inside an image; check the cameras and the translations")
    if not inside.all():
        log.warning("%d people outside their images are left out", int((~inside).sum()))
    return take_rows(entries, np.flatnonzero(inside))


def _enclosing(joints: Float[np.ndarray, "N J 3"]) -> Float[np.ndarray, "N 5"]:
    """Boxes around confident joints; without an area if there are none."""
    seen = joints[..., 2:] > 0
    first = np.where(seen, joints[..., :2], np.inf).min(axis=1)
    last = np.where(seen, joints[..., :2], -np.inf).max(axis=1)
    size = np.where(np.isfinite(first), np.maximum(last - first, 0), 0)
    start = np.where(np.isfinite(first), first, 0)
    return np.concatenate([start, size, np.ones((len(joints), 1))], axis=1)


def _padded(boxes: Float[np.ndarray, "N 5"]) -> Float[np.ndarray, "N 5"]:
    padded = boxes.copy()
    padded[:, :2] -= boxes[:, 2:4] * (BODY_BOX_SCALE - 1) / 2
    padded[:, 2:4] *= BODY_BOX_SCALE
    return padded


def _clipped(
    boxes: Float[np.ndarray, "N 5"], image_size: Int[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N 5"]:
    """The part inside the image; all zero if there is none."""
    start = np.clip(boxes[:, :2], 0, image_size)
    end = np.clip(boxes[:, :2] + boxes[:, 2:4], 0, image_size)
    clipped = np.concatenate([start, end - start, boxes[:, 4:]], axis=1)
    empty = ((end - start) < 2).any(axis=1)  # boxes of less than two pixels have no area
    return np.where(empty[:, None], 0, clipped).astype(np.float32)

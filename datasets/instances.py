"""The people of an annotation file as complete columns: one convention, unknown values marked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from configs.schema import Protocol
from datasets.humandata.file import FAMILIES, subtract_mean_hand
from datasets.humandata.reader import Columns, HumanData, read_humandata
from datasets.sources import Source, Split, keep, keep_usable, use_neutral_betas
from human_models.joints import HAND_KEYPOINTS, JOINTS, POSE_JOINTS, POSE_PARTS, SIDES, joint_places
from utils.camera import have_area
from utils.errors import UserError
from utils.files import is_below

VERSION: Final = 3
"""Version of the columns and of the rules that fill them; a change invalidates all caches."""


class Instance(NamedTuple):
    """One person in one image: a row of a dataset after its fixes, before any augmentation.

    Pixels are those of the stored image, before it is turned according to EXIF data. Metres and
    rotations are in the camera's frame (x right, y down, z forward). Rotations are axis-angle
    vectors in radians, hands relative to the mean hand. Missing values are zero and not valid.
    """

    row: int
    """Number of the row in the dataset's files, counted over all slices."""
    image_path: str
    """Relative to the dataset's folder of images."""
    image_size: tuple[int, int]
    """Width and height in pixels; (0, 0) if they must be read from the image."""
    body_box: Float32[np.ndarray, "4"]
    """x, y, width, height; already padded by the dataset."""
    joints_2d: Float32[np.ndarray, "137 2"]
    joints_3d: Float32[np.ndarray, "137 3"]
    has_joints_3d: bool
    joints_valid: Float32[np.ndarray, "137"]
    pose: Float32[np.ndarray, "53 3"]
    """joints.POSE_JOINTS."""
    pose_valid: Bool[np.ndarray, "53"]
    betas: Float32[np.ndarray, "10"]
    expression: Float32[np.ndarray, "10"]
    expression_valid: bool
    transl: Float32[np.ndarray, "3"]
    hand_roots: Float32[np.ndarray, "2 3"]
    """Global orientation of the left and right hand; only hand-only datasets have it."""
    gender: str
    """neutral, male or female; that of the SMPL parameters if there are any."""
    smpl_pose: Float32[np.ndarray, "24 3"]
    smpl_betas: Float32[np.ndarray, "10"]
    has_smpl: bool
    vertices_path: str
    """File of ground-truth vertices, relative to the images; empty if there is none."""


NUMBER_COLUMNS: Final[dict[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "row": (np.int64, ()),
    "image_size": (np.int32, (2,)),
    "body_box": (np.float32, (4,)),
    "joints_2d": (np.float32, (len(JOINTS), 2)),
    "joints_3d": (np.float32, (len(JOINTS), 3)),
    "has_joints_3d": (np.bool_, ()),
    "joints_valid": (np.uint8, (len(JOINTS),)),
    "pose": (np.float32, (len(POSE_JOINTS), 3)),
    "pose_valid": (np.bool_, (len(POSE_JOINTS),)),
    "betas": (np.float32, (10,)),
    "expression": (np.float32, (10,)),
    "expression_valid": (np.bool_, ()),
    "transl": (np.float32, (3,)),
    "hand_roots": (np.float32, (2, 3)),
    "smpl_pose": (np.float32, (24, 3)),
    "smpl_betas": (np.float32, (10,)),
    "has_smpl": (np.bool_, ()),
}
"""Type and shape of a row of each numeric column; the columns of texts are:"""
TEXT_COLUMNS: Final = ("image_path", "gender", "vertices_path")
_GENDERS = {"m": "male", "f": "female"}


def read_columns(
    source: Source, split: Split, path: Path, *, interval: int, protocol: Protocol
) -> tuple[Columns, int]:
    """The complete columns of one file of a dataset, and the number of rows of the file.

    Raises:
        UserError: something is wrong; the message names file, entry and if possible the row.
    """
    families = source.test_families if split == "test" else FAMILIES
    needs_truth = not source.without_truth
    data = read_humandata(path, interval=interval, families=families, need_joints=needs_truth)
    if not data.family and needs_truth:
        names = " or ".join(families)
        raise UserError(f"{path}: no body parameters; expected an entry '{names}'")
    columns = complete(data, source, protocol)
    _check_paths(path, columns)
    return columns, data.length


def _check_paths(path: Path, columns: Columns) -> None:
    """Refuse rows that name a file outside of the folder of images."""
    for key, entry in (("image_path", "image_path"), ("vertices_path", "vertices3d_path")):
        names = columns[key].astype(str)
        suspect = np.strings.find(names, "..") >= 0
        for mark in ("/", "\\", ":"):  # of absolute paths and drives
            suspect |= np.strings.find(names, mark, 0, 2) >= 0
        for place in np.flatnonzero(suspect):
            if not is_below(str(names[place])):
                raise UserError(
                    f"{path}: entry '{entry}', row {columns['row'][place]}: '{names[place]}' is "
                    "not a path within the folder of images; give it relative to that folder"
                )


def complete(data: HumanData, source: Source, protocol: Protocol) -> Columns:
    """Apply the fixes of the dataset, and make a column for every field of `Instance`.

    With the protocol "published", only the table decides whether hands are relative to the flat
    hand; with "correct", the file decides if it says so.
    """
    columns = data.columns if source.without_truth else keep_usable(data.columns)
    for fix in (use_neutral_betas, *source.fixes):
        columns = fix(columns)
    columns = {**columns, "image_size": _image_size(columns, source)}
    columns = keep(columns, have_area(columns["body_box"], columns["image_size"]))
    count = len(columns["row"])
    flat = np.full(count, source.flat_hands)
    if protocol == "correct":
        flat = columns.get("flat_hands", flat)
    columns = subtract_mean_hand(columns, flat)

    pose, pose_valid = _pose(columns)
    has_face = _has_face(columns)
    is_smpl = data.family == "smpl"
    betas = columns["betas"]
    zeros = np.zeros_like(betas)
    completed = {
        "has_joints_3d": np.full(count, "joints_3d" in columns),
        "joints_valid": _joints_valid(columns["joints_valid"], pose_valid),
        "pose": pose,
        "pose_valid": pose_valid,
        "betas": betas if data.family == "smplx" else zeros,  # betas of other models do not apply
        "expression": _optional(columns, "expression", (10,)) * has_face[:, None],
        "expression_valid": has_face,
        "hand_roots": np.stack(
            [_optional(columns, f"{side}_hand_root", (3,)) for side in SIDES], axis=1
        ),
        "smpl_pose": _smpl_pose(columns) if is_smpl else np.zeros((count, 24, 3), np.float32),
        "smpl_betas": betas if is_smpl else zeros,
        "has_smpl": np.full(count, is_smpl),
        "gender": _genders(columns),
        "vertices_path": columns.get("vertices_path", np.full(count, "")),
        "image_path": columns["image_path"],
    }
    for name, (dtype, shape) in NUMBER_COLUMNS.items():
        column = completed[name] if name in completed else _optional(columns, name, shape)
        completed[name] = np.ascontiguousarray(column, dtype)
        assert completed[name].shape == (count, *shape)
    return completed


def instance(columns: Mapping[str, np.ndarray], i: int, texts: Mapping[str, str]) -> Instance:
    """Row `i`, with copies of its arrays."""
    values: dict[str, Any] = {
        name: columns[name][i].copy() if shape else columns[name][i].item()
        for name, (_, shape) in NUMBER_COLUMNS.items()
    }
    values["image_size"] = tuple(values["image_size"].tolist())
    values["joints_valid"] = values["joints_valid"].astype(np.float32)
    return Instance(**values | dict(texts))


def _optional(columns: Columns, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name in columns:
        return columns[name]
    return np.zeros((len(columns["row"]), *shape), np.float32)


def _image_size(columns: Columns, source: Source) -> Float32[np.ndarray, "N 2"]:
    """Sizes from the file, else from the table; zero if they must be read from the image."""
    sizes = np.nan_to_num(_optional(columns, "image_size", (2,)))
    stated = (sizes > 0).all(axis=1, keepdims=True)
    return np.where(stated, sizes, np.array(source.image_size or (0, 0), np.float32))


def _pose(columns: Columns) -> tuple[Float32[np.ndarray, "N 53 3"], Bool[np.ndarray, "N 53"]]:
    """Rotations, and which of them are known: bodies and hands that are all zero are not."""
    count = len(columns["row"])
    pose = np.zeros((count, len(POSE_JOINTS), 3), np.float32)
    valid = np.zeros((count, len(POSE_JOINTS)), bool)
    body = _optional(columns, "body_pose", (21, 3))[:, :21]  # SMPL's last two are its hands
    valid[:, POSE_PARTS["body"]] = (body != 0).any(axis=(1, 2))[:, None]
    pose[:, 0] = _optional(columns, "global_orient", (3,))
    valid[:, 0] &= "global_orient" in columns
    pose[:, 1:22] = body
    for side in SIDES:
        part = POSE_PARTS[f"{side}_hand"]
        pose[:, part] = _optional(columns, f"{side}_hand_pose", (15, 3))
        valid[:, part] = (pose[:, part] != 0).any(axis=(1, 2))[:, None]
    has_face = _has_face(columns)[:, None]
    pose[:, POSE_PARTS["face"]] = (_optional(columns, "jaw_pose", (3,)) * has_face)[:, None]
    valid[:, POSE_PARTS["face"]] = has_face
    return pose, valid


def _has_face(columns: Columns) -> Bool[np.ndarray, " N"]:
    """Rows with a known face: jaw and expression are only known together."""
    return np.full(len(columns["row"]), {"jaw_pose", "expression"} <= columns.keys())


def _joints_valid(
    mask: UInt8[np.ndarray, "N 137"], pose_valid: Bool[np.ndarray, "N 53"]
) -> UInt8[np.ndarray, "N 137"]:
    """The mask of the file; a hand and its wrist are also known if its rotations are known."""
    valid = mask.copy()
    for side in SIDES:
        known = pose_valid[:, POSE_PARTS[f"{side}_hand"].start]
        valid[:, joint_places(HAND_KEYPOINTS[side])] = known[:, None]
    return valid


def _smpl_pose(columns: Columns) -> Float32[np.ndarray, "N 24 3"]:
    root = _optional(columns, "global_orient", (3,))
    return np.concatenate([root[:, None], _optional(columns, "body_pose", (23, 3))], axis=1)


def _genders(columns: Columns) -> np.ndarray:
    stated = columns.get("gender", np.full(len(columns["row"]), ""))
    words, which = np.unique(stated, return_inverse=True)
    full = np.array([_GENDERS.get(word[:1].lower(), "neutral") for word in words], dtype=str)
    return full[which]

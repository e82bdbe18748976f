"""From an annotation file to complete columns, and from a row of these to an `Instance`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from datasets.humandata.layout import FAMILIES, subtract_mean_hand
from datasets.humandata.reader import Columns, HumanData, read_humandata
from datasets.sources import DROPPING_FIXES, Source, Split, keep, use_neutral_betas
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS, POSE_PARTS, SIDES
from utils.box import have_area
from utils.errors import UserError
from utils.files import is_below

ReadingProtocol = Literal["correct", "published"]
"""published: whether hands are given from the flat hand is decided by the table alone, as in the
published code; correct: a file's own statement comes first."""


class Instance(NamedTuple):
    """One person in one image: a row of a dataset after its own fixes, before any augmentation.

    Pixels are those of the image as it is stored, before any turn by EXIF; metres and rotations are
    in the camera's frame (x right, y down, z forward). Rotations are axis-angle vectors in radians,
    hands relative to the mean hand. What a dataset lacks is zero and marked as not valid.
    """

    row: int
    """Number of the row in the dataset's files, counted over all slices."""
    image_path: str
    """Relative to the dataset's folder of images."""
    image_size: tuple[int, int]
    """Width and height in pixels; (0, 0) where only the image itself has it."""
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
    """Global orientation of the left and right hand; hand-only datasets have nothing else."""
    gender: str
    """neutral, male or female; of the SMPL parameters where there are any."""
    smpl_pose: Float32[np.ndarray, "24 3"]
    smpl_betas: Float32[np.ndarray, "10"]
    has_smpl: bool
    vertices_path: str
    """File of ground-truth vertices, relative to the images; empty where there is none."""


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
"""Type and shape of a row of every column of complete numbers; the texts are:"""
TEXT_COLUMNS: Final = ("image_path", "gender", "vertices_path")
_GENDERS = {"m": "male", "f": "female"}
_HAND_JOINTS: Final = {
    side: [*range(len(JOINTS))[JOINT_PARTS[f"{side}_hand"]], JOINTS.index(f"{side}_wrist")]
    for side in SIDES
}


def read_columns(
    source: Source, split: Split, path: Path, *, interval: int, protocol: ReadingProtocol
) -> tuple[Columns, int]:
    """Complete columns of one file of a dataset, and the number of rows that the file has.

    Raises UserError, naming the file, the key and where possible the row, for what is wrong.
    """
    families = source.test_families if split == "test" else FAMILIES
    needs_truth = not source.without_truth
    data = read_humandata(path, interval=interval, families=families, need_joints=needs_truth)
    if not data.family and needs_truth:
        names = " or ".join(families)
        raise UserError(f"{path}: no body parameters; expected an entry '{names}'.")
    columns = complete(data, source, protocol)
    _check_paths(path, columns)
    return columns, data.length


def _check_paths(path: Path, columns: Columns) -> None:
    """Raises UserError where a row names a file that is not below the folder of images."""
    for key, entry in (("image_path", "image_path"), ("vertices_path", "vertices3d_path")):
        names = columns[key].astype(str)
        suspect = np.strings.find(names, "..") >= 0
        for mark in ("/", "\\", ":"):  # a path's beginning, or a drive
            suspect |= np.strings.find(names, mark, 0, 2) >= 0
        for place in np.flatnonzero(suspect):
            if not is_below(str(names[place])):
                raise UserError(
                    f"{path}: entry '{entry}', row {columns['row'][place]}: '{names[place]}' is no "
                    "path within the folder of images; strip what it begins with."
                )


def complete(data: HumanData, source: Source, protocol: ReadingProtocol) -> Columns:
    """The dataset's fixes applied, and a column for everything that an `Instance` holds."""
    columns = data.columns
    dropping = () if source.without_truth else DROPPING_FIXES
    for fix in (*dropping, use_neutral_betas, *source.fixes):
        columns = fix(columns)
    columns = {**columns, "image_size": _image_size(columns, source)}
    columns = keep(columns, have_area(columns["body_box"], columns["image_size"]))
    count = len(columns["row"])
    flat = np.full(count, source.flat_hands)
    if protocol == "correct":
        flat = columns.get("flat_hands", flat)
    columns = subtract_mean_hand(columns, flat)

    pose, pose_valid = _pose(columns)
    is_smpl = data.family == "smpl"
    betas = columns["betas"]
    zeros = np.zeros_like(betas)
    raw = {
        "has_joints_3d": np.full(count, "joints_3d" in columns),
        "joints_valid": _joints_valid(columns["joints_valid"], pose_valid),
        "pose": pose,
        "pose_valid": pose_valid,
        "betas": betas if data.family == "smplx" else zeros,  # the others' mean other bodies
        "expression": _face_part(columns, "expression"),
        "expression_valid": _has_face(columns),
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
        column = raw[name] if name in raw else _optional(columns, name, shape)
        raw[name] = np.ascontiguousarray(column, dtype)
        assert raw[name].shape == (count, *shape)
    return raw


def instance(columns: Mapping[str, np.ndarray], i: int, texts: Mapping[str, str]) -> Instance:
    """Row `i`; its arrays are copies, so that no change to one row shows in another."""
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
    """What the file states, else the table; zero where only the image itself has it."""
    sizes = np.nan_to_num(_optional(columns, "image_size", (2,)))
    stated = (sizes > 0).all(axis=1, keepdims=True)
    return np.where(stated, sizes, np.array(source.image_size or (0, 0), np.float32))


def _pose(
    columns: Columns,
) -> tuple[Float32[np.ndarray, "N 53 3"], Bool[np.ndarray, "N 53"]]:
    """Rotations and which are known: a body or hand that is all zero is not."""
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
    pose[:, POSE_PARTS["face"]] = _face_part(columns, "jaw_pose")[:, None]
    valid[:, POSE_PARTS["face"]] = _has_face(columns)[:, None]
    return pose, valid


def _has_face(columns: Columns) -> Bool[np.ndarray, " N"]:
    """Jaw and expression are only known together."""
    return np.full(len(columns["row"]), {"jaw_pose", "expression"} <= columns.keys())


def _face_part(columns: Columns, name: str) -> np.ndarray:
    values = _optional(columns, name, ({"jaw_pose": 3, "expression": 10}[name],))
    return values * _has_face(columns)[:, None]


def _joints_valid(
    mask: UInt8[np.ndarray, "N 137"], pose_valid: Bool[np.ndarray, "N 53"]
) -> UInt8[np.ndarray, "N 137"]:
    """The file's mask; but a hand and its wrist are known where the hand's rotations are."""
    valid = mask.copy()
    for side in SIDES:
        known = pose_valid[:, POSE_PARTS[f"{side}_hand"].start]
        valid[:, _HAND_JOINTS[side]] = known[:, None]
    return valid


def _smpl_pose(columns: Columns) -> Float32[np.ndarray, "N 24 3"]:
    root = _optional(columns, "global_orient", (3,))
    return np.concatenate([root[:, None], _optional(columns, "body_pose", (23, 3))], axis=1)


def _genders(columns: Columns) -> np.ndarray:
    given = columns.get("gender", np.full(len(columns["row"]), ""))
    words, which = np.unique(given, return_inverse=True)
    full = np.array([_GENDERS.get(word[:1].lower(), "neutral") for word in words], dtype=str)
    return full[which]

"""From what an annotation file says to complete columns, and from a row of these to an Instance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from datasets.fixes import DROPPING_FIXES, keep, subtract_mean_hand, use_neutral_betas
from datasets.humandata.layout import FAMILIES
from datasets.humandata.reader import Columns, HumanData, read_humandata
from datasets.instance import Instance
from datasets.sources import Source, Split
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS, POSE_PARTS, SIDES
from utils.errors import UserError

ReadingProtocol = Literal["correct", "published"]
"""published: whether hands are given from the flat hand is decided by the table alone, as in the
published code; correct: a file's own statement comes first."""

NUMBER_COLUMNS: Final[dict[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "row": (np.int64, ()),
    "image_size": (np.int32, (2,)),
    "body_box": (np.float32, (4,)),
    "part_boxes": (np.float32, (3, 5)),
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
    return complete(data, source, protocol), data.length


def complete(data: HumanData, source: Source, protocol: ReadingProtocol) -> Columns:
    """The dataset's fixes applied, and a column for everything that an Instance tells."""
    columns = data.columns
    dropping = () if source.without_truth else DROPPING_FIXES
    for fix in (*dropping, use_neutral_betas, *source.fixes):
        columns = fix(columns)
    columns = {**columns, "image_size": _image_size(columns, source)}
    columns = keep(columns, has_area(columns["body_box"], columns["image_size"]))
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


def has_area(
    boxes: Float32[np.ndarray, "N 4"], image_size: Float32[np.ndarray, "N 2"]
) -> Bool[np.ndarray, " N"]:
    """Which boxes have an area inside their image, as `utils.box.clip_box` decides it.

    An image of unknown size (0) bounds a box only at its left and top.
    """
    last = np.where(image_size > 0, image_size - 1, np.inf)
    with np.errstate(invalid="ignore"):
        start = np.maximum(0, boxes[:, :2])
        end = np.minimum(last, start + np.maximum(0, boxes[:, 2:] - 1))
        positive = boxes[:, 2] * boxes[:, 3] > 0
    return np.isfinite(boxes).all(axis=1) & positive & (end > start).all(axis=1)


def instance(columns: Mapping[str, np.ndarray], i: int, texts: Mapping[str, str]) -> Instance:
    """Row `i`; its arrays are copies, so that no change to one row shows in another."""
    width, height = columns["image_size"][i].tolist()
    return Instance(
        row=int(columns["row"][i]),
        image_path=texts["image_path"],
        image_size=(width, height),
        body_box=columns["body_box"][i].copy(),
        part_boxes=columns["part_boxes"][i].copy(),
        joints_2d=columns["joints_2d"][i].copy(),
        joints_3d=columns["joints_3d"][i].copy(),
        has_joints_3d=bool(columns["has_joints_3d"][i]),
        joints_valid=columns["joints_valid"][i].astype(np.float32),
        pose=columns["pose"][i].copy(),
        pose_valid=columns["pose_valid"][i].copy(),
        betas=columns["betas"][i].copy(),
        expression=columns["expression"][i].copy(),
        expression_valid=bool(columns["expression_valid"][i]),
        transl=columns["transl"][i].copy(),
        hand_roots=columns["hand_roots"][i].copy(),
        gender=texts["gender"],
        smpl_pose=columns["smpl_pose"][i].copy(),
        smpl_betas=columns["smpl_betas"][i].copy(),
        has_smpl=bool(columns["has_smpl"][i]),
        vertices_path=texts["vertices_path"],
    )


def _optional(columns: Columns, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name in columns:
        return columns[name]
    return np.zeros((len(columns["row"]), *shape), np.float32)


def _image_size(columns: Columns, source: Source) -> Float32[np.ndarray, "N 2"]:
    """What the file states, else the table; zero where only the image itself tells."""
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

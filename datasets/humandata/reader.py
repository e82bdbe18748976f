"""Reads HumanData annotation files, in all variants that are in use, into plain columns.

A HumanData file describes N people, one per row: an .npz, or a pickle of the same dictionary. Its
joints are the 190 of HumanData, or the first 144 or 127 of them, all of them or compressed (only
those of the mask). Columns are read without loops over rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped, UInt8

from datasets.humandata.file import (
    FAMILIES,
    JOINT_COUNTS,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    PART_BOXES,
    TRIPLES,
    HumanDataFile,
    expanded,
    numbers,
    texts,
)
from human_models.joints import JOINTS, JOINTS_FROM_HUMANDATA
from utils.errors import UserError

Columns = dict[str, np.ndarray]
"""Arrays with the people on the first axis; missing entries have no column."""

_UNREAD = ("leye_pose", "reye_pose")  # the network does not estimate eyes
_COLUMN_NAMES = {"lhand_root": "left_hand_root", "rhand_root": "right_hand_root"}
"""Names of columns that differ from those in the file."""
_COEFFICIENTS = ("betas", "betas_neutral", "expression")  # truncated or zero-padded to ten
_META_NUMBERS = ("annot_valid", "iscrowd", "num_keypoints", "valid_label")


class HumanData(NamedTuple):
    """The people of one file.

    `columns`: row (N), image_path (N) of str, body_box (N 4), part_boxes (N 3 5: left hand, right
    hand, face), joints_2d (N 137 2), joints_valid (N 137), and, if the file has them,
    joints_3d (N 137 3), image_size (N 2: width, height), gender (N), vertices_path (N),
    flat_hands (N), the numbers of meta and the parameters: global_orient (N 3), body_pose
    (N 21|23 3), left_hand_pose, right_hand_pose (N 15 3), jaw_pose (N 3), betas, betas_neutral,
    expression (N 10), betas_extra (N K), transl, left_hand_root, right_hand_root (N 3).
    """

    family: str
    """smplx, smpl or smplh; empty if the file has no body parameters."""
    length: int
    """Rows of the file before the interval was applied."""
    columns: Columns


def read_humandata(
    path: Path, *, interval: int = 1, families: Sequence[str] = FAMILIES, need_joints: bool = True
) -> HumanData:
    """Read every `interval`-th row of a file, with parameters of the first family that it has.

    Without `need_joints` a file may lack keypoints.

    Raises:
        UserError: something is wrong; the message names file, entry and if possible the row.
    """
    file = HumanDataFile(path)
    image_path = texts(file, "image_path", file.require("image_path"), None)
    length = len(image_path)
    if length == 0:
        raise file.wrong("image_path", "has no rows")
    columns: Columns = {
        "row": np.arange(length),
        "image_path": image_path,
        "body_box": _boxes(file, "bbox_xywh", file.require("bbox_xywh"), length)[:, :4],
        "part_boxes": _part_boxes(file, length),
    }
    columns = _every(interval, columns)
    columns |= _keypoints(file, length, interval, needed=need_joints)
    columns |= _every(interval, _meta(file, length))
    family = ""
    for name in families:
        if parameters := file.dictionary(name):
            family = name
            columns |= _every(interval, _body_parameters(file, family, parameters, length))
            break
    stated = file.dictionary("misc").get("flat_hand_mean")
    if "flat_hands" not in columns and stated is not None:
        columns["flat_hands"] = np.full(len(columns["row"]), bool(np.all(stated)))
    return HumanData(family, length, columns)


def _every(interval: int, columns: Columns) -> Columns:
    return {name: column[::interval] for name, column in columns.items()}


def _boxes(file: HumanDataFile, key: str, value: Any, length: int) -> Float32[np.ndarray, "N 5"]:
    """x, y, width, height, confidence; old files have no confidence."""
    boxes = numbers(file, key, value, length)
    if boxes.shape == (length, 4):
        return np.concatenate([boxes, np.ones((length, 1), np.float32)], axis=1)
    if boxes.shape != (length, 5):
        raise file.wrong(key, f"has shape {boxes.shape}, expected ({length}, 5) or ({length}, 4)")
    return boxes


def _part_boxes(file: HumanDataFile, length: int) -> Float32[np.ndarray, "N 3 5"]:
    boxes = np.zeros((length, len(PART_BOXES), 5), np.float32)
    for part, key in enumerate(PART_BOXES):
        value = file.get(key)
        if value is not None:
            boxes[:, part] = _boxes(file, key, value, length)
    boxes[~np.isfinite(boxes).all(axis=2)] = 0
    return boxes


def _keypoints(file: HumanDataFile, length: int, interval: int, *, needed: bool) -> Columns:
    """The 137 joints, and which of them exist: according to 3D points if any, else to 2D ones."""
    key, value = _first(file, KEYPOINTS_2D)
    if key is None and not needed:
        rows = len(range(0, length, interval))
        return {"joints_valid": np.zeros((rows, len(JOINTS)), np.uint8)}
    if key is None:
        raise UserError(f"{file.path}: no 2D keypoints; expected one of {', '.join(KEYPOINTS_2D)}")
    joints_2d, mask_2d, seen = _joints(file, key, value, length, interval, dimensions=2)
    columns, mask_3d = {"joints_2d": joints_2d}, None
    del value  # gigabytes
    key, value = _first(file, KEYPOINTS_3D)
    if key is not None:
        joints_3d, mask_3d, seen = _joints(file, key, value, length, interval, dimensions=3)
        columns["joints_3d"] = joints_3d
    stated = mask_2d if mask_3d is None else mask_3d
    columns["joints_valid"] = np.tile(seen if stated is None else stated, (len(joints_2d), 1))
    return columns


def _first(file: HumanDataFile, keys: Sequence[str]) -> tuple[str | None, Any]:
    for key in keys:
        value = file.get(key)
        if value is not None:
            return key, value
    return None, None


def _joints(
    file: HumanDataFile, key: str, value: Any, length: int, interval: int, dimensions: int
) -> tuple[
    Float32[np.ndarray, "N 137 D"], UInt8[np.ndarray, "137"] | None, UInt8[np.ndarray, "137"]
]:
    """Points of the 137 joints (zero if absent), their mask if the file has one, and a mask of
    joints that have positive confidence in any row, as mmhuman3d makes it."""
    points = numbers(file, key, value, length)
    if points.ndim != 3 or points.shape[2] < dimensions:
        expected = f"({length}, joints, {dimensions} or {dimensions + 1})"
        raise file.wrong(key, f"has shape {points.shape}, expected {expected}")
    present, count = file.stored_joints(key, points.shape[1])
    if count not in JOINT_COUNTS:
        raise file.wrong(key, f"{count} joints; HumanData has 190, 144 or 127")
    confidence = points[:, :, dimensions:]  # none, or one number
    seen = np.any(confidence > 0, axis=(0, 2)) if confidence.size else np.ones(len(present), bool)
    mask = file.mask(key)
    if mask is not None:
        mask = _network_joints((mask == 1)[None], np.arange(count))[0].astype(np.uint8)
    return (
        _network_joints(points[::interval, :, :dimensions], present),
        mask,
        _network_joints(seen[None], present)[0].astype(np.uint8),
    )


def _network_joints(
    values: Shaped[np.ndarray, "N K ..."], present: Int[np.ndarray, " K"]
) -> Shaped[np.ndarray, "N 137 ..."]:
    """Values of the 137 joints, from those of the joints `present` of HumanData."""
    return expanded(values, present, max(JOINT_COUNTS)).take(JOINTS_FROM_HUMANDATA, axis=1)


def _meta(file: HumanDataFile, length: int) -> Columns:
    meta = file.dictionary("meta")
    columns = {}
    if meta.get("height") is not None and meta.get("width") is not None:
        sides = [numbers(file, f"meta.{k}", meta[k], length) for k in ("width", "height")]
        columns["image_size"] = np.stack([side.reshape(length) for side in sides], axis=1)
    for key in _META_NUMBERS:
        if meta.get(key) is not None:
            columns[key] = numbers(file, f"meta.{key}", meta[key], length).reshape(length)
    if meta.get("gender") is not None:
        columns["gender"] = texts(file, "meta.gender", meta["gender"], length)
    vertices = file.get("vertices3d_path")
    if vertices is not None:
        columns["vertices_path"] = texts(file, "vertices3d_path", vertices, length)
    return columns


def _body_parameters(
    file: HumanDataFile, family: str, parameters: Mapping[str, Any], length: int
) -> Columns:
    columns: Columns = {}

    def read(key: str) -> Float32[np.ndarray, "N K"] | None:
        if parameters.get(key) is None:
            return None
        return numbers(file, f"{family}.{key}", parameters[key], length).reshape(length, -1)

    for key, count in TRIPLES[family].items():
        values = None if key in _UNREAD else read(key)
        if values is not None:
            if values.shape[1] != 3 * count:
                found = f"has {values.shape[1]} numbers per row, expected {3 * count}"
                raise file.wrong(f"{family}.{key}", found)
            name = _COLUMN_NAMES.get(key, key)
            columns[name] = values.reshape(length, -1, 3) if count > 1 else values
    for key in _COEFFICIENTS:
        values = read(key)
        if values is not None:
            columns[key] = np.zeros((length, 10), np.float32)
            columns[key][:, : values.shape[1]] = values[:, :10]
    for key, name in (("betas_extra", "betas_extra"), ("flat_hand_mean", "flat_hands")):
        values = read(key)
        if values is not None:
            columns[name] = (values != 0).any(axis=1)
    return columns

"""What the entries of a HumanData file are called, how they are shaped, and from what hands count.

Rotations of fingers are given from the flat hand or from MANO's mean hand.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import numpy as np
from jaxtyping import Bool, Int

from human_models.joints import HANDS_MEAN, SIDES

JOINTS: Final = 190
"""Joints of a keypoint array; smaller sets are its beginning."""
JOINT_COUNTS: Final = (127, 144, JOINTS)
"""Of whole sets; each begins with the smaller ones."""
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
"""Parameters of a family that are vectors of three, and how many per row."""
COEFFICIENTS: Final = ("betas", "betas_neutral", "betas_extra", "expression")
FAMILIES: Final = tuple(TRIPLES)

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
"""Entries that are no rows of people."""
KNOWN: Final = frozenset(
    (*KEYPOINTS_2D, *KEYPOINTS_3D, *BOXES, *FAMILIES, "meta", *ROW_TEXTS, *ROW_OTHERS, *FILE_WIDE)
)


def is_mask(key: str) -> bool:
    return key.startswith("keypoints") and key.endswith("_mask")


def is_keypoints(key: str, value: object) -> bool:
    """The arrays that compression concerns."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 3
    return "keypoints" in key and not is_mask(key) and is_array


def is_list(value: object) -> TypeGuard[np.ndarray | list[Any] | tuple[Any, ...]]:
    """Whether a value has a length, so that it may have one row per person."""
    return value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, list | tuple)


def mask_names(key: str) -> tuple[str, str]:
    """A keypoint array's own mask, and the one that stands for it where that is absent."""
    return f"{key}_mask", f"{key[: len('keypoints2d')]}_mask"


def is_known(key: str) -> bool:
    return key in KNOWN or (is_mask(key) and key.removesuffix("_mask") in KNOWN)


def stored_joints(mask: np.ndarray | None, stored: int) -> Int[np.ndarray, " K"]:
    """Which joints of the whole set an array of so many joints has, in their order.

    An array as long as its mask is whole, whatever the file's flag says. Where another number of
    joints than `stored` comes back, the mask does not belong to the array.
    """
    if mask is None or len(mask) == stored:
        return np.arange(stored)
    return np.flatnonzero(mask == 1)


def stated_flat_hands(entries: Mapping[str, Any]) -> Bool[np.ndarray, " N"] | None:
    """What a file says of each row: of the rows first, else of the whole; None if nothing."""
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
    """Parameters (or columns) with the hands of the marked rows, which count from the flat hand,
    given from the mean hand: (N, 15, 3). What the parameters themselves state of it is left out."""
    changed = {name: value for name, value in parameters.items() if name != "flat_hand_mean"}
    for side in SIDES:
        pose = changed.get(f"{side}_hand_pose")
        if pose is not None:
            pose = np.asarray(pose)
            mean = np.array(HANDS_MEAN[side], pose.dtype)
            relative = pose.reshape(len(flat), 15, 3) - flat[:, None, None] * mean
            changed[f"{side}_hand_pose"] = relative
    return changed

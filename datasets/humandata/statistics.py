"""What a HumanData file holds, in numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from datasets.columns import has_area
from datasets.humandata.check_numbers import LARGEST_TRAINED_BETA
from datasets.humandata.finding import OpenedFile
from datasets.humandata.hands import stated_flat_hands
from datasets.humandata.layout import FAMILIES, KEYPOINTS_2D, KEYPOINTS_3D, PART_BOXES
from datasets.humandata.reader import Columns, read_humandata

_POSES: Final = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
_SMALL_PX: Final = 64
_SIZES_SHOWN: Final = 5


def humandata_statistics(path: Path) -> dict[str, Any]:
    """Numbers of a file, as JSON takes them. Lengths in pixels and metres, rotations in degrees.

    Raises UserError where the file is wrong.
    """
    file = OpenedFile(path)
    _, length, columns = read_humandata(path)
    images, people = np.unique(columns["image_path"], return_counts=True)
    boxes = columns["body_box"]
    longer = np.nan_to_num(boxes[:, 2:].max(axis=1))
    return {
        "rows": length,
        "images": len(images),
        "people_per_image": {"mean": round(length / len(images), 2), "max": int(people.max())},
        "parameters": {
            name: sorted(file.dictionary(name)) for name in FAMILIES if name in file.names
        },
        "keypoints": {
            key: int(found[1].sum())
            for key in (*KEYPOINTS_2D, *KEYPOINTS_3D)
            if (found := file.keypoints(key)) is not None
        },
        "image_sizes": _image_sizes(columns),
        "box_longer_side_px": _spread(longer),
        "boxes_below_64_px": _share(longer < _SMALL_PX),
        "part_boxes": {
            key.removesuffix("_bbox_xywh"): _share(
                (columns["part_boxes"][:, i, 4] > 0)
                & has_area(columns["part_boxes"][:, i, :4], file.image_size)
            )
            for i, key in enumerate(PART_BOXES)
        },
        "known": _known(columns),
        "hands_from_flat_hand": _hand_convention(file),
        "pose_degrees": {name: _rotation(columns[name]) for name in _POSES if name in columns},
        "betas": _coefficients(columns, "betas"),
        "expression": _coefficients(columns, "expression"),
        "depth_m": _depth(columns),
    }


def _image_sizes(columns: Columns) -> dict[str, int]:
    """How many rows have images of a size, the most frequent sizes first."""
    if "image_size" not in columns:
        return {}
    sizes, counts = np.unique(columns["image_size"].astype(int), axis=0, return_counts=True)
    order = np.argsort(-counts)[:_SIZES_SHOWN].tolist()
    return {f"{sizes[i, 0]}x{sizes[i, 1]}": int(counts[i]) for i in order}


def _known(columns: Columns) -> dict[str, float]:
    """Share of rows that know a part: hands that are all zero are unknown."""
    known = {
        name.removesuffix("_pose"): _share((columns[name] != 0).any(axis=(1, 2)))
        for name in ("body_pose", "left_hand_pose", "right_hand_pose")
        if name in columns
    }
    return known | {"face": float({"jaw_pose", "expression"} <= columns.keys())}


def _hand_convention(file: OpenedFile) -> str:
    entries: dict[str, Any] = {key: file.dictionary(key) for key in (*FAMILIES, "misc")}
    flat = stated_flat_hands({**entries, "image_path": range(file.length)})
    if flat is None:
        return "not stated"
    return "yes" if flat.all() else "of some rows" if flat.any() else "no"


def _rotation(pose: Float[np.ndarray, "N ..."]) -> dict[str, float]:
    """How far joints are turned, and how much that differs over the rows."""
    angles = np.degrees(np.linalg.norm(pose.reshape(len(pose), -1, 3), axis=2))
    spread = pose.reshape(len(pose), -1, 3).std(axis=0)
    return {
        "mean_angle": _round(np.nanmean(angles)),
        "largest_angle": _round(np.nanmax(angles)),
        "standard_deviation": _round(np.degrees(np.linalg.norm(spread, axis=1)).mean()),
    }


def _coefficients(columns: Columns, name: str) -> Mapping[str, Any]:
    if name not in columns:
        return {}
    values = columns[name]
    return {
        "mean": [_round(value) for value in values.mean(axis=0)],
        "standard_deviation": [_round(value) for value in values.std(axis=0)],
        "largest": _round(np.abs(values).max()),
        "rows_beyond_3": _share((np.abs(values) > LARGEST_TRAINED_BETA).any(axis=1)),
        "rows_zero": _share(np.logical_and.reduce(values == 0, axis=1)),
    }


def _depth(columns: Columns) -> Mapping[str, float]:
    if "transl" not in columns:
        return {}
    known = (columns["transl"] != 0).any(axis=1)
    return _spread(columns["transl"][known, 2])


def _spread(values: Float[np.ndarray, " N"]) -> dict[str, float]:
    if not len(values):
        return {}
    quantiles = np.nanquantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return dict(zip(("least", "5%", "median", "95%", "most"), map(_round, quantiles), strict=True))


def _share(marked: Any) -> float:
    return _round(np.mean(marked))


def _round(value: float | np.floating) -> float:
    return round(float(value), 3)

"""Rows of people to columns, to files between, and to the entries of a HumanData file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets.synthetic.ground_truth import BODY_BOX_SCALE, Row
from utils.files import atomic_path

Columns = dict[str, np.ndarray]
_DICTIONARIES: Final = ("smplx", "meta")


def stack(rows: Sequence[Row]) -> Columns:
    """One array a value; those of dictionaries are called "dictionary.key"."""
    return {key: np.array([row[key] for row in map(_flat, rows)]) for key in _flat(rows[0])}


def _flat(row: Mapping[str, Any]) -> Row:
    flat: Row = {}
    for key, value in row.items():
        if key in _DICTIONARIES:
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    with atomic_path(path) as partial:
        np.savez(partial, allow_pickle=False, **(stack(rows) if rows else {}))


def load_rows(paths: Sequence[Path]) -> Columns:
    """The rows of several files, one behind the other; empty files have none."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            if archive.files:
                parts.append({key: archive[key] for key in archive.files})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def entries(columns: Columns, config: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What `write_humandata` takes; `about` joins the settings in `misc`."""
    count = len(columns["image_path"])
    made: dict[str, Any] = {key: value for key, value in columns.items() if "." not in key}
    for dictionary in _DICTIONARIES:
        made[dictionary] = {
            key.removeprefix(f"{dictionary}."): value
            for key, value in columns.items()
            if key.startswith(f"{dictionary}.")
        }
    smplx = made["smplx"]
    zeros = np.zeros((count, 3), np.float32)
    smplx |= {"leye_pose": zeros, "reye_pose": zeros, "betas_neutral": smplx["betas"]}
    made["meta"] = {
        key: value.tolist() if value.dtype.kind in "UOb" else value
        for key, value in made["meta"].items()
    }
    mask = np.zeros(190, np.uint8)
    mask[: columns["keypoints2d_smplx"].shape[1]] = 1
    for name in ("keypoints2d_smplx", "keypoints3d_smplx"):
        made[name] = made[name].astype(np.float32)
        made[f"{name}_mask"] = mask
    made["config"] = config
    made["misc"] = {
        "flat_hand_mean": False,
        "kps3d_root_aligned": False,
        "bbox_source": "provide_by_dataset",
        "bbox_body_scale": BODY_BOX_SCALE,
        "bbox_hand_scale": 1.0,
        "bbox_face_scale": 1.0,
        "smplx_source": "openpeople",
        "cam_param_type": "perspective",
        **about,
    }
    return made

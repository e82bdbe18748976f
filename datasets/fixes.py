"""Small repairs of a dataset's columns, named in the table of sources.

Each takes the columns of `humandata.HumanData` and gives repaired ones; a repair that finds
nothing of its own in the columns gives them back as they are.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Bool

from datasets.humandata.reader import Columns

Fix = Callable[[Columns], Columns]


def keep(columns: Columns, kept: Bool[np.ndarray, " N"]) -> Columns:
    """Only the rows that are marked."""
    if kept.all():
        return columns
    return {name: column[kept] for name, column in columns.items()}


def drop_invalid_annotations(columns: Columns) -> Columns:
    """AGORA marks people whose annotation cannot be trusted."""
    if "annot_valid" not in columns:
        return columns
    return keep(columns, columns["annot_valid"] != 0)


def drop_crowds(columns: Columns) -> Columns:
    """COCO and UBody mark groups, people without a keypoint, and (UBody) labels that failed."""
    if "iscrowd" not in columns and "valid_label" not in columns:
        return columns
    kept = np.ones(len(columns["row"]), bool)
    kept &= columns.get("iscrowd", ~kept) == 0
    for name in ("num_keypoints", "valid_label"):
        kept &= columns.get(name, kept) != 0
    return keep(columns, kept)


def drop_kids(columns: Columns) -> Columns:
    """Children have a shape between SMPL-X and SMIL, which ten betas do not describe."""
    if "betas_extra" not in columns:
        return columns
    return keep(columns, ~columns["betas_extra"])


def drop_nan_joints(columns: Columns) -> Columns:
    """Rows with any NaN (or infinity) among the 3D joints."""
    if "joints_3d" not in columns:
        return columns
    finite = np.isfinite(columns["joints_3d"])
    return keep(columns, np.logical_and.reduce(finite, axis=(1, 2)))


def use_neutral_betas(columns: Columns) -> Columns:
    """Betas fitted anew for the neutral body, where the file has them."""
    return {**columns, "betas": columns.get("betas_neutral", columns.get("betas", _ten(columns)))}


def zero_betas(columns: Columns) -> Columns:
    """For people whose shape no betas of SMPL-X describe (a template mesh, or SMPL's betas)."""
    return {**columns, "betas": _ten(columns)}


def hands_only(columns: Columns) -> Columns:
    """Datasets of hands know nothing of shape, orientation and body."""
    count = len(columns["row"])
    return {
        **columns,
        "betas": _ten(columns),
        "global_orient": np.zeros((count, 3), np.float32),
        "body_pose": np.zeros((count, 21, 3), np.float32),
    }


def strip_leading_slash(columns: Columns) -> Columns:
    """Paths meant as relative to the images that begin as if they were absolute."""
    return {**columns, "image_path": np.strings.lstrip(columns["image_path"], "/")}


def forget_image_size(columns: Columns) -> Columns:
    """For files whose sizes of images are wrong; the table knows the right one."""
    return {name: column for name, column in columns.items() if name != "image_size"}


def _ten(columns: Columns) -> np.ndarray:
    return np.zeros((len(columns["row"]), 10), np.float32)


DROPPING_FIXES: Final[tuple[Fix, ...]] = (
    drop_invalid_annotations,
    drop_crowds,
    drop_kids,
    drop_nan_joints,
)
"""For every dataset that knows its people's truth: they act by what the file says."""

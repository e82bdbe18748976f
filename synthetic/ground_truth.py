"""Ground truth of rendered people: rows, files of rows, and the entries of a HumanData file.

Parameters, joints and boxes are exact, also where they are not visible. The confidence of a joint
is 0 if it lies outside the picture or behind another person or an object, else 1; occlusion by the
person's own body is ignored.

A row has the keys of a HumanData file; "smplx.betas" is the key "betas" of the entry "smplx".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from datasets.humandata.file import Entries
from datasets.humandata.writer import BODY_BOX_SCALE, MISC
from human_models.joints import MODEL_JOINTS, SIDES
from synthetic.figures import PosedPerson
from synthetic.rendering import Picture
from utils.files import atomic_path

_LEAST_SEEN: Final = 0.3
"""Share of the vertices of a hand or face that must be visible for its box to be valid."""
_FACE: Final = slice(MODEL_JOINTS.index("face5"), len(MODEL_JOINTS))
_SAMPLED: Final = 12
"""Every 12th vertex is tested to estimate which share of a person is hidden."""
Row = dict[str, Any]
Columns = dict[str, np.ndarray]
Box = Float32[np.ndarray, "5"]


class Parts:
    """Indices of the body's vertices for which boxes are annotated."""

    def __init__(self, region: np.ndarray) -> None:
        self.body_count = len(region)
        self.hands = {side: np.flatnonzero(region == f"{side}_hand") for side in SIDES}


def visible_points(
    points: Float[np.ndarray, "K 3"], picture: Picture, number: int
) -> tuple[Bool[np.ndarray, " K"], Bool[np.ndarray, " K"]]:
    """Which points are in the picture, and which of these no other mesh hides.

    Args:
        points: points of one mesh in the camera frame, metres.
        number: index of the mesh, as in `picture.owner`.
    """
    height, width = picture.owner.shape
    x, y = np.rint(picture.camera.project(points)).T
    inside = (points[:, 2] > 0.1) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column, row = np.where(inside, x, 0).astype(np.int64), np.where(inside, y, 0).astype(np.int64)
    owner: Int32[np.ndarray, " K"] = picture.owner[row, column]
    others = (owner >= 0) & (owner != number) & (picture.depth_m[row, column] < points[:, 2])
    return inside, inside & ~others


def hidden_share(
    person: PosedPerson, picture: Picture, number: int, parts: Parts
) -> tuple[float, float]:
    """The share of a person's surface in the picture that others hide, and the share of the whole
    surface that is outside the picture."""
    points = person.figure.points[: parts.body_count : _SAMPLED] + person.transl
    inside, free = visible_points(points, picture, number)
    return float(1 - free.sum() / max(inside.sum(), 1)), float(1 - inside.mean())


def describe(person: PosedPerson, picture: Picture, number: int, parts: Parts) -> Row:
    """A person's row without the path of the image; `number` is the index of the person's mesh."""
    camera, shape = picture.camera, picture.owner.shape
    joints = (person.figure.joints + person.transl).astype(np.float64)
    pixels = camera.project(joints)
    _, visible = visible_points(joints, picture, number)
    confidence = visible[:, None].astype(np.float64)
    surface = person.figure.points[: parts.body_count] + person.transl
    flat = camera.project(surface)
    occlusion, truncation = hidden_share(person, picture, number, parts)
    row: Row = {
        "bbox_xywh": _box(flat, shape, 1.0, BODY_BOX_SCALE),
        "face_bbox_xywh": _part_box(pixels[_FACE], visible[_FACE], shape),
        "keypoints2d_smplx": np.concatenate([pixels, confidence], axis=1),
        "keypoints3d_smplx": np.concatenate([joints, confidence], axis=1),
        **{f"smplx.{name}": value for name, value in person.parameters._asdict().items()},
        "smplx.transl": person.transl,
        "meta.height": shape[0],
        "meta.width": shape[1],
        "meta.gender": "neutral",
        "meta.focal_length": np.array(camera.focal, np.float32),
        "meta.principal_point": np.array(camera.princpt, np.float32),
        "meta.occlusion": np.float32(occlusion),
        "meta.truncation": np.float32(truncation),
    }
    for side, vertices in parts.hands.items():
        _, free = visible_points(surface[vertices], picture, number)
        row[f"{side[0]}hand_bbox_xywh"] = _part_box(flat[vertices], free, shape)
    return row


def _part_box(
    pixels: Float[np.ndarray, "K 2"], visible: Bool[np.ndarray, " K"], shape: tuple[int, ...]
) -> Box:
    return _box(pixels, shape, confidence=float(visible.mean() >= _LEAST_SEEN))


def _box(
    pixels: Float[np.ndarray, "K 2"], shape: tuple[int, ...], confidence: float, scale: float = 1.0
) -> Box:
    """The box around pixels, multiplied by `scale` and clipped to the picture: x, y, width, height,
    confidence; zeros if it lies outside the picture."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * scale
    size = np.array(shape[::-1], np.float64)
    start, end = np.clip(middle - half, 0, size), np.clip(middle + half, 0, size)
    if (end - start).min() <= 0:
        return np.zeros(5, np.float32)
    return np.array([*start, *(end - start), confidence], np.float32)


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows (which may be none) to an .npz file with one column per key."""
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]} if rows else {}
    with atomic_path(path) as partial:
        np.savez(partial, allow_pickle=False, **columns)


def load_rows(paths: Sequence[Path]) -> Columns:
    """Concatenated columns of several files of rows; {} if they contain no rows."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            if archive.files:
                parts.append({key: archive[key] for key in archive.files})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def entries_of_columns(columns: Columns, config: str, about: Mapping[str, Any]) -> Entries:
    """Entries for `write_humandata`, from columns of rows; `about` is added to the entry `misc`."""
    entries: Entries = {key: value for key, value in columns.items() if "." not in key}
    for key, value in columns.items():
        entry, _, name = key.rpartition(".")
        if entry:
            lists = entry == "meta" and value.dtype.kind in "UOb"
            entries.setdefault(entry, {})[name] = value.tolist() if lists else value
    zeros = np.zeros((len(columns["image_path"]), 3), np.float32)
    betas = entries["smplx"]["betas"]
    entries["smplx"] |= {"leye_pose": zeros, "reye_pose": zeros, "betas_neutral": betas}
    for name in ("keypoints2d_smplx", "keypoints3d_smplx"):
        entries[name] = entries[name].astype(np.float32)
        entries[f"{name}_mask"] = np.ones(len(MODEL_JOINTS), np.uint8)
    sources = {"bbox_source": "provide_by_dataset", "smplx_source": "openpeople"}
    return entries | {"config": config, "misc": {**MISC, **sources, **about}}

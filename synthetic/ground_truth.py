"""The ground truth of drawn people: rows, files of rows, and the entries of a HumanData file.

Parameters, joints and boxes are exact also where they are not seen. The confidence of a joint
says whether it is seen: 1, or 0 where it is outside the picture or another person or thing is
before it. A person's own body hiding a joint does not count.

A row's keys are those of a HumanData file; "smplx.betas" is the key "betas" of its entry "smplx".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from datasets.humandata.file import Entries
from datasets.humandata.writer import BODY_BOX_SCALE, MISC
from human_models.joints import MODEL_JOINTS, SIDES
from synthetic.figures import BodyParameters, Figure
from synthetic.rendering import Picture
from utils.camera import Camera
from utils.files import atomic_path

_LEAST_SEEN: Final = 0.3
"""Of a part's surface, for its box to count."""
_FACE: Final = slice(MODEL_JOINTS.index("face5"), len(MODEL_JOINTS))
_SAMPLED: Final = 12
"""Each 12th vertex is looked up to estimate how much of a person is hidden."""
Row = dict[str, Any]
Columns = dict[str, np.ndarray]
Box = Float32[np.ndarray, "5"]


class Parts:
    """Vertices of the body whose boxes are given."""

    def __init__(self, region: np.ndarray) -> None:
        self.body_count = len(region)
        self.hands = {side: np.flatnonzero(region == f"{side}_hand") for side in SIDES}


def visible_points(
    points: Float[np.ndarray, "K 3"],
    pixels: Float[np.ndarray, "K 2"],
    picture: Picture,
    number: int,
) -> tuple[Bool[np.ndarray, " K"], Bool[np.ndarray, " K"]]:
    """Which points of a mesh are in the picture, and which of them no other mesh hides.

    Points are in the camera frame, metres; `pixels` is where they are in the picture.
    """
    height, width = picture.owner.shape
    x, y = np.rint(pixels).T
    inside = (points[:, 2] > 0.1) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column, row = np.where(inside, x, 0).astype(np.int64), np.where(inside, y, 0).astype(np.int64)
    owner: Int32[np.ndarray, " K"] = picture.owner[row, column]
    others = (owner >= 0) & (owner != number) & (picture.depth_m[row, column] < points[:, 2])
    return inside, inside & ~others


def hidden_share(
    figure: Figure,
    transl: Float32[np.ndarray, "3"],
    picture: Picture,
    number: int,
    camera: Camera,
    parts: Parts,
) -> tuple[float, float]:
    """Shares of a person's surface that are hidden by others (of what is in the picture), and
    that are outside the picture."""
    points = figure.points[: parts.body_count : _SAMPLED] + transl
    inside, free = visible_points(points, camera.project(points), picture, number)
    return float(1 - free.sum() / max(inside.sum(), 1)), float(1 - inside.mean())


def describe(
    figure: Figure,
    parameters: BodyParameters,
    transl: Float32[np.ndarray, "3"],
    picture: Picture,
    number: int,
    camera: Camera,
    parts: Parts,
) -> Row:
    """All entries of a person's row but the image's path; `number` is that of the person's mesh."""
    height, width = shape = picture.owner.shape
    joints = (figure.joints + transl).astype(np.float64)
    pixels = camera.project(joints)
    _, visible = visible_points(joints, pixels, picture, number)
    confidence = visible[:, None].astype(np.float64)
    surface = figure.points[: parts.body_count] + transl
    flat = camera.project(surface)
    occlusion, truncation = hidden_share(figure, transl, picture, number, camera, parts)
    row: Row = {
        "bbox_xywh": _box(flat, shape, 1.0, BODY_BOX_SCALE),
        "face_bbox_xywh": _part_box(pixels[_FACE], visible[_FACE], shape),
        "keypoints2d_smplx": np.concatenate([pixels, confidence], axis=1),
        "keypoints3d_smplx": np.concatenate([joints, confidence], axis=1),
        **{f"smplx.{name}": value for name, value in parameters._asdict().items()},
        "smplx.transl": transl,
        "meta.height": height,
        "meta.width": width,
        "meta.gender": "neutral",
        "meta.focal_length": np.array(camera.focal, np.float32),
        "meta.principal_point": np.array(camera.princpt, np.float32),
        "meta.occlusion": np.float32(occlusion),
        "meta.truncation": np.float32(truncation),
    }
    for side, vertices in parts.hands.items():
        _, free = visible_points(surface[vertices], flat[vertices], picture, number)
        row[f"{side[0]}hand_bbox_xywh"] = _part_box(flat[vertices], free, shape)
    return row


def _part_box(
    pixels: Float[np.ndarray, "K 2"], visible: Bool[np.ndarray, " K"], shape: tuple[int, ...]
) -> Box:
    return _box(pixels, shape, confidence=float(visible.mean() >= _LEAST_SEEN))


def _box(
    pixels: Float[np.ndarray, "K 2"], shape: tuple[int, ...], confidence: float, scale: float = 1.0
) -> Box:
    """x, y, width, height of the box around pixels, enlarged and clipped to the picture, and its
    confidence; zeros where nothing of it is in the picture."""
    low = np.array([pixels[:, axis].min() for axis in range(2)])
    high = np.array([pixels[:, axis].max() for axis in range(2)])
    middle, half = (low + high) / 2, (high - low) / 2 * scale
    size = np.array(shape[::-1], np.float64)
    start, end = np.clip(middle - half, 0, size), np.clip(middle + half, 0, size)
    if (end - start).min() <= 0:
        return np.zeros(5, np.float32)
    return np.array([*start, *(end - start), confidence], np.float32)


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, possibly none, as columns."""
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]} if rows else {}
    with atomic_path(path) as partial:
        np.savez(partial, allow_pickle=False, **columns)


def load_rows(paths: Sequence[Path]) -> Columns:
    """The rows of several files, one behind the other, as columns; {} if there are none."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            if archive.files:
                parts.append({key: archive[key] for key in archive.files})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def entries_of_columns(columns: Columns, config: str, about: Mapping[str, Any]) -> Entries:
    """What `write_humandata` takes; `about` joins the settings in `misc`."""
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

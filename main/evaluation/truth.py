"""Ground truth of clips: HumanData files, and the sequences of EMDB and RICH."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.humandata.file import HumanDataFile, numbers
from datasets.humandata.writer import BODY_BOX_SCALE
from datasets.instances import read_columns
from datasets.sources import Source
from human_models.body import BodyLibrary
from human_models.files import GENDERS
from human_models.joints import (
    JOINTS,
    JOINTS_FROM_MODEL,
    POSE_PARAMETERS,
    SMPL_JOINTS,
    SMPL_SURFACE_VERTICES,
)
from human_models.safe_pickle import load_pickle
from utils.camera import scaled_boxes
from utils.errors import UserError
from utils.files import read_input
from utils.image import list_images

_LARGEST_CALIBRATION: Final = 1 << 20
"""Bytes of a camera file of RICH."""


class PersonRows(NamedTuple):
    """Rows of a result or of the truth; each row is one person in one frame."""

    frames: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    parameters: dict[str, Float[np.ndarray, "N _"]]
    """Parameters of the body model without translation, on which no metric depends."""


def read_truth(path: Path) -> PersonRows:
    """All people in a HumanData file of a video.

    Raises:
        UserError: the file is damaged, or has no SMPL-X parameters or no `meta.frame_index`.
    """
    source = Source(path.stem, None, (path.name,), "", test_families=("smplx",))
    columns, length = read_columns(source, "test", path, interval=1, protocol="correct")
    file = HumanDataFile(path)
    frames = file.dictionary("meta").get("frame_index")
    if frames is None:
        raise UserError(f"{path}: 'meta.frame_index' is missing; it names the frame of each row")
    parameters = {name: columns["pose"][:, joints] for name, joints in POSE_PARAMETERS.items()}
    parameters |= {name: columns[name] for name in ("betas", "expression")}
    return PersonRows(
        numbers(file, "meta.frame_index", frames, length).astype(int)[columns["row"]],
        scaled_boxes(columns["body_box"], 1 / BODY_BOX_SCALE),
        {name: value.reshape(len(value), -1) for name, value in parameters.items()},
    )


class WorldTrack(NamedTuple):
    """One person in the world; unknown joints (of JOINTS, metres) and boxes are NaN."""

    frames: Int[np.ndarray, " T"]
    boxes: Float[np.ndarray, "T 4"]
    joints: Float[np.ndarray, "T 137 3"]


class WorldSequence(NamedTuple):
    """A clip of a benchmark with known people in the world.

    Attributes:
        name: unique in the benchmark.
        images: folder of the frames.
        focal_px: focal length of the camera.
        stands_still: whether the camera is static; None if unknown.
        people: the truth. If it has boxes, they replace those of a detector.
    """

    name: str
    images: Path
    focal_px: float
    stands_still: bool | None
    people: list[WorldTrack]


def emdb_sequences(folder: Path, bodies: BodyLibrary) -> Iterator[WorldSequence]:
    """The sequences of EMDB 2 in `folder`, which contains the unpacked dataset.

    Raises:
        UserError: there is none, or a file is damaged or of another form.
    """
    found = False
    for path in sorted(folder.glob("P*/*/*_data.pkl")):
        content = _dictionary(load_pickle(path), path, "its content")
        if content.get("emdb2"):
            found = True
            camera = _dictionary(content.get("camera"), path, "camera")
            focal = float(_numbers(camera, "intrinsics", (3, 3), path)[0, 0])
            name = path.name.removesuffix("_data.pkl")
            people = [_read_emdb(path, bodies)]
            yield WorldSequence(name, path.parent / "images", focal, None, people)
    if not found:
        raise UserError(f"{folder}: no sequence of EMDB 2 (P0/NAME/P0_NAME_data.pkl) in it")


def rich_sequences(folder: Path, bodies: BodyLibrary) -> Iterator[WorldSequence]:
    """The test split of RICH in `folder`, the unpacked dataset; each camera is a sequence.

    Raises:
        UserError: there is none, or a file is damaged or of another form.
    """
    views = sorted(folder.glob("images/test/*/cam_*"))
    if not views:
        raise UserError(f"{folder}: no images/test/NAME/cam_NN of RICH in it")
    for scene in sorted({view.parent for view in views}):
        people = _read_rich(folder / "bodies" / "test" / scene.name, bodies)
        for view in sorted(scene.glob("cam_*")):
            images = list_images(view)
            if not images or not view.name[4:].isdecimal():
                raise UserError(f"{view}: is not a folder cam_NN with the images of a camera")
            number = images[0].stem.split("_")[0]
            if not number.isdecimal():
                raise UserError(f"{images[0]}: its name has no frame number")
            calibrations = folder / "scan_calibration" / scene.name.split("_")[0] / "calibration"
            shown = [track._replace(frames=track.frames - int(number)) for track in people]
            focal = _rich_focal(calibrations / f"{int(view.name[4:]):03d}.xml")
            yield WorldSequence(f"{scene.name}_{view.name}", view, focal, True, shown)


def _rich_focal(path: Path) -> float:
    text = read_input(path, _LARGEST_CALIBRATION, "calibration").decode("utf-8", "replace")
    matrix = re.search(r"<Intrinsics\b.*?<data>\s*([0-9.eE+-]+)\s", text, re.DOTALL)
    try:
        focal = float(matrix[1]) if matrix is not None else 0.0
    except ValueError:
        focal = 0.0
    if not 0 < focal < math.inf:
        raise UserError(f"{path}: no focal length under Intrinsics; give the original file")
    return focal


def read_world_truth(path: Path, bodies: BodyLibrary) -> list[WorldTrack]:
    """All people of a truth, in the world; an empty list if it has no world.

    Args:
        path: a pickle of EMDB; a folder FRAME/SUBJECT.pkl of a RICH sequence, whose first frame is
            that of the video; or HumanData with `meta.person` and `meta.world_from_camera`.

    Raises:
        UserError: a file is damaged or incomplete.
    """
    if path.is_dir():
        people = _read_rich(path, bodies)
        first = min(int(track.frames[0]) for track in people)
        return [track._replace(frames=track.frames - first) for track in people]
    return [_read_emdb(path, bodies)] if path.suffix == ".pkl" else _read_world_data(path, bodies)


def _read_emdb(path: Path, bodies: BodyLibrary) -> WorldTrack:
    """Read https://github.com/eth-ait/emdb/blob/main/dataset.md; only good frames are kept."""
    content = _dictionary(load_pickle(path), path, "its content")
    smpl = _dictionary(content.get("smpl"), path, "smpl")
    boxes = _dictionary(content.get("bboxes"), path, "bboxes")
    root = _numbers(smpl, "poses_root", (-1, 3), path)
    count = len(root)
    if content.get("gender") not in GENDERS:
        raise UserError(f"{path}: 'gender' is not one of {', '.join(GENDERS)}")
    betas = _numbers(smpl, "betas", (10,), path)
    with torch.inference_mode():
        joints = bodies.smpl(content["gender"])(
            global_orient=torch.from_numpy(root),
            body_pose=torch.from_numpy(_numbers(smpl, "poses_body", (count, 69), path)),
            betas=torch.from_numpy(betas).expand(count, -1),
            transl=torch.from_numpy(_numbers(smpl, "trans", (count, 3), path)),
            want_vertices=False,
        ).joints.numpy()
    all_joints = np.full((count, len(JOINTS), 3), np.nan, np.float32)
    for number, name in enumerate((*SMPL_JOINTS, *SMPL_SURFACE_VERTICES)):
        if name in JOINTS:
            all_joints[:, JOINTS.index(name)] = joints[:, number]
    corners = _numbers(boxes, "bboxes", (count, 4), path)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    good = np.flatnonzero(_numbers(content, "good_frames_mask", (count,), path))
    return WorldTrack(good, boxes_xywh[good], all_joints[good])


def _read_rich(folder: Path, bodies: BodyLibrary) -> list[WorldTrack]:
    """Read SMPL-X bodies, a pickle per subject and frame, with the neutral body model."""
    files = sorted(path for path in folder.glob("*/*.pkl") if path.parent.name.isdecimal())
    if not files:
        raise UserError(f"{folder}: no FRAME/SUBJECT.pkl in it; give the folder of a RICH sequence")
    tracks = []
    sizes = {"global_orient": 3, "body_pose": 63, "betas": 10, "transl": 3}
    for subject in sorted({path.name for path in files}):
        own_files = [path for path in files if path.name == subject]
        values: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
        for path in own_files:
            content = _dictionary(load_pickle(path), path, "its content")
            for name, size in sizes.items():
                values[name].append(_numbers(content, name, (1, size), path))
        frames = np.array([int(path.parent.name) for path in own_files])
        parameters = {name: torch.from_numpy(np.concatenate(rows)) for name, rows in values.items()}
        tracks.append(_track(frames, np.full((len(frames), 4), np.nan), parameters, bodies))
    return tracks


def _read_world_data(path: Path, bodies: BodyLibrary) -> list[WorldTrack]:
    file = HumanDataFile(path)
    meta = file.dictionary("meta")
    if not {"world_from_camera", "person"} <= meta.keys():
        return []
    people = read_truth(path)
    rows = len(people.frames)
    whose, poses = (
        numbers(file, f"meta.{key}", meta[key], rows) for key in ("person", "world_from_camera")
    )
    if poses.shape != (rows, 4, 4):
        raise UserError(f"{path}: 'meta.world_from_camera' is not {rows} x 4 x 4 numbers")
    transl = numbers(file, "smplx.transl", file.dictionary("smplx").get("transl"), rows)
    tracks = []
    for person in np.unique(whose):
        own_rows = np.flatnonzero(whose == person)
        own_rows = own_rows[np.argsort(people.frames[own_rows])]
        columns = people.parameters | {"transl": transl}
        parameters = {name: torch.from_numpy(column[own_rows]) for name, column in columns.items()}
        track = _track(people.frames[own_rows], people.boxes[own_rows], parameters, bodies)
        pose = poses[own_rows].astype(np.float64)
        joints = np.einsum("tij,tkj->tki", pose[:, :3, :3], track.joints) + pose[:, None, :3, 3]
        tracks.append(track._replace(joints=joints))
    return tracks


def _track(
    frames: np.ndarray, boxes: np.ndarray, parameters: dict[str, Tensor], bodies: BodyLibrary
) -> WorldTrack:
    with torch.inference_mode():
        joints = bodies.smplx()(**parameters, want_vertices=False).joints[:, JOINTS_FROM_MODEL]
    return WorldTrack(frames, boxes, joints.numpy())


def _dictionary(value: object, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} is not a dictionary; give the original file")
    return value


def _numbers(
    content: Mapping[str, Any], key: str, shape: tuple[int, ...], path: Path
) -> Float[np.ndarray, "..."]:
    """An array of the given shape as float32; -1 is any length.

    Raises:
        UserError: there is no such array of finite numbers.
    """
    value = content.get(key)
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype.kind in "fiub"
        and value.ndim == len(shape)
        and all(size in (-1, length) for size, length in zip(shape, value.shape, strict=True))
        and np.isfinite(value).all()
    )
    if not fits:
        raise UserError(f"{path}: '{key}' is not an array of shape {shape}")
    return np.asarray(value, np.float32)

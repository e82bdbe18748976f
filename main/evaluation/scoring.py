"""Comparison of a result of inference with the truth of its video."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from datasets.cache import read_columns
from datasets.humandata.file import HumanDataFile, numbers
from datasets.humandata.writer import BODY_BOX_SCALE
from datasets.sources import Source
from human_models.body import BodyLibrary, BodyModel
from human_models.files import GENDERS, find_model_folder
from human_models.joints import (
    JOINTS,
    JOINTS_FROM_MODEL,
    POSE_PARAMETERS,
    SMPL_JOINTS,
    SMPL_SURFACE_VERTICES,
)
from human_models.safe_pickle import load_pickle
from main.evaluation.metrics import (
    WORLD_UNITS,
    Evaluator,
    MeanAndCount,
    Means,
    SampleErrors,
    means_of,
    world_errors,
)
from main.motion.result_reader import open_result
from utils.camera import intersection_over_union, scaled_boxes
from utils.errors import UserError
from utils.files import ROOT, atomic_path, read_input
from utils.image import list_images
from utils.iteration import with_progress

_LEAST_OVERLAP: Final = 0.3
"""Least intersection over union of a result and a person."""
_BATCH: Final = 16
_LARGEST_CALIBRATION: Final = 1 << 20
"""Bytes of a camera file of RICH."""
_PARAMETERS: Final = (*POSE_PARAMETERS, "betas", "expression")


class PersonRows(NamedTuple):
    """Rows of a result or of the truth; each row is one person in one frame."""

    frames: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    parameters: dict[str, Float[np.ndarray, "N _"]]
    """Parameters of the body model without translation, on which no metric depends."""


class Score(NamedTuple):
    """Errors of matched people, and shares of people that were matched."""

    metrics: dict[str, MeanAndCount]
    recall: float
    """Share of the true rows with a matching row of the result."""
    precision: float
    """Share of the result's rows, in frames of the truth, with a matching true row."""


def read_people(folder: Path) -> PersonRows:
    """All people of a result folder.

    Raises:
        UserError: there is no person, or a file is damaged.
    """
    result = open_result(folder)
    files = [result.read_person(number, ("box_xywh", *_PARAMETERS)) for number in result.files]
    return PersonRows(
        np.concatenate([file["frame_index"] for file in files]),
        np.concatenate([file["box_xywh"] for file in files]),
        {
            name: np.concatenate([file[name].astype(np.float32) for file in files])
            for name in _PARAMETERS
        },
    )


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


def pairs(result: PersonRows, truth: PersonRows) -> Iterator[tuple[int, int]]:
    """Row of the result and row of the truth, for each match by the boxes in a frame."""
    for frame in np.unique(truth.frames):
        ours, theirs = (np.flatnonzero(people.frames == frame) for people in (result, truth))
        overlap = intersection_over_union(result.boxes[ours], truth.boxes[theirs])
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[row, column] >= _LEAST_OVERLAP:
                yield int(ours[row]), int(theirs[column])


@torch.inference_mode()
def score(result: PersonRows, truth: PersonRows, bodies: BodyLibrary) -> Score:
    """Errors of the people in both, recall and precision.

    Raises:
        UserError: no box of the result overlaps one of the truth.
    """
    matched = list(pairs(result, truth))
    if not matched:
        raise UserError("no box of the result overlaps one of the truth; is it the same video?")
    body, evaluator = bodies.smplx(), Evaluator(bodies.folder)
    errors: list[dict[str, SampleErrors]] = []
    chunks = [matched[start : start + _BATCH] for start in range(0, len(matched), _BATCH)]
    for chunk in with_progress(chunks, len(chunks), "batches"):
        ours, theirs = (list(rows) for rows in zip(*chunk, strict=True))
        predicted, true = _meshes(result, ours, body), _meshes(truth, theirs, body)
        known = torch.ones(len(chunk), dtype=torch.bool)
        errors.append(evaluator.smplx(predicted, true, known, known))
    in_clip = np.isin(result.frames, truth.frames).sum()
    return Score(means_of(errors), len(matched) / len(truth.frames), len(matched) / int(in_clip))


def _meshes(people: PersonRows, rows: list[int], body: BodyModel) -> Float[Tensor, "B 10475 3"]:
    columns = people.parameters.items()
    parameters = {name: torch.from_numpy(column[rows]) for name, column in columns}
    vertices = body(**parameters, want_vertices=True).vertices
    assert vertices is not None
    return vertices


class WorldTrack(NamedTuple):
    """One person in the world; unknown joints (of JOINTS, metres) and boxes are NaN."""

    frames: Int[np.ndarray, " T"]
    boxes: Float[np.ndarray, "T 4"]
    joints: Float[np.ndarray, "T 137 3"]


def read_world_people(folder: Path) -> tuple[list[WorldTrack], float]:
    """All people of a result folder with a trajectory in the world, and the frame rate.

    Raises:
        UserError: a file is damaged.
    """
    result = open_result(folder)
    tracks, fps = [], 0.0
    for number in result.files:
        file = result.read_person(number, ("box_xywh", "fps"))
        fps = float(file["fps"])
        if "world_joints_3d_m" in file:
            joints = file["world_joints_3d_m"]
            tracks.append(WorldTrack(file["frame_index"], file["box_xywh"], joints))
    return tracks, fps


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
        raise UserError(f"{path}: no focal length under Intrinsics; give RICH's file as it is")
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
        raise UserError(f"{path}: 'gender' is none of {', '.join(GENDERS)}")
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
        raise UserError(f"{path}: {name} is not a dictionary; give a file of EMDB or RICH as it is")
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


def weighted_means(errors: list[tuple[dict[str, float], int]]) -> dict[str, MeanAndCount]:
    """Weighted means of the metrics of `WORLD_UNITS`; `count` is the weight of known values."""
    means: dict[str, MeanAndCount] = {}
    for name in WORLD_UNITS:
        known = [(values[name], weight) for values, weight in errors if np.isfinite(values[name])]
        count = sum(weight for _, weight in known)
        total = sum(value * weight for value, weight in known)
        means[name] = {"mean": total / count if count else None, "count": count}
    return means


def match_world(
    result: list[WorldTrack], fps: float, truth: list[WorldTrack]
) -> list[tuple[dict[str, float], int]]:
    """The metrics of `WORLD_UNITS` of each true person with a match, and the number of frames.

    The match of a true person is the track whose boxes overlap in most frames; if the truth has no
    boxes, the track that is nearest after alignment.
    """
    errors: list[tuple[dict[str, float], int]] = []
    for true in truth:
        matches = []
        for candidate in result:
            _, rows, true_rows = np.intersect1d(candidate.frames, true.frames, return_indices=True)
            if len(rows) < 3:
                continue
            found = world_errors(candidate.joints[rows], true.joints[true_rows], fps)
            known = np.isfinite(true.boxes[true_rows]).all(axis=1)
            boxes = zip(candidate.boxes[rows][known], true.boxes[true_rows][known], strict=True)
            overlaps = [intersection_over_union(a[None], b[None])[0, 0] for a, b in boxes]
            hits = int((np.array(overlaps) >= _LEAST_OVERLAP).sum())
            if hits or not known.any():
                matches.append((-hits, found["wa_mpjpe"], (found, len(rows))))
        if matches:
            errors.append(min(matches, key=lambda match: match[:2])[2])
    return errors


def world_table(means: Means, counted: str, title: str) -> Table:
    """A table of means for the terminal; `counted` is the title of the column of counts."""
    table = Table("metric", "mean", counted, title=title)
    for name, mean in means.items():
        value = "-" if mean["mean"] is None else f"{mean['mean']:.1f} {WORLD_UNITS[name]}"
        table.add_row(name, value, str(mean["count"]))
    return table


def score_result(result_folder: Path, truth: Path, body_folder: str) -> None:
    """Compare a result folder with the truth, write score.json into it and show tables.

    Args:
        truth: see `read_truth`, and `read_world_truth` for the world.

    Raises:
        UserError: a file is missing or wrong, or nobody matches.
    """
    is_data = not truth.is_dir() and truth.suffix != ".pkl"
    people = (read_people(result_folder), read_truth(truth)) if is_data else None
    bodies = BodyLibrary(find_model_folder(ROOT / body_folder))
    true_world = read_world_truth(truth, bodies)
    tracks, fps = read_world_people(result_folder) if true_world else ([], 0.0)
    if not is_data and not tracks:
        raise UserError(f"{result_folder} has no world; run the inference with --world")
    written: dict[str, object] = {}
    if people is not None:
        scored = score(*people, bodies)
        written |= scored._asdict()
        title = f"recall {scored.recall:.0%}, precision {scored.precision:.0%}"
        table = Table("metric", "mean, mm", "people", title=title)
        for name, mean in scored.metrics.items():
            table.add_row(name, f"{mean['mean']:.1f}", str(mean["count"]))
        Console().print(table)
    if tracks:
        matched = match_world(tracks, fps, true_world)
        means = weighted_means([(found, 1) for found, _ in matched])
        written["world"] = means
        title = f"{len(true_world)} people in the world"
        Console().print(world_table(means, counted="people", title=title))
    with atomic_path(result_folder / "score.json") as partial:
        partial.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")

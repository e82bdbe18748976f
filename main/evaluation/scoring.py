"""How near a result of inference is to the truth of its video."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

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
from human_models.files import find_model_folder
from human_models.joints import POSE_PARTS
from main.evaluation.metrics import Evaluator, MeanAndCount, MetricTable
from main.motion.result_reader import open_result
from utils.camera import intersection_over_union, scaled_boxes
from utils.errors import UserError
from utils.files import ROOT, atomic_path
from utils.iteration import with_progress

_LEAST_OVERLAP: Final = 0.3
"""Intersection over union from which a result can be a person's."""
_BATCH: Final = 16
_PARAMETERS: Final = (
    "global_orient",
    "body_pose",
    "left_hand_pose",
    "right_hand_pose",
    "jaw_pose",
    "betas",
    "expression",
)


class PersonRows(NamedTuple):
    """Rows of a result or of the truth: each is one person in one frame."""

    frames: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    parameters: dict[str, Float[np.ndarray, "N _"]]
    """As the body model takes them; without translation, which no metric depends on."""


class Score(NamedTuple):
    metrics: dict[str, MeanAndCount]
    recall: float
    """Share of true rows that a result was found for."""
    precision: float


def read_people(folder: Path) -> PersonRows:
    """Everyone in a result folder.

    Raises:
        UserError: there is no person's file in it, or one is damaged.
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
    """Everyone in a HumanData file of a video.

    Raises:
        UserError: the file is damaged, or has no SMPL-X parameters or no `meta.frame_index`.
    """
    source = Source(path.stem, None, (path.name,), "", test_families=("smplx",))
    columns, length = read_columns(source, "test", path, interval=1, protocol="correct")
    file = HumanDataFile(path)
    frames = file.dictionary("meta").get("frame_index")
    if frames is None:
        raise UserError(f"{path}: no meta.frame_index; it says which frame a row belongs to")
    pose = {name: columns["pose"][:, part] for name, part in POSE_PARTS.items()}
    parameters = {
        "global_orient": pose["body"][:, :1],
        "body_pose": pose["body"][:, 1:],
        "left_hand_pose": pose["left_hand"],
        "right_hand_pose": pose["right_hand"],
        "jaw_pose": pose["face"],
        "betas": columns["betas"],
        "expression": columns["expression"],
    }
    return PersonRows(
        numbers(file, "meta.frame_index", frames, length).astype(int)[columns["row"]],
        scaled_boxes(columns["body_box"], 1 / BODY_BOX_SCALE),
        {name: value.reshape(len(value), -1) for name, value in parameters.items()},
    )


def pairs(result: PersonRows, truth: PersonRows) -> Iterator[tuple[int, int]]:
    """Row of the result and row of the truth, for every person who is in both."""
    for frame in np.unique(truth.frames):
        ours, theirs = (np.flatnonzero(people.frames == frame) for people in (result, truth))
        overlap = intersection_over_union(result.boxes[ours], truth.boxes[theirs])
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[row, column] >= _LEAST_OVERLAP:
                yield int(ours[row]), int(theirs[column])


@torch.inference_mode()
def score(result: PersonRows, truth: PersonRows, bodies: BodyLibrary) -> Score:
    """Metrics of the people who are in both, and how many are.

    Raises:
        UserError: nobody is.
    """
    matched = list(pairs(result, truth))
    if not matched:
        raise UserError("no box of the result overlaps one of the truth; is it the same video?")
    body, evaluator, means = bodies.smplx(), Evaluator(bodies.folder), MetricTable()
    chunks = [matched[start : start + _BATCH] for start in range(0, len(matched), _BATCH)]
    for chunk in with_progress(chunks, len(chunks), "batches"):
        ours, theirs = (list(rows) for rows in zip(*chunk, strict=True))
        predicted, true = _meshes(result, ours, body), _meshes(truth, theirs, body)
        known = torch.ones(len(chunk), dtype=torch.bool)
        means.add(evaluator.smplx(predicted, true, known, known))
    in_clip = np.isin(result.frames, truth.frames).sum()
    return Score(means.summary(), len(matched) / len(truth.frames), len(matched) / int(in_clip))


def _meshes(people: PersonRows, rows: list[int], body: BodyModel) -> Float[Tensor, "B 10475 3"]:
    given = {name: torch.from_numpy(values[rows]) for name, values in people.parameters.items()}
    vertices = body(**given, want_vertices=True).vertices
    assert vertices is not None
    return vertices


def score_result(result_folder: Path, truth: Path, body_folder: str) -> None:
    """Compare a result folder with a HumanData file; write score.json into it and show a table.

    Raises:
        UserError: a file is missing or wrong, or nobody is in both.
    """
    result, true = read_people(result_folder), read_truth(truth)
    scored = score(result, true, BodyLibrary(find_model_folder(ROOT / body_folder)))
    with atomic_path(result_folder / "score.json") as partial:
        partial.write_text(json.dumps(scored._asdict(), indent=2) + "\n", encoding="utf-8")
    title = f"{scored.recall:.0%} of the true people found, {scored.precision:.0%} of results right"
    table = Table("metric", "mean, mm", "people", title=title)
    for name, mean in scored.metrics.items():
        table.add_row(name, f"{mean['mean']:.1f}", str(mean["count"]))
    Console().print(table)

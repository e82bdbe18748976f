"""How near a result of inference is to the truth of its video."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from datasets.columns import read_columns
from datasets.humandata.file import HumanDataFile, numbers
from datasets.sources import Source
from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from human_models.joints import POSE_PARTS
from main.motion.result_reader import open_result
from main.paths import ROOT
from main.testing.metric_table import MetricTable
from main.testing.metrics import Evaluator
from utils.errors import UserError
from utils.files import atomic_path
from utils.progress import with_progress

_LEAST_OVERLAP: Final = 0.3
"""Intersection over union from which a result can be a person's."""
_LEAST_AREA_PX2: Final = 1e-12
"""Below that of any box with an area; two boxes without one do not overlap."""
_PADDING: Final = 1.2
"""Boxes in HumanData files are so much larger than people."""
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


class People(NamedTuple):
    """Rows of results or of the truth: one person in one frame each."""

    frames: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    parameters: dict[str, Float[np.ndarray, "N _"]]
    """As the body model takes them; without translation, which the metrics do not see."""


class Score(NamedTuple):
    metrics: dict[str, Any]
    recall: float
    """Share of true rows that a result was found for."""
    precision: float


def read_people(folder: Path) -> People:
    """Everyone in a result folder.

    Raises:
        UserError: there is no person's file in it, or one is damaged.
    """
    result = open_result(folder)
    files = [result.read_person(number, ("box_xywh", *_PARAMETERS)) for number in result.files]
    return People(
        np.concatenate([file["frame_index"] for file in files]),
        np.concatenate([file["box_xywh"] for file in files]),
        {
            name: np.concatenate([file[name].astype(np.float32) for file in files])
            for name in _PARAMETERS
        },
    )


def read_truth(path: Path) -> People:
    """Everyone in a HumanData file of a video.

    Raises:
        UserError: the file is damaged, or has no SMPL-X parameters or no `meta.frame_index`.
    """
    source = Source(path.stem, None, (path.name,), "", test_families=("smplx",))
    columns, length = read_columns(source, "test", path, interval=1, protocol="correct")
    file = HumanDataFile(path)
    frames = file.dictionary("meta").get("frame_index")
    if frames is None:
        raise UserError(f"{path}: no meta.frame_index; which frame is a row of?")
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
    return People(
        numbers(file, "meta.frame_index", frames, length).astype(int)[columns["row"]],
        _unpadded(columns["body_box"]),
        {name: value.reshape(len(value), -1) for name, value in parameters.items()},
    )


def pairs(result: People, truth: People) -> Iterator[tuple[int, int]]:
    """Row of the result and row of the truth, for everyone who is in both."""
    for frame in np.unique(truth.frames):
        ours, theirs = (np.flatnonzero(people.frames == frame) for people in (result, truth))
        overlap = _overlaps(result.boxes[ours], truth.boxes[theirs])
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[row, column] >= _LEAST_OVERLAP:
                yield int(ours[row]), int(theirs[column])


@torch.inference_mode()
def score(result: People, truth: People, bodies: BodyLibrary) -> Score:
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


def _meshes(people: People, rows: list[int], body: BodyModel) -> Float[Tensor, "B 10475 3"]:
    given = {name: torch.from_numpy(values[rows]) for name, values in people.parameters.items()}
    vertices = body(**given, want_vertices=True).vertices
    assert vertices is not None
    return vertices


def run_score(arguments: argparse.Namespace) -> None:
    result, truth = read_people(arguments.result), read_truth(arguments.truth)
    found = score(result, truth, BodyLibrary(find_model_folder(ROOT / arguments.body_folder)))
    with atomic_path(arguments.result / "score.json") as partial:
        partial.write_text(json.dumps(found._asdict(), indent=2) + "\n", encoding="utf-8")
    title = f"{found.recall:.0%} of the true people found, {found.precision:.0%} of results right"
    table = Table("metric", "mean, mm", "people", title=title)
    for name, mean in found.metrics.items():
        table.add_row(name, f"{mean['mean']:.1f}", str(mean["count"]))
    Console().print(table)


def _unpadded(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    size = boxes[:, 2:] / _PADDING
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - size) / 2, size], axis=1)


def _overlaps(
    one: Float[np.ndarray, "N 4"], other: Float[np.ndarray, "M 4"]
) -> Float[np.ndarray, "N M"]:
    """Intersection over union."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum((one[:, :2] + one[:, 2:])[:, None], (other[:, :2] + other[:, 2:])[None])
    common = (high - low).clip(min=0).prod(2)
    union = one[:, None, 2:].prod(2) + other[None, :, 2:].prod(2) - common
    return common / np.maximum(union, _LEAST_AREA_PX2)

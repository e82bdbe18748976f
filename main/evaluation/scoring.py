"""Comparison of a result of inference with the truth of its video."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from human_models.joints import POSE_PARAMETERS
from main.evaluation.metrics import (
    WORLD_UNITS,
    Evaluator,
    MeanAndCount,
    Means,
    SampleErrors,
    means_of,
    world_errors,
)
from main.evaluation.truth import PersonRows, WorldTrack, read_truth, read_world_truth
from main.motion.result_reader import open_result
from utils.camera import intersection_over_union
from utils.errors import UserError
from utils.files import ROOT, atomic_path
from utils.iteration import with_progress

_LEAST_OVERLAP: Final = 0.3
"""Least intersection over union of a result and a person."""
_BATCH: Final = 16
_PARAMETERS: Final = (*POSE_PARAMETERS, "betas", "expression")


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


WorldErrors = tuple[dict[str, float], int]
"""The metrics of `WORLD_UNITS` of one person, and their weight in means."""


def weighted_means(errors: Sequence[WorldErrors]) -> dict[str, MeanAndCount]:
    """Weighted means of the metrics of `WORLD_UNITS`; `count` is the weight of known values."""
    means: dict[str, MeanAndCount] = {}
    for name in WORLD_UNITS:
        known = [(values[name], weight) for values, weight in errors if np.isfinite(values[name])]
        count = sum(weight for _, weight in known)
        total = sum(value * weight for value, weight in known)
        means[name] = {"mean": total / count if count else None, "count": count}
    return means


def match_world(
    result: Sequence[WorldTrack], fps: float, truth: Sequence[WorldTrack]
) -> list[WorldErrors]:
    """The errors of each true person with a match, weighted by the number of common frames.

    The match of a true person is the track whose boxes overlap in most frames; if the truth has no
    boxes, the track that is nearest after alignment.
    """
    errors: list[WorldErrors] = []
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
    is_humandata = not truth.is_dir() and truth.suffix != ".pkl"
    people = (read_people(result_folder), read_truth(truth)) if is_humandata else None
    bodies = BodyLibrary(find_model_folder(ROOT / body_folder))
    true_world = read_world_truth(truth, bodies)
    tracks, fps = read_world_people(result_folder) if true_world else ([], 0.0)
    if not is_humandata and not tracks:
        raise UserError(f"{result_folder} has no world coordinates; run inference with --world")
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

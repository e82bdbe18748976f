"""Accuracy of the built-in detector and keypoints on labelled photographs, and speed on a video.

    python -m benchmarks.people photographs COCO [--bodies] [--model smplest_x_demo]
    python -m benchmarks.people speed VIDEO --out FOLDER

COCO is a folder of images with the labels of COCO-WholeBody (wholebody.json).
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from configs.reader import load_config
from human_models.joints import COCO_KEYPOINTS, HAND_KEYPOINTS, SIDES, joint_places
from main.cli import command, command_parser
from main.motion.result_reader import open_result
from main.pipeline.detection import Detection, Detectors
from main.pipeline.estimator import Estimator
from main.pipeline.keypoints import KeypointFinder
from main.pipeline.model_files import find_model
from main.pipeline.options import BUILT_IN, InferenceOptions
from main.pipeline.pipeline import Tools, process_clip
from utils.camera import intersection_over_union
from utils.files import read_json
from utils.image import read_image
from utils.source import open_source

_BODY: Final = joint_places(COCO_KEYPOINTS)
_HANDS: Final = [joint_places(HAND_KEYPOINTS[side]) for side in SIDES]
_SIGMAS: Final = np.array(
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float64
)
"""COCO's standard deviations of the keypoints, in thousandths."""
_MATCH: Final = 0.3
"""Least overlap of a found and a labelled box."""

console = Console()


def matches(
    ours: Float[np.ndarray, "N 4"], theirs: Float[np.ndarray, "M 4"]
) -> Iterator[tuple[int, int]]:
    overlap = intersection_over_union(ours.reshape(-1, 4), theirs.reshape(-1, 4))
    for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[row, column] >= _MATCH:
            yield int(row), int(column)


def boxes_of(detections: Sequence[Detection]) -> Float[np.ndarray, "N 4"]:
    return np.array([one.box for one in detections], np.float64).reshape(-1, 4)


class Found(NamedTuple):
    """People found in one image."""

    boxes: Float[np.ndarray, "N 4"]
    px: Float[np.ndarray, "N 137 2"]
    score: Float[np.ndarray, "N 137"]
    """Scores of the keypoints; 0 if unknown."""


def keypoints_of(paths: list[Path], model: str) -> Iterator[Found]:
    config = load_config(find_model(model).config).inference.detection
    detector = Detectors(None, "movenet", config, torch.device("cpu")).for_source(paths[0])
    finder = KeypointFinder(1)
    for path in paths:
        image = read_image(path)
        detections = detector(0, image)
        people = finder(image, [one.box for one in detections], [None] * len(detections))
        px, score = (
            np.array([getattr(one.keypoints, name) for one in people]) for name in ("px", "score")
        )
        yield Found(boxes_of(detections), px.reshape(-1, 137, 2), score.reshape(-1, 137))


def bodies_of(paths: list[Path], model: str, refine: bool) -> Iterator[Found]:
    """Joints of the bodies that inference estimates, with the scores of their keypoints."""
    options = InferenceOptions(
        model, device="cpu", detector="movenet", keypoints=BUILT_IN, refine=refine, overlay=None
    )
    tools = Tools(Estimator.load(model, device="cpu"), options)
    names = ("box_xywh", "joints_2d_px", "keypoint_score")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            with open_source(path) as source:
                process_clip(source, Path(folder) / "result_image", tools)
            result = open_result(Path(folder) / "result_image")
            people = [result.read_person(number, names) for number in result.files]
            yield Found(*(np.concatenate([one[name] for one in people]) for name in names))


def measure_photographs(arguments: argparse.Namespace) -> None:
    """Compare people, body joints and hands with the labels."""
    labels = read_json(arguments.data / "wholebody.json", "file of labels")
    paths = [arguments.data / one["file_name"] for one in labels["images"]]
    judge("keypoints", labels, keypoints_of(paths, arguments.model))
    if arguments.bodies:
        judge("bodies of the network", labels, bodies_of(paths, arguments.model, refine=False))
        judge("refined bodies", labels, bodies_of(paths, arguments.model, refine=True))


def judge(name: str, labels: dict[str, Any], images: Iterator[Found]) -> None:
    found, extra, oks, near, hands = 0, 0, [], [], []
    for image_labels, here in zip(labels["images"], images, strict=True):
        everyone = [a for a in labels["annotations"] if a["image_id"] == image_labels["id"]]
        mine = [one for one in everyone if one["num_keypoints"] >= 5]
        true, all_true = (
            np.array([one["bbox"] for one in people], np.float64) for people in (mine, everyone)
        )
        extra += len(here.boxes) - len(list(matches(here.boxes, all_true)))
        for ours, theirs in matches(here.boxes, true):
            found += 1
            oks_of, near_of = judged_body(here.px[ours], mine[theirs])
            oks.append(oks_of)
            near.append(near_of)
            hands += list(judged_hands(here.px[ours], here.score[ours], mine[theirs]))
    people = [one for one in labels["annotations"] if one["num_keypoints"] >= 5]
    console.print(f"{name}: {found} of {len(people)} people found, {extra} boxes besides")
    console.print(f"  OKS {np.mean(oks):.3f}, PCK@0.1 {np.mean(np.concatenate(near)):.3f}")
    errors, with_keypoints = np.array(hands).reshape(-1, 2).T
    line = f"  keypoints of {int(with_keypoints.sum())} of {len(hands)} hands"
    for who, chosen in (("of these", with_keypoints > 0), ("of all", np.isfinite(errors))):
        if chosen.any():
            line += f", median error {who} {np.median(errors[chosen]):.2f} of the hand's box"
    console.print(f"{line}: {np.round(np.sort(errors), 2).tolist()}", soft_wrap=True)


def judged_body(
    px: Float[np.ndarray, "137 2"], label: dict[str, Any]
) -> tuple[float, Float[np.ndarray, " K"]]:
    """OKS, and whether each keypoint is within a tenth of the box's longer side."""
    true = np.array(label["keypoints"], np.float64).reshape(17, 3)
    known = true[:, 2] > 0
    apart = np.linalg.norm(px[_BODY] - true[:, :2], axis=1)[known]
    variance = (2 * _SIGMAS[known] / 1000) ** 2 * label["area"]
    return float(np.exp(-(apart**2) / variance / 2).mean()), apart < 0.1 * max(label["bbox"][2:])


def judged_hands(
    px: Float[np.ndarray, "137 2"], score: Float[np.ndarray, "137"], label: dict[str, Any]
) -> Iterator[tuple[float, bool]]:
    """Mean error of each labelled hand over the longer side of its box, and whether it has
    keypoints.

    Keypoints without a place do not count; the error is NaN if the whole hand has none.
    """
    for side, places in zip(SIDES, _HANDS, strict=True):
        if label[f"{side}hand_valid"]:
            true = np.array(label[f"{side}hand_kpts"], np.float64).reshape(21, 3)
            known = (true[:, 2] > 0) & px[places].any(axis=1)
            apart = np.linalg.norm(px[places] - true[:, :2], axis=1)[known]
            error = apart.mean() if known[1:].any() else np.nan
            has_keypoints = bool((score[places[1:]] > 0).any())
            yield float(error / max(label[f"{side}hand_box"][2:])), has_keypoints


def measure_speed(arguments: argparse.Namespace) -> None:
    """Measure the speed of inference with the built-in detector, keypoints and refinement."""
    torch.set_num_threads(arguments.threads)
    options = InferenceOptions(
        arguments.model,
        device="cpu",
        detector="movenet",
        keypoints=BUILT_IN,
        refine=True,
        overlay="mesh" if arguments.overlay else None,
    )
    tools = Tools(Estimator.load(arguments.model, device="cpu"), options)
    for _ in range(arguments.runs):
        start, cpu = time.perf_counter(), time.process_time()
        with open_source(arguments.video) as source:
            result = process_clip(source, arguments.out / "result_speed", tools)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        frames = result.frames or 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        console.print(
            f"{frames} frames, {result.people} people: {frames / seconds:.1f} frames/s, "
            f"{1e3 * cpu / frames:.0f} ms of CPU per frame, {peak:.0f} MB at most"
        )


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("people", "Measure the built-in detector and keypoints.")
    parser.prog = "python -m benchmarks.people"
    commands = parser.add_subparsers(required=True, metavar="photographs | speed")
    photographs = commands.add_parser("photographs")
    photographs.add_argument("data", type=Path, help="folder with wholebody.json and its images")
    photographs.add_argument("--bodies", action="store_true", help="also measure bodies")
    photographs.set_defaults(measure=measure_photographs)
    speed = commands.add_parser("speed")
    speed.add_argument("video", type=Path)
    speed.add_argument("--out", type=Path, required=True, help="folder for results")
    speed.add_argument("--threads", type=int, default=2)
    speed.add_argument("--runs", type=int, default=2)
    speed.add_argument("--overlay", action="store_true")
    speed.set_defaults(measure=measure_speed)
    for of_model in (photographs, speed):
        of_model.add_argument("--model", default="smplest_x_demo")
    return parser


main = command(make_parser, lambda arguments: arguments.measure(arguments))


if __name__ == "__main__":
    sys.exit(main())

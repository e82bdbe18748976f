"""Effect of smoothing on a network's estimates of rendered clips.

    python -m benchmarks.smoothing [--model MODEL_DIR] [--data FOLDER] [--people 15] [--frames 150]

Clips of people who cross each other are rendered into --data if they do not exist (15 people, 150
frames: some minutes). The network runs once over each clip with true boxes and the true camera.
Tracks and people are computed as in inference, with several strengths of smoothing. The table has
mean errors of the 25 body joints in millimetres, for people of whom at least a quarter is visible:

    PA        after similarity alignment
    pose      relative to the pelvis
    place     in the camera frame
    jitter    error of the acceleration of joints relative to the pelvis, mm/frame^2
    in place  error of the acceleration in the camera frame, mm/frame^2

`raw` is the output of the network, in the cameras of the crops.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from benchmarks.walkers import Walker, draw_clips, read_clip, video_of
from datasets.humandata.writer import BODY_BOX_SCALE
from human_models.joints import JOINT_PARTS
from main.motion.camera import Clip, ClipCamera
from main.motion.rows import FinalRows, RawRows
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories, pose_joints
from main.pipeline.detection import Detection
from main.pipeline.estimator import Estimator
from main.pipeline.options import parse_smoothing
from main.pipeline.stages import (
    Tracker,
    crop_people,
    detect_people,
    estimate_people,
    place_people,
    track_people,
)
from synthetic.production import SynthesisOptions
from utils.camera import Box, intersection_over_union, scaled_boxes
from utils.files import ROOT
from utils.geometry import align_similarity
from utils.iteration import with_progress
from utils.source import open_source

SMOOTH: Final = ("off", "0.5", "auto", "2")
"""Compared values of --smooth."""
_SIZE: Final = (1280, 720)
_BODY: Final = JOINT_PARTS["body"]
_LEAST_SEEN: Final = 0.25
_LEAST_OVERLAP: Final = 0.5


class Series(NamedTuple):
    """Estimated and true body joints of one person, by frame; metres, the pelvis first."""

    frames: Int[np.ndarray, " T"]
    ours: Float[np.ndarray, "T 25 3"]
    truth: Float[np.ndarray, "T 25 3"]


class Errors(NamedTuple):
    """Errors of all joints and frames (mm), or of three consecutive frames each (mm/frame^2)."""

    pa: Float[np.ndarray, " N"]
    pose: Float[np.ndarray, " N"]
    place: Float[np.ndarray, " N"]
    jitter: Float[np.ndarray, " M"]
    jitter_in_place: Float[np.ndarray, " M"]


def estimate(
    estimator: Estimator, video: Path, people: list[Walker], camera: ClipCamera, rows: RawRows
) -> float:
    """Write the network's rows for true boxes to a file; returns the video's frame rate."""
    frame_count = len(people[0].boxes)

    def detector(index: int, image: np.ndarray) -> list[Detection]:
        if index >= frame_count:  # nobody is visible at the end
            return []
        there = [one.boxes[index] for one in people if one.covered[index] < 1]
        return [Detection(Box(*box.tolist()), 1.0) for box in there]

    with open_source(video) as media:
        fps = float(media.info.fps)
        tracked = track_people(detect_people(media, detector), Tracker(fps))
        cropped = crop_people(tracked, estimator)
        with closing(estimate_people(cropped, estimator, batch_size=8, workers=1)) as estimated:
            frames = with_progress(estimated, media.info.frame_count_estimate, "frames")
            place_people(frames, Clip(camera, _SIZE, fps), rows)
    return fps


def series_of(
    rows: RawRows | FinalRows, joints: Float[np.ndarray, "N 137 3"], people: list[Walker]
) -> Iterator[Series]:
    """Estimates and truth of each true person, in frames in which the person is well visible.

    `joints` are those of the rows, in the same order.
    """
    of_person: dict[int, list[tuple[int, int]]] = {k: [] for k in range(len(people))}
    scores, found_boxes = rows.column("score"), rows.column("box_xywh")
    for frame, mine in rows.by_frame():
        mine = mine[scores[mine] > 0]  # interpolated rows have none
        boxes = np.stack([one.boxes[frame] for one in people])
        table = intersection_over_union(boxes, found_boxes[mine])
        for k, one in enumerate(people):
            share = (1 - one.covered[frame]) * one.in_image[frame]
            if share >= _LEAST_SEEN and table.size and table[k].max() >= _LEAST_OVERLAP:
                of_person[k].append((frame, int(mine[table[k].argmax()])))
    for k, found in of_person.items():
        if found:
            frames, numbers = map(np.array, zip(*found, strict=True))
            yield Series(frames, joints[numbers][:, _BODY], people[k].joints[frames][:, _BODY])


def errors_of(series: Series) -> Errors:
    frames, ours, truth = series
    aligned = align_similarity(*map(torch.from_numpy, (ours.astype(float), truth.astype(float))))
    relative = (ours - ours[:, :1]) - (truth - truth[:, :1])
    adjoining = frames[2:] - frames[:-2] == 2

    def length(vectors: np.ndarray) -> Float[np.ndarray, " N"]:
        return 1e3 * np.linalg.norm(vectors, axis=-1).ravel()

    def jitter(error: np.ndarray) -> Float[np.ndarray, " M"]:
        return length((error[2:] - 2 * error[1:-1] + error[:-2])[adjoining])

    pa = length(aligned.numpy() - truth)
    return Errors(
        pa, length(relative), length(ours - truth), jitter(relative), jitter(ours - truth)
    )


def compare(
    estimator: Estimator, video: Path, people: list[Walker], camera: ClipCamera
) -> Iterator[tuple[str, Errors]]:
    """Errors of one clip: of the raw estimates and with each value of --smooth, per person."""
    with tempfile.TemporaryDirectory() as folder, closing(RawRows(Path(folder))) as raw:
        fps = estimate(estimator, video, people, camera, raw)
        parameters = raw.take(np.arange(len(raw)))
        joints = pose_joints(estimator.body, parameters) + parameters["transl"][:, None]
        for one in series_of(raw, joints, people):
            yield "raw", errors_of(one)
        clip, stitched = Clip(camera, _SIZE, fps), stitch(raw, camera, fps)
        for value in SMOOTH:
            smoothing = Smoothing().times(parse_smoothing(value))
            with closing(FinalRows(Path(folder))) as final:
                build_trajectories(raw, raw, stitched, clip, estimator.body, smoothing, final)
                for one in series_of(final, final.column("joints_3d_m"), people):
                    yield value, errors_of(one)


def table_of(found: dict[str, list[Errors]]) -> Table:
    table = Table("--smooth", "PA", "pose", "place", "jitter", "in place", box=None)
    for word, errors in found.items():
        means = [float(np.concatenate(values).mean()) for values in zip(*errors, strict=True)]
        cells = [f"{mean:.1f}" for mean in means]
        if word == "raw":  # raw estimates are not in the clip's camera
            cells[2] = cells[4] = ""
        table.add_row(word, *cells)
    return table


def main(command_line: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smplest_x_demo", metavar="MODEL_DIR")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="parent of annot/, img/")
    parser.add_argument("--people", type=int, default=15, help="least number in all clips")
    parser.add_argument("--frames", type=int, default=150, help="frames per clip")
    parser.add_argument("--seed", type=int, default=31, help="random seed of the clips")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(command_line)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    estimator = Estimator.load(arguments.model, device=arguments.device)
    found: dict[str, list[Errors]] = {}
    people, frames, seed = arguments.people, arguments.frames, arguments.seed
    name = f"smoothing-{seed}-{people}x{frames}"
    options = SynthesisOptions("clips", name, "test", seed, people, _SIZE, frames)
    for file in draw_clips(options, arguments.data):
        padded, camera, _ = read_clip(file, estimator.body)
        people = [one._replace(boxes=scaled_boxes(one.boxes, 1 / BODY_BOX_SCALE)) for one in padded]
        for word, errors in compare(estimator, video_of(file), people, camera):
            found.setdefault(word, []).append(errors)
    Console().print(table_of(found))


if __name__ == "__main__":
    main()

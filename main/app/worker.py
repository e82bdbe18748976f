"""The process of one task: `python -m main.app.worker JOB_FOLDER`, started by the queue.

It runs the code of the commands, and ends when the server that started it ends.
"""

import argparse
import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from main import export, inference
from main.app.jobs import Job, read_choice
from main.cli import command, command_parser
from utils.camera import intersection_over_union
from utils.errors import UserError
from utils.files import atomic_path, exclusive
from utils.iteration import with_progress
from utils.source import FrameSource, open_source
from utils.video_write import VideoWriter

log = logging.getLogger(__name__)

FINDER: Final = "smplest_x_demo"
"""The model that finds people for every chosen model, since it is small and only boxes are kept."""
TRIAL_S: Final = 2.0
_MOST_SHOWN: Final = 120
"""Frames of a video in which boxes can be corrected."""
_SHOWN_WIDTH: Final = 960
_QUALITY: Final = 82
_SAME_BOX: Final = 0.5
"""IoU of boxes from which a person of the result counts as one of those found."""


def run(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with exclusive(folder / ".running", "this job is running already"):
        job = Job.read(folder)
        assert job.task is not None
        match job.task.kind:
            case "find":
                find_people(folder, job, job.task.arguments)
            case "trial":
                try_beginning(folder, job, job.task.arguments)
            case "run" | "again":
                infer(job.task.arguments)
                describe(folder, job)
            case "export":
                export.run(export.make_parser().parse_args(job.task.arguments))


def _end_with_parent() -> None:
    """Wait until stdin is closed, which happens however the server ends, and then end."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def infer(arguments: list[str]) -> None:
    inference.run(inference.make_parser().parse_args(arguments))


def find_people(folder: Path, job: Job, arguments: list[str]) -> None:
    """Write found/: people.json for the page, boxes.json, and the frames that it shows."""
    from main.pipeline.pipeline import NobodyFoundError

    _, source, *flags = arguments
    with atomic_path(folder / "found") as partial:
        partial.mkdir()
        flags += ["--no-overlay", "--no-refine", f"--output={partial}"]
        people: dict[int, Mapping[str, Any]] = {}
        try:
            infer([FINDER, source, *flags])
            people = _read_people(partial / job.result)
        except NobodyFoundError as error:
            log.warning("%s", error)
        about, boxes = _describe_found(Path(source), job, partial, people)
        (partial / "people.json").write_text(json.dumps(about), encoding="utf-8")
        (partial / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
        shutil.rmtree(partial / job.result, ignore_errors=True)


def _read_people(result: Path) -> dict[int, Mapping[str, Any]]:
    from main.motion.result_reader import open_result

    opened = open_result(result)
    needed = ("score", "box_xywh", "interpolated", "out_of_range", "truncation", "occlusion")
    return {number: opened.read_person(number, needed) for number in opened.files}


def _open(source: Path, job: Job) -> FrameSource:
    fps = job.flags.get("--fps")
    return open_source(source, None if fps is None else float(fps))


def _write_shown_frames(frames: FrameSource, folder: Path, step: int) -> tuple[list[int], int]:
    """Write 000000.jpg and so on; return the numbers of these frames, and the count of all."""
    folder.mkdir()
    scale = min(1.0, _SHOWN_WIDTH / frames.info.width)
    shown = []
    total = 0
    for frame in with_progress(frames, frames.info.frame_count_estimate, "frames read"):
        total += 1
        if frame.index % step == 0:
            shown.append(frame.index)
            small = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
            coded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)[1]
            (folder / f"{frame.index:06d}.jpg").write_bytes(coded.tobytes())
    return shown, total


def _describe_found(
    source: Path, job: Job, output: Path, people: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the frames that the page shows; return its other content, and all boxes."""
    with _open(source, job) as frames:
        info = frames.info
        step = max(1, math.ceil((info.frame_count_estimate or 0) / _MOST_SHOWN))
        shown, total = _write_shown_frames(frames, output / "frames", step)
    # Files of boxes are in pixels of the original image, and huge photographs are read reduced.
    boxes = {
        number: {
            int(frame): [round(float(side) * info.reduction, 2) for side in box]
            for frame, box, filled in zip(
                rows["frame_index"], rows["box_xywh"], rows["interpolated"], strict=True
            )
            if not filled
        }
        for number, rows in people.items()
    }
    about = {
        "size": [info.width * info.reduction, info.height * info.reduction],
        "kind": info.kind,
        "fps": info.fps,
        "frames": total,
        "shown": shown,
        "people": [
            {
                "number": number,
                "frames": len(own_boxes),
                "score": round(float(people[number]["score"].mean()), 2),
                **_portrait(own_boxes, shown),
                "boxes": {frame: own_boxes[frame] for frame in shown if frame in own_boxes},
            }
            for number, own_boxes in boxes.items()
        ],
    }
    return about, {"step": step, "people": boxes}


def _portrait(boxes: Mapping[int, list[float]], shown: list[int]) -> dict[str, Any]:
    """The frame with a person's largest box, if possible one of the frames shown."""
    here = [frame for frame in shown if frame in boxes] or list(boxes)
    best = max(here, key=lambda frame: boxes[frame][2] * boxes[frame][3])
    return {"best": min(shown, key=lambda frame: abs(frame - best)), "portrait": boxes[best]}


def try_beginning(folder: Path, job: Job, arguments: list[str]) -> None:
    """Write trial/: the overlay of the first seconds."""
    model, source, _, *flags = arguments
    with atomic_path(folder / "trial") as partial:
        partial.mkdir()
        beginning = (partial / "beginning").with_suffix(".mp4")
        with _open(Path(source), job) as frames:
            if frames.info.kind == "image":
                raise UserError("a photograph has no first two seconds; use Run")
            count = math.ceil(TRIAL_S * frames.info.fps)
            with VideoWriter(beginning, frames.info.fps) as video:
                for frame in islice(frames, count):
                    video.write(video.prepare(frame.image))
        rest = [flag for flag in flags if not flag.startswith(("--fps=", "--no-overlay"))]
        infer([model, str(beginning), f"--output={partial}", *rest])
        beginning.unlink()
        shutil.rmtree(partial / "result_beginning", ignore_errors=True)


def describe(folder: Path, job: Job) -> None:
    """Write people.json: the people of the result, with their numbers among those found."""
    chosen = read_choice(folder, job) if job.choice.needs_boxes else {}
    table = []
    for number, rows in _read_people(folder / job.result).items():
        frames, estimated = rows["frame_index"], ~rows["interpolated"]
        first = int(frames[estimated][0])
        box = rows["box_xywh"][estimated][0]
        table.append(
            {
                "number": number,
                "found": _same_person(box, {k: v[first] for k, v in chosen.items() if first in v}),
                "frames": len(frames),
                "first": int(frames[0]),
                "last": int(frames[-1]),
                "score": round(float(rows["score"][estimated].mean()), 2),
                "interpolated": int(rows["interpolated"].sum()),
                "out_of_range": int(rows["out_of_range"].sum()),
                "truncated": int((rows["truncation"] > 0.2).sum()),
                "occluded": int((rows["occlusion"] > 0.3).sum()),
            }
        )
    with atomic_path(folder / "people.json") as partial:
        partial.write_text(json.dumps(table), encoding="utf-8")


def _same_person(box: Any, people: Mapping[int, list[float]]) -> int | None:
    """The person with the most similar box, if one is similar."""
    numbers = list(people)
    shared = intersection_over_union(
        np.array([box], np.float64), np.array([people[k] for k in numbers]).reshape(-1, 4)
    )[0]
    return numbers[int(shared.argmax())] if shared.max(initial=0) > _SAME_BOX else None


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("app.worker", "Run one task of the app.")
    parser.add_argument("folder", metavar="JOB_FOLDER", type=Path)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

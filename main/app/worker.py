"""The process of one task: `python -m main.app.worker JOB_FOLDER`, started by the queue.

What was found and corrected becomes a file of boxes, and options become arguments. It does what
the commands do, in the same way, and ends when the server that started it ends.
"""

import argparse
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from main import export, inference
from main.app.jobs import Job, read_choice
from main.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import atomic_path, exclusive

Boxes = dict[int, dict[int, list[float]]]
"""Of each person by number: the box in each frame."""

FINDING: Final = ("--fps", "--detector", "--conf")
"""Options that decide which boxes are found, and in which frames."""
_VALUES: Final = (*FINDING, "--smooth", "--focal", "--fov", "--keep-longest", "--export")
_CHOICES: Final = ("--overlay", "--keypoints", "--precision", "--device", "--batch-size")
_SWITCHES: Final = ("--refine", "--no-refine", "--floor", "--no-overlay")
_CONFIDENCE: Final = "inference.detection.conf"
_MOST_EDITS: Final = 10_000

Side = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Place = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, lt=10**6)]
Flags = dict[str, Annotated[str, Field(max_length=100)]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Edit(Strict):
    """A box that was drawn, or a found one that was corrected, in one frame."""

    person: Number
    frame: Annotated[int, Field(ge=0, lt=10**7)]
    box: tuple[Place, Place, Side, Side]


class Choice(Strict):
    """Who is wanted, by the numbers of the people found; drawn people have the numbers after."""

    people: Literal["all", "largest"] | Annotated[list[Number], Field(max_length=1000)] = "all"
    edits: Annotated[list[Edit], Field(max_length=_MOST_EDITS)] = []

    @property
    def needs_boxes(self) -> bool:
        return isinstance(self.people, list) or bool(self.edits)


def flags_of(flags: Mapping[str, str], names: Sequence[str] | None = None) -> list[str]:
    """Options as arguments of `main.inference`; a value never becomes another option.

    Args:
        names: of the options to take; None: all.

    Raises:
        UserError: there is no such option in the app.
    """
    arguments = []
    for name, value in flags.items():
        if name not in (*_VALUES, *_CHOICES, *_SWITCHES):
            raise UserError(f"{name}: the app has no such option")
        if name == "--keypoints" and value != "built-in":
            raise UserError(f"--keypoints {value}: only built-in can be chosen here")
        if name == "--detector" and value == "yolo":
            raise UserError("--detector yolo: auto takes it where its weights are there")
        if name == "--conf" and not re.fullmatch(r"0?\.[0-9]{1,6}|[01]", value):
            raise UserError(f"--conf {value}: give a number from 0 to 1")
        if names is None or name in names:
            option = f"--set={_CONFIDENCE}" if name == "--conf" else name
            arguments.append(option if name in _SWITCHES else f"{option}={value}")
    return arguments


def check(arguments: Sequence[str]) -> None:
    """Raises UserError where `main.inference` would refuse the arguments."""
    inference.options_of(inference.make_parser().parse_args(list(arguments)))


def boxes_of(found: Boxes, choice: Choice, step: int) -> Boxes:
    """The boxes of everybody who is wanted, with the corrections.

    A correction moves the found boxes of the frames around it as well, less and less, up to the
    next frame that can be corrected; between two frames for which the same person's box was drawn,
    boxes move in straight lines.

    Args:
        step: between frames that can be corrected; those between them cannot be seen in the app.

    Raises:
        UserError: nobody is wanted, or nobody has a number that is wanted.
    """
    edits: Boxes = {}
    for edit in choice.edits:
        edits.setdefault(edit.person, {})[edit.frame] = list(edit.box)
    people: Boxes = {
        number: _corrected(found[number], edits.get(number, {}), step)
        if number in found
        else _between(edits[number])
        for number in sorted({*found, *edits})
    }
    if isinstance(choice.people, list):
        if absent := sorted(set(choice.people) - people.keys()):
            raise UserError(f"--person {absent[0]}: nobody found by that number")
        people = {number: people[number] for number in choice.people}
    if not people:
        raise UserError("nobody is chosen: choose somebody, or draw a box")
    return people


def _corrected(
    found: Mapping[int, list[float]], edits: Mapping[int, list[float]], step: int
) -> dict[int, list[float]]:
    boxes = dict(found)
    for frame, box in edits.items():
        if frame not in found:
            boxes[frame] = box
            continue
        moved = [new - old for new, old in zip(box, found[frame], strict=True)]
        for other in range(frame - step + 1, frame + step):
            if other in found:
                share = 1 - abs(other - frame) / step
                boxes[other] = [
                    side + share * by for side, by in zip(boxes[other], moved, strict=True)
                ]
    return {
        frame: [*box[:2], *(max(1.0, side) for side in box[2:])] for frame, box in boxes.items()
    }


def _between(edits: Mapping[int, list[float]]) -> dict[int, list[float]]:
    boxes = dict(edits)
    for first, last in pairwise(sorted(edits)):
        for frame in range(first + 1, last):
            share = (frame - first) / (last - first)
            ends = zip(edits[first], edits[last], strict=True)
            boxes[frame] = [(1 - share) * start + share * end for start, end in ends]
    return boxes


def as_box_file(people: Boxes) -> dict[str, list[list[float]]]:
    """Boxes as the content of a file for --boxes."""
    frames: dict[int, list[list[float]]] = {}
    for boxes in people.values():
        for frame, box in boxes.items():
            frames.setdefault(frame, []).append([round(side, 2) for side in box])
    return {str(frame): frames[frame] for frame in sorted(frames)}


def safe_name(name: str, suffixes: Sequence[str]) -> str:
    """A name for an uploaded file that is harmless in every folder, page and command line.

    Raises:
        UserError: it does not end like a video or an image.
    """
    path = Path(name.replace("\\", "/"))
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        shown = path.name[:60] or "a file without a name"
        raise UserError(f"{shown}: give a video or a photograph, one of {' '.join(suffixes)}")
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in path.stem)
    return (stem.strip("-_")[:60] or "clip") + suffix


log = logging.getLogger(__name__)

FINDER: Final = "smplest_x_demo"
"""Looks for people whatever the model is: it is small, and boxes are all that is kept."""
TRIAL_S: Final = 2.0
_MOST_SHOWN: Final = 120
"""Frames of a video in which boxes can be corrected."""
_SHOWN_WIDTH: Final = 960
_QUALITY: Final = 82
_SAME_BOX: Final = 0.5
"""Shared area from which a person of the result is one of those that were found."""


def run(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with exclusive(folder / ".running", "this job is under way already"):
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
    """The other end of stdin closes when the server has gone, however it went."""
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
        about, boxes = _describe_found(Path(source), job.flags.get("--fps"), partial, people)
        (partial / "people.json").write_text(json.dumps(about), encoding="utf-8")
        (partial / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
        _remove(partial / job.result)


def _read_people(result: Path) -> dict[int, Mapping[str, Any]]:
    from main.motion.result_reader import open_result

    opened = open_result(result)
    needed = ("score", "box_xywh", "interpolated", "out_of_range", "truncation", "occlusion")
    return {number: opened.read_person(number, needed) for number in opened.files}


def _describe_found(
    source: Path, fps: str | None, output: Path, people: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write frames/000000.jpg and so on; what the page shows, and all boxes."""
    import cv2

    from utils.iteration import with_progress
    from utils.source import open_source

    with open_source(source, None if fps is None else float(fps)) as frames:
        info = frames.info
        step = max(1, math.ceil((info.frame_count_estimate or 0) / _MOST_SHOWN))
        scale = min(1.0, _SHOWN_WIDTH / info.width)
        (output / "frames").mkdir()
        shown = []
        total = 0
        for frame in with_progress(frames, info.frame_count_estimate, "frames read"):
            total += 1
            if frame.index % step == 0:
                shown.append(frame.index)
                small = cv2.resize(
                    frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                )
                options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
                coded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)[1]
                (output / "frames" / f"{frame.index:06d}.jpg").write_bytes(coded.tobytes())
    # Boxes of a file are in pixels of the file, of which huge photographs are read reduced.
    boxes = {
        number: {
            int(frame): [round(float(side) * info.reduction, 2) for side in box]
            for frame, box, filled in zip(
                one["frame_index"], one["box_xywh"], one["interpolated"], strict=True
            )
            if not filled
        }
        for number, one in people.items()
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
                "frames": len(mine),
                "score": round(float(people[number]["score"].mean()), 2),
                **_portrait(mine, shown),
                "boxes": {frame: mine[frame] for frame in shown if frame in mine},
            }
            for number, mine in boxes.items()
        ],
    }
    return about, {"step": step, "people": boxes}


def _portrait(boxes: Mapping[int, list[float]], shown: list[int]) -> dict[str, Any]:
    """The frame with somebody's largest box, of those that are shown if there is any."""
    here = [frame for frame in shown if frame in boxes] or list(boxes)
    best = max(here, key=lambda frame: boxes[frame][2] * boxes[frame][3])
    return {"best": min(shown, key=lambda frame: abs(frame - best)), "portrait": boxes[best]}


def try_beginning(folder: Path, job: Job, arguments: list[str]) -> None:
    """Write trial/: the first seconds, with the overlay."""
    from utils.source import open_source
    from utils.video_write import VideoWriter

    model, source, _, *flags = arguments
    fps = job.flags.get("--fps")
    with atomic_path(folder / "trial") as partial:
        partial.mkdir()
        beginning = (partial / "beginning").with_suffix(".mp4")
        with open_source(Path(source), None if fps is None else float(fps)) as frames:
            if frames.info.kind == "image":
                raise UserError("a photograph has no first seconds: run it")
            count = math.ceil(TRIAL_S * frames.info.fps)
            with VideoWriter(beginning, frames.info.fps) as video:
                for frame in islice(frames, count):
                    video.write(video.prepare(frame.image))
        rest = [flag for flag in flags if not flag.startswith(("--fps=", "--no-overlay"))]
        infer([model, str(beginning), f"--output={partial}", *rest])
        beginning.unlink()
        _remove(partial / "result_beginning")


def describe(folder: Path, job: Job) -> None:
    """Write people.json: the people of the result, and who of those found they are."""
    chosen = read_choice(folder, job) if job.choice.needs_boxes else {}
    table = []
    for number, one in _read_people(folder / job.result).items():
        frames, estimated = one["frame_index"], ~one["interpolated"]
        first = int(frames[estimated][0])
        box = one["box_xywh"][estimated][0]
        table.append(
            {
                "number": number,
                "found": _who(box, {k: v[first] for k, v in chosen.items() if first in v}),
                "frames": len(frames),
                "first": int(frames[0]),
                "last": int(frames[-1]),
                "score": round(float(one["score"][estimated].mean()), 2),
                "interpolated": int(one["interpolated"].sum()),
                "out_of_range": int(one["out_of_range"].sum()),
                "truncated": int((one["truncation"] > 0.2).sum()),
                "occluded": int((one["occlusion"] > 0.3).sum()),
            }
        )
    with atomic_path(folder / "people.json") as partial:
        partial.write_text(json.dumps(table), encoding="utf-8")


def _who(box: Any, people: Mapping[int, list[float]]) -> int | None:
    """The person with the most similar box, if one is similar."""

    def shared(other: list[float]) -> float:
        (x, y, w, h), (u, v, s, t) = map(float, box), other
        width, height = min(x + w, u + s) - max(x, u), min(y + h, v + t) - max(y, v)
        both = max(0.0, width) * max(0.0, height)
        return both / (w * h + s * t - both)

    best = max(people, key=lambda number: shared(people[number]), default=None)
    return best if best is not None and shared(people[best]) > _SAME_BOX else None


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("app.worker", "One task of the app.")
    parser.add_argument("folder", metavar="JOB_FOLDER", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser(), run))

"""Rendering of a data set by several processes; their number does not change the pictures.

Batches of fixed size are drawn into a temporary folder, and a file of rows marks each complete
batch. A run that was stopped continues after its last complete batch. The set gets its final name
when all batches are complete.
"""

import hashlib
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch

from datasets.humandata.writer import BODY_BOX_SCALE, write_humandata
from datasets.sources import Split
from synthetic.clips import draw_clip, people_of_clip
from synthetic.demo import draw_demo
from synthetic.ground_truth import Row, entries_of_columns, load_rows, save_rows
from synthetic.motion import FPS
from synthetic.pictures import (
    Studio,
    draw_crop,
    draw_scene,
    generator,
    people_of_scene,
    plan_crop,
    plan_scene,
)
from synthetic.shots import PEOPLE, draw_shot
from utils.camera import scaled_boxes
from utils.errors import UserError
from utils.files import exclusive, remove_folder, remove_leftovers
from utils.video_write import VideoWriter

log = logging.getLogger(__name__)

Kind = Literal["crops", "scenes", "clips", "demo"]
VERSIONS: Final[dict[Kind, int]] = {"crops": 2, "scenes": 2, "clips": 3, "demo": 1}
"""Increased whenever the same seed gives other pictures."""
_BATCH: Final = {"crops": 16, "scenes": 4, "clips": 1, "demo": 1}
_IMAGES_PER_FOLDER: Final = 1000


@dataclass(frozen=True)
class SynthesisOptions:
    """What to render."""

    kind: Kind
    name: str
    split: Split
    seed: int
    people: int
    size: tuple[int, int]
    """Width and height of the pictures, pixels."""
    frames: int = 0
    """Number of frames of each clip."""
    camera: str | None = None
    """One of `shots.CAMERAS` for clips in the hall; None for clips of people who cross paths."""

    def picture_count(self) -> int:
        """Smallest number of crops, scenes or clips that contains `people` people."""
        if self.kind in ("crops", "demo"):
            return self.people if self.kind == "crops" else 1
        if self.camera is not None:
            return math.ceil(self.people / PEOPLE)
        people_of = people_of_scene if self.kind == "scenes" else people_of_clip
        count = planned = 0
        while planned < self.people:
            planned += people_of(generator(self.seed, self.split, count))
            count += 1
        return count

    def digest(self) -> str:
        """A hash of all that determines the pictures."""
        content = json.dumps([asdict(self), VERSIONS[self.kind]])
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def synthesize(options: SynthesisOptions, out: Path, workers: int) -> Iterator[int]:
    """Render a set into `out`/annot and `out`/img; yields numbers of pictures as they are complete.

    Raises:
        UserError: a worker was killed, another process renders the same split of the set, or nobody
            is visible in the pictures.
    """
    images = out / "img" / options.name / options.split
    busy = f"another process draws {images}; wait for its end, or choose another --name or --out"
    with exclusive(images.with_name(f".drawing_{options.split}.lock"), busy):
        yield from _synthesize(options, out, images, workers)


def _synthesize(options: SynthesisOptions, out: Path, images: Path, workers: int) -> Iterator[int]:
    staging = images.with_name(f".drawing_{options.split}_{options.digest()}")
    (out / "annot").mkdir(parents=True, exist_ok=True)
    remove_leftovers(images.parent, [images.name, staging.name])
    (staging / "rows").mkdir(parents=True, exist_ok=True)
    total, size = options.picture_count(), _BATCH[options.kind]
    batches = [range(first, min(first + size, total)) for first in range(0, total, size)]
    missing = [batch for batch in batches if not _rows_file(staging, batch).is_file()]
    yield total - sum(map(len, missing))
    if workers == 1:
        _use_one_thread()
        for batch in missing:
            yield _draw_batch(options, batch, staging)
    else:
        yield from _in_processes(options, missing, staging, workers)

    files = [_rows_file(staging, batch) for batch in batches]
    annotations = _annotations(options, out / "annot", files)
    # Old annotations are removed before, and new ones written after, the pictures are replaced, so
    # that annotations never lie beside pictures of another run.
    for path in annotations:
        path.unlink(missing_ok=True)
    if (staging / "images").is_dir():  # else an earlier run was stopped after this step
        remove_folder(images)
        (staging / "images").rename(images)
    for path, content in annotations.items():
        write_humandata(path, content)
        log.info("%s: %d people", path, len(content["image_path"]))
    # `remove_folder` renames first: a part of this folder would look like an unfinished run.
    remove_folder(staging)


def _rows_file(staging: Path, batch: range) -> Path:
    return staging / "rows" / f"{batch.start:08d}.npz"


def _annotations(
    options: SynthesisOptions, folder: Path, files: list[Path]
) -> dict[Path, dict[str, Any]]:
    """The annotation files to write (one per clip, else one) and their entries.

    Raises:
        UserError: the files contain no rows.
    """
    about = {"seed": options.seed, "version": VERSIONS[options.kind], "kind": options.kind}
    name = f"{options.name}_{options.split}"
    parts = {name: files}
    if options.kind in ("clips", "demo"):
        parts = {f"{name}_{_clip_name(index)}": [file] for index, file in enumerate(files)}
    annotations = {
        folder / f"{part}.npz": entries_of_columns(columns, part, about)
        for part, paths in parts.items()
        if (columns := load_rows(paths))
    }
    if not annotations:
        raise UserError("nobody is visible in these pictures; draw more people.")
    return annotations


def _in_processes(
    options: SynthesisOptions, missing: list[range], staging: Path, workers: int
) -> Iterator[int]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (os.getpid(),))
    waiting: list[Future[int]] = []
    try:
        for batch in missing:
            waiting.append(pool.submit(_draw_batch, options, batch, staging))
            if len(waiting) >= 3 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (memory?); run the same command with fewer --workers to continue."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_studio: Final = cache(Studio)


def _start_worker(parent: int) -> None:
    """Initialise a worker, which ignores Ctrl-C and ends when the process `parent` ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()
    _use_one_thread()


def _exit_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _use_one_thread() -> None:
    """Use one thread, so that floating-point sums have the same order in every process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _draw_batch(options: SynthesisOptions, batch: range, staging: Path) -> int:
    """Draw some pictures, or a clip, and write their rows; returns their number."""
    draw = _draw_clip if options.kind in ("clips", "demo") else _draw_pictures
    save_rows(_rows_file(staging, batch), draw(options, batch, staging / "images"))
    return len(batch)


def _draw_pictures(options: SynthesisOptions, indices: range, images: Path) -> list[Row]:
    studio, shape = _studio(options.split), options.size[::-1]
    crops = options.kind == "crops"
    plan, draw = (plan_crop, draw_crop) if crops else (plan_scene, draw_scene)
    rngs = [generator(options.seed, options.split, index) for index in indices]
    plans = [plan(studio, rng, shape) for rng in rngs]
    figures = studio.figures.pose([one.parameters for each in plans for one in each.people])
    rows: list[Row] = []
    for index, each in zip(indices, plans, strict=True):
        own, figures = figures[: len(each.people)], figures[len(each.people) :]
        drawn = draw(studio, each, own, shape)
        name = f"{index // _IMAGES_PER_FOLDER:03d}/{index:06d}.jpg"
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.jpeg)
        rows += [{**row, "image_path": f"{options.split}/{name}"} for row in drawn.rows]
    return rows


def _clip_name(index: int) -> str:
    return f"clip_{index:03d}"


def _draw_clip(options: SynthesisOptions, indices: range, images: Path) -> list[Row]:
    """Draw a clip, and for clips in the hall also a file of people's boxes per frame.

    The paths in the rows are those of frames in a folder with the name of the clip.
    """
    (index,) = indices
    rng = generator(options.seed, options.split, index)
    name, rows = _clip_name(index), []
    draw = draw_demo if options.kind == "demo" else draw_clip
    if options.camera is not None:
        draw = partial(draw_shot, camera=options.camera)
    images.mkdir(parents=True, exist_ok=True)
    with VideoWriter(images / f"{name}.mp4", FPS) as video:
        frames = draw(_studio(options.split), rng, options.size[::-1], options.frames)
        for number, frame in enumerate(frames):
            video.write(frame.image)
            path = f"{options.split}/{name}/{number:06d}.jpg"
            rows += [{**row, "image_path": path} for row in frame.rows]
    if options.kind == "demo" or options.camera is not None:
        (images / f"{name}.boxes.json").write_text(json.dumps(_boxes(rows)))
    return rows


def _boxes(rows: list[Row]) -> dict[int, list[list[float]]]:
    """Boxes of people (x, y, width, height in pixels) by frame, without the margin of rows."""
    boxes: dict[int, list[list[float]]] = {}
    for row in rows:
        padded = row["bbox_xywh"][None, :4].astype(np.float64)
        (box,) = scaled_boxes(padded, 1 / BODY_BOX_SCALE).tolist()
        boxes.setdefault(row["meta.frame_index"], []).append([round(one, 1) for one in box])
    return boxes

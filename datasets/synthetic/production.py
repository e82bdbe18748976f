"""Drawing a whole set by several processes: the same bytes whatever their number.

Pictures are drawn in batches of fixed borders into a folder of their own, each batch ending with
a file of its rows. A run that was stopped goes on where it was; the set appears when all is done.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal

import cv2
import torch

from datasets.humandata_writer import write_humandata
from datasets.sources import Split
from datasets.synthetic.crops import draw_crop, plan_crop
from datasets.synthetic.ground_truth import Parts, Row
from datasets.synthetic.rows import entries, load_rows, save_rows
from datasets.synthetic.scene import draw_scene, people_of_scene, plan_scene
from datasets.synthetic.studio import Studio, generator
from utils.errors import UserError

log = logging.getLogger(__name__)

Kind = Literal["crops", "scenes"]
VERSION: Final = 1
"""Of what is drawn from the same seed."""
_BATCH: Final = {"crops": 16, "scenes": 4}
_IMAGES_A_FOLDER: Final = 1000


@dataclass(frozen=True)
class Order:
    """What to draw."""

    kind: Kind
    name: str
    split: Split
    seed: int
    people: int
    size: tuple[int, int]
    """Width and height of the pictures, pixels."""

    def picture_count(self) -> int:
        """So many scenes that the wanted number of people is planned in them; one crop each."""
        if self.kind == "crops":
            return self.people
        count = planned = 0
        while planned < self.people:
            planned += people_of_scene(generator(self.seed, self.split, count))
            count += 1
        return count


def produce(order: Order, out: Path, workers: int) -> Iterator[int]:
    """Draw a set into `out`/annot and `out`/img; yields the number of pictures as they are done.

    Raises UserError where a worker is killed.
    """
    images = out / "img" / order.name / order.split
    staging = images.with_name(f".drawing_{order.split}_{_digest(order)}")
    annotation = out / "annot" / f"{order.name}_{order.split}.npz"
    annotation.parent.mkdir(parents=True, exist_ok=True)
    (staging / "rows").mkdir(parents=True, exist_ok=True)
    total, size = order.picture_count(), _BATCH[order.kind]
    ranges = [range(first, min(first + size, total)) for first in range(0, total, size)]
    files = [staging / "rows" / f"{each.start:08d}.npz" for each in ranges]
    missing = [(each, file) for each, file in zip(ranges, files, strict=True) if not file.is_file()]
    yield total - sum(len(each) for each, _ in missing)
    if workers == 1:
        _prepare(order)
        for each, file in missing:
            yield _draw_batch(order, each, staging, file)
    else:
        yield from _in_processes(order, missing, staging, workers)

    columns = load_rows(files)
    if not columns:
        raise UserError("nobody is to be seen in these pictures; draw more people.")
    about = {"seed": order.seed, "version": VERSION, "kind": order.kind}
    made = entries(columns, f"{order.name}_{order.split}", about)
    # The annotation is removed first and comes last: where it is, the pictures are its own.
    annotation.unlink(missing_ok=True)
    shutil.rmtree(images, ignore_errors=True)
    (staging / "images").rename(images)
    write_humandata(annotation, made)
    shutil.rmtree(staging)
    log.info("%s: %d people in %d pictures", annotation, len(columns["image_path"]), total)


def _digest(order: Order) -> str:
    told = json.dumps([asdict(order), VERSION])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _in_processes(
    order: Order, missing: list[tuple[range, Path]], staging: Path, workers: int
) -> Iterator[int]:
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (order, os.getpid()))
    waiting: list[Future[int]] = []
    try:
        for each, file in missing:
            waiting.append(pool.submit(_draw_batch, order, each, staging, file))
            if len(waiting) >= 3 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (memory?); run the same again with fewer --workers to go on."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_studio: list[Studio] = []


def _start_worker(order: Order, parent: int) -> None:
    """Of a process of its own: the parent alone is stopped from outside, and takes it along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _prepare(order)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _prepare(order: Order) -> None:
    """One thread a process, so that numbers add up in the same order everywhere."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _studio[:] = [Studio(order.split)]


def _draw_batch(order: Order, indices: range, staging: Path, file: Path) -> int:
    """Draw some pictures and then write their rows; the number of pictures."""
    (studio,) = _studio
    parts = Parts(studio.figures.wardrobe.region)
    shape = order.size[::-1]
    plan, draw = (plan_crop, draw_crop) if order.kind == "crops" else (plan_scene, draw_scene)
    plans = [plan(studio, generator(order.seed, order.split, index), shape) for index in indices]
    figures = studio.figures.pose([one.parameters for each in plans for one in each.people])
    rows: list[Row] = []
    for index, each in zip(indices, plans, strict=True):
        own, figures = figures[: len(each.people)], figures[len(each.people) :]
        drawn = draw(studio, parts, each, own, shape)
        name = f"{index // _IMAGES_A_FOLDER:03d}/{index:06d}.jpg"
        path = staging / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.jpeg)
        rows += [{**row, "image_path": f"{order.split}/{name}"} for row in drawn.rows]
    save_rows(file, rows)
    return len(indices)

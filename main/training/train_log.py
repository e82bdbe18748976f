"""The log of a run: mean losses, metrics and pictures.

The first process writes it: to the screen, to metrics.jsonl, and for TensorBoard.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from main.training.state import Progress, Run
from utils.devices import has_float64, peak_memory_mib
from utils.errors import OneLineFormatter, logging_to
from utils.files import atomic_path, read_input

log = logging.getLogger(__name__)

Terms = dict[str, Float[Tensor, " B"]]
"""The terms of a loss, one value per sample."""
_LARGEST_LOG: Final = 2**30
"""Largest size of metrics.jsonl, in bytes."""


class TrainLog:
    """Logs the mean losses every `train.print_iters` iterations.

    `add` and `close` must be called by every process; only the first one writes.
    """

    def __init__(self, run: Run, datasets: Sequence[str], iterations: int, start: Progress) -> None:
        """
        Args:
            datasets: names; batches refer to them by number.
            iterations: per epoch.
            start: position of the run; log lines of later iterations are removed.
        """
        self._folder, self._device, self._world = run.folder / "log", run.device, run.world
        self._datasets, self._per_epoch = datasets, iterations
        self._every = run.config.train.print_iters
        self._iterations = run.config.train.end_epoch * iterations
        limit = run.config.train.time_limit_s
        self._ends = run.began + (math.inf if limit is None else limit - start.seconds)
        self._precision = torch.float64 if has_float64(run.device) else torch.float32
        self._names: tuple[str, ...] = ()
        self._begin_count()
        self._board: Any = None
        if run.world.is_first:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            _remove_later_lines(self._folder / "metrics.jsonl", start)
            self._board = SummaryWriter(str(self._folder), purge_step=self._step(start) + 1)

    def _begin_count(self) -> None:
        """Count anew the iterations of one line of the log."""
        self._sums: Tensor | None = None
        self._new, self._samples, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(
        self,
        progress: Progress,
        rate: float,
        batches: Sequence[Mapping[str, Tensor]],
        losses: Sequence[Terms],
    ) -> None:
        """Add the iteration after which training is at `progress`.

        If it was skipped, `batches` and `losses` are empty.
        """
        for batch, terms in zip(batches, losses, strict=True):
            self._names = tuple(terms)
            values = torch.stack([*terms.values(), torch.ones_like(next(iter(terms.values())))])
            if self._sums is None:
                shape = len(self._datasets), len(values)
                self._sums = torch.zeros(shape, dtype=self._precision, device=self._device)
            rows = batch["dataset"].to(self._device)
            self._sums.index_add_(0, rows, values.to(self._precision).T)
            self._samples += values.shape[1]
        self._new += 1
        step = self._step(progress)
        if step % self._every == 0 or step == self._iterations:
            self._write_means(progress, rate)

    def metrics(self, progress: Progress, values: Mapping[str, float], kind: str) -> None:
        """Log other numbers, such as those of a validation."""
        if self._world.is_first:
            self._write({"kind": kind, **_place(progress), **values})
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, self._step(progress))

    def picture(self, progress: Progress, name: str, image: Tensor) -> None:
        """Show an RGB image (3 H W, 0..255) in TensorBoard."""
        if self._world.is_first:
            self._board.add_image(name, image.to(torch.uint8), self._step(progress))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _step(self, progress: Progress) -> int:
        """Iterations of the run so far."""
        return progress.epoch * self._per_epoch + progress.iteration

    def _write_means(self, progress: Progress, rate: float) -> None:
        if self._sums is None:
            return  # all iterations were skipped, in all processes
        step = self._step(progress)
        if self._world.size > 1:
            distributed.all_reduce(self._sums)
        sums = self._sums.tolist()
        taken = time.perf_counter() - self._since
        numbers = {
            "lr": rate,
            "samples_per_s": self._samples * self._world.size / taken,
            "data_wait": self._waited / taken,
            "memory_mib": peak_memory_mib(self._device),
            "seconds_left": min(
                taken / self._new * (self._iterations - step), self._ends - time.monotonic()
            ),
        }
        self._begin_count()
        if not self._world.is_first:
            return
        means = self._means([sum(column) for column in zip(*sums, strict=True)])
        loss = sum(means.values())
        by_dataset = {
            dataset: self._means(row)
            for dataset, row in zip(self._datasets, sums, strict=True)
            if row[-1]
        }
        values = {"loss": loss, **means, **numbers}
        self._write({"kind": "train", **_place(progress), **values, "by_dataset": by_dataset})
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        for dataset, terms in by_dataset.items():
            for name, value in terms.items():
                self._board.add_scalar(f"{dataset}/{name}", value, step)
        log.info(
            "epoch %d iteration %d: loss %.4f (%s) lr %.2e, %.1f samples/s, %.0f %% waiting for "
            "data, %.0f MiB, %s left",
            *progress[:2],
            loss,
            " ".join(f"{name} {value:.4f}" for name, value in means.items()),
            rate,
            numbers["samples_per_s"],
            100 * numbers["data_wait"],
            numbers["memory_mib"],
            timedelta(seconds=round(numbers["seconds_left"])),
        )

    def _means(self, sums: Sequence[float]) -> dict[str, float]:
        """Means of the terms from their sums, which the number of samples follows."""
        *terms, count = sums
        return {name: term / count for name, term in zip(self._names, terms, strict=True)}

    def _write(self, line: Mapping[str, Any]) -> None:
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append log messages to a file while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(OneLineFormatter("%(asctime)s %(message)s"))
    with logging_to(handler):
        yield


def _place(progress: Progress) -> dict[str, int]:
    return {"epoch": progress.epoch, "iteration": progress.iteration}


def _remove_later_lines(path: Path, start: Progress) -> None:
    """Remove lines of iterations after `start`, which will be repeated, and a truncated line."""
    if not path.exists():
        return
    kept = []
    for text in read_input(path, _LARGEST_LOG).decode("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
            done = (line["epoch"], line["iteration"]) <= start[:2]
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        if done:
            kept.append(text + "\n")
    with atomic_path(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")

"""Curves of training runs: `python -m benchmarks.curves PICTURE.png RUN...`.

Each RUN is a folder in outputs/; a column a run, its loss and its terms above, below what its
validations found. A run that went on elsewhere is told whole by its metrics.jsonl.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from configs.reader import load_config
from main.door import door_parser, run_door
from utils.errors import UserError
from utils.files import atomic_path

mpl.use("agg")
from matplotlib import pyplot as plt

_TERMS: Final = ("keypoints", "token_joints", "first_glances", "joint_cam", "smplx_pose")
_VALIDATED: Final = ("body_px", "hand_px", "mpvpe_all", "pa_mpvpe_all", "pa_mpvpe_hand")
_SMOOTHED: Final = 5
"""Lines of the log that a point of the loss is the mean of."""


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    """Lines of a run's metrics.jsonl; raises UserError where there is none."""
    path = run / "log" / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing; name a folder of outputs/")
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def draw_run(run: Path, processes: int, losses: Axes, validations: Axes) -> None:
    batch = load_config(run / "config_base.py").train.train_batch_size * processes
    trained = [row for row in rows_of(run) if row["kind"] == "train"]
    if not trained:
        raise UserError(f"{run}: nothing in it is of training")
    per_epoch = max(row["iteration"] for row in trained)
    samples = batch * np.array([row["epoch"] * per_epoch + row["iteration"] for row in trained])
    for name in ("loss", *_TERMS):
        values = np.array([row.get(name, np.nan) for row in trained])
        if np.isfinite(values).any() and len(values) >= _SMOOTHED:
            mean = np.convolve(values, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
            losses.plot(samples[_SMOOTHED - 1 :] / 1000, mean, label=name)
    losses.set(title=run.name, yscale="log", ylabel="loss and its terms")
    found = [row for row in rows_of(run) if row["kind"].startswith("validation/")]
    at = batch * np.array([row["epoch"] * per_epoch + row["iteration"] for row in found]) / 1000
    for name in _VALIDATED:
        values = [row.get(name, np.nan) for row in found]
        if np.isfinite(values).any():
            validations.plot(at, values, "o-", label=name)
    validations.set(xlabel="thousand samples", ylabel="median px, mean mm")
    for axes in (losses, validations):
        axes.set_xlim(0, None)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()


def run(arguments: argparse.Namespace) -> None:
    runs = arguments.runs
    figure, grid = plt.subplots(
        2, len(runs), figsize=(6 * len(runs), 7), squeeze=False, layout="constrained"
    )
    for column, folder in enumerate(runs):
        draw_run(folder, arguments.processes, *grid[:, column])
    with atomic_path(arguments.picture) as partial:
        figure.savefig(partial, dpi=90)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("curves", "Draw the curves of training runs.")
    parser.add_argument("picture", metavar="PICTURE.png", type=Path)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    parser.add_argument("--processes", type=int, default=1, help="that the runs had (default: 1)")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

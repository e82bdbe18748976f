"""Curves of training runs: `python -m benchmarks.curves PICTURE.png RUN...`.

Each RUN is a folder in outputs/ and gets a column: loss terms above, validation results below. The
metrics.jsonl of a resumed run contains the whole run.
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
from matplotlib.figure import Figure

from configs.reader import load_config
from main.cli import command, command_parser
from utils.errors import UserError
from utils.files import atomic_path

mpl.use("agg")
from matplotlib import pyplot as plt

_TERMS: Final = ("keypoints", "token_joints", "attention", "joint_cam", "smplx_pose")
_VALIDATED: Final = (
    "body_px",
    "hand_px",
    "mpjpe",
    "pa_body",
    "mpvpe_all",
    "pa_mpvpe_all",
    "pa_mpvpe_hand",
)
_SMOOTHED: Final = 5
"""Number of log lines in the moving average of the loss."""


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    """Lines of a run's metrics.jsonl.

    Raises:
        UserError: there is no such file.
    """
    path = run / "log" / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing; name a folder of outputs/")
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def thousands_seen(run: Path, processes: int, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Number of samples, in thousands, that the run had used at each row."""
    batch = load_config(run / "config_base.py").train.train_batch_size * processes
    iterations = [row["iteration"] for row in rows_of(run) if row["kind"] == "train"]
    if not iterations:
        raise UserError(f"{run}: it has no log of training")
    per_epoch = max(iterations)
    return batch / 1000 * np.array([row["epoch"] * per_epoch + row["iteration"] for row in rows])


def validated(run: Path, processes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of samples, in thousands, and the value of the metric `name`, at each validation."""
    found = [row for row in rows_of(run) if row["kind"].startswith("validation/")]
    return thousands_seen(run, processes, found), np.array([row.get(name, np.nan) for row in found])


def draw_run(run: Path, processes: int, losses: Axes, validations: Axes) -> None:
    trained = [row for row in rows_of(run) if row["kind"] == "train"]
    samples = thousands_seen(run, processes, trained)
    for name in ("loss", *_TERMS):
        values = np.array([row.get(name, np.nan) for row in trained])
        if np.isfinite(values).any() and len(values) >= _SMOOTHED:
            mean = np.convolve(values, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
            losses.plot(samples[_SMOOTHED - 1 :], mean, label=name)
    losses.set(title=run.name, yscale="log", ylabel="loss and its terms")
    for name in _VALIDATED:
        at, values = validated(run, processes, name)
        if np.isfinite(values).any():
            validations.plot(at, values, "o-", label=name)
    validations.set(xlabel="thousand samples", ylabel="median px, mean mm")
    validations.set_ylim(0, 1.3 * validations.get_ylim()[1])  # room for the legend
    for axes in (losses, validations):
        axes.set_xlim(0, None)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="upper right")


def draw_columns(runs: Sequence[Path], processes: int) -> Figure:
    figure, grid = plt.subplots(
        2, len(runs), figsize=(6 * len(runs), 7), squeeze=False, layout="constrained"
    )
    for column, folder in enumerate(runs):
        draw_run(folder, processes, *grid[:, column])
    return figure


def run(arguments: argparse.Namespace) -> None:
    runs, processes = arguments.runs, arguments.processes
    figure = draw_columns(runs, processes)
    with atomic_path(arguments.picture) as partial:
        figure.savefig(partial, dpi=90)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("curves", "Draw the curves of training runs.")
    parser.prog = "python -m benchmarks.curves"
    parser.add_argument("picture", metavar="PICTURE.png", type=Path)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    parser.add_argument("--processes", type=int, default=1, help="of the runs (default: 1)")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

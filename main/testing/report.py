"""What a benchmark leaves behind: result files, pictures, the log, and tables for the screen."""

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from configs.reader import save_config
from configs.schema import Config
from main.pipeline.model_files import CONFIG_NAME
from main.testing.benchmark import BenchmarkResult
from main.testing.comparison import NOTE, PUBLISHED, comparison_table
from main.testing.metric_table import MeanAndCount
from main.testing.protocol import SMPLX_METRICS
from utils.files import atomic_path

_PART_LABELS: Final = {
    "all": "All",
    "l_hand": "L-Hands",
    "r_hand": "R-Hands",
    "hand": "Hands",
    "face": "Face",
    "body": "Body",
}
_COLUMNS: Final = 120
"""Width of tables in text files."""
Means = Mapping[str, MeanAndCount]


class _LineKeeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def kept_log() -> Iterator[list[str]]:
    """A list that grows by what is logged while the block runs, for log files of several runs."""
    keeper = _LineKeeper()
    logging.getLogger().addHandler(keeper)
    try:
        yield keeper.lines
    finally:
        logging.getLogger().removeHandler(keeper)


def label(metric: str) -> str:
    """The published name: pa_mpvpe_l_hand -> PA MPVPE (L-Hands)."""
    kind, part = metric.removeprefix("pa_").split("_", 1)
    return f"{'PA ' if metric.startswith('pa_') else ''}{kind.upper()} ({_PART_LABELS[part]})"


def write_results(
    folder: Path,
    about: Mapping[str, Any],
    result: BenchmarkResult,
    config: Config,
    log_lines: Sequence[str],
    draw: Callable[[Path], None] | None = None,
) -> None:
    """`folder`/result and `folder`/log, each whole or not at all; a former result is replaced.

    Args:
        about: what result.json says besides the means: at least dataset, protocol, checkpoint.
        draw: makes pictures in the folder that it is given.
    """
    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        _write_means(partial, about, result.means)
        lines = [f"{about['dataset']}, {about['protocol']} protocol\n"]
        lines += [f"{label(name)}: {_in_words(mean)}\n" for name, mean in _in_order(result.means)]
        if "detection" in about:
            told = (f"{name} {value:.4g}" for name, value in about["detection"].items())
            lines.append(f"detection: {', '.join(told)}\n")
        # The published order of 14 numbers in one line; those that it does not have follow.
        lines.append(",".join(_number(mean) for _, mean in _in_order(result.means)) + "\n")
        (partial / "result.txt").write_text("".join(lines), encoding="utf-8")
        columns = {"row": result.rows, "image_path": np.array(result.image_paths, str)}
        np.savez(partial / "errors_mm.npz", allow_pickle=False, **result.errors_mm, **columns)
        save_config(config, partial / CONFIG_NAME)
        if draw is not None:
            (partial / "worst").mkdir()
            draw(partial / "worst")
    write_log(folder, log_lines)


def write_mean_primary_error(
    folder: Path, about: Mapping[str, Any], means: Means, log_lines: Sequence[str]
) -> None:
    """The mean over several benchmarks, in the same form."""
    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        _write_means(partial, about, means)
    write_log(folder, log_lines)


def write_log(folder: Path, lines: Sequence[str]) -> None:
    with atomic_path(folder / "log" / "test.log") as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def means_table(title: str, means: Means) -> Table:
    """For the screen."""
    table = Table("metric", title=title)
    table.add_column("mean, mm", justify="right")
    table.add_column("samples", justify="right")
    for name, mean in _in_order(means):
        table.add_row(label(name), _number(mean) or "-", str(mean["count"]))
    return table


def _write_means(folder: Path, about: Mapping[str, Any], means: Means) -> None:
    """result.json, and comparison.txt where something was published of that benchmark."""
    report = {**about, "metrics": means}
    table = comparison_table(about["dataset"], means)
    if table is not None:
        published = {one.method: one.figures for one in PUBLISHED[about["dataset"]]}
        report["comparison"] = {"note": NOTE, "published": published}
        (folder / "comparison.txt").write_text(_as_text(table), encoding="utf-8")
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8")


def _in_order(means: Means) -> list[tuple[str, MeanAndCount]]:
    return [(name, means[name]) for name in SMPLX_METRICS if name in means]


def _in_words(mean: MeanAndCount) -> str:
    if mean["mean"] is None:
        return "no sample has it"
    return f"{mean['mean']:.2f} mm ({mean['count']} samples)"


def _number(mean: MeanAndCount) -> str:
    return "" if mean["mean"] is None else f"{mean['mean']:.2f}"


def _as_text(table: Table) -> str:
    text = io.StringIO()
    table.box = box.ASCII
    Console(file=text, width=_COLUMNS, color_system=None).print(table)
    return text.getvalue()

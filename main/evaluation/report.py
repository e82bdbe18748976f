"""What a benchmark leaves behind: result files, pictures, the log, and tables for the screen."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from configs.reader import save_config
from datasets.sources import Source
from main.evaluation.benchmark import BenchmarkResult
from main.evaluation.metrics import SMPLX_METRICS, MeanAndCount, Means
from main.evaluation.worst import draw_worst
from main.paths import CONFIG_NAME
from main.pipeline.estimator import Estimator
from utils.files import atomic_path

PRIMARY_METRICS: Final = {
    "AGORA": "mpvpe_all",
    "UBody": "mpvpe_all",
    "EgoBody_Egocentric": "mpvpe_all",
    "PW3D": "mpjpe_body",
    "EHF": "mpvpe_all",
}
"""The five benchmarks whose mean error the papers call MPE, and the metric of each."""
MPE: Final = "mpe"
_PART_LABELS: Final = {
    "all": "All",
    "l_hand": "L-Hands",
    "r_hand": "R-Hands",
    "hand": "Hands",
    "face": "Face",
    "body": "Body",
}


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


def write_results(
    folder: Path,
    about_run: Mapping[str, Any],
    source: Source,
    result: BenchmarkResult,
    estimator: Estimator,
    log_lines: Sequence[str],
) -> None:
    """`folder`/result and `folder`/log, each whole or not at all; a former result is replaced.

    Args:
        about_run: what result.json states of the run: at least protocol and checkpoint.
    """
    about = {
        "dataset": source.name,
        **about_run,
        "files": source.files("test"),
        "ground_truth": result.truth,
        "interval": source.interval("test"),
        "samples": len(result.rows),
        "visible_only": result.visible_only,
    }
    lines = [f"{source.name}, {about_run['protocol']} protocol\n"]
    lines += [f"{label(name)}: {_sentence(mean)}\n" for name, mean in _in_order(result.means)]
    if result.match is not None:
        about["detection"] = result.match.report(result.means)
        values = (f"{name} {value:.4g}" for name, value in about["detection"].items())
        lines.append(f"detection: {', '.join(values)}\n")
    # The published order of 14 numbers in one line; those that it does not have follow.
    lines.append(",".join(_number(mean) for _, mean in _in_order(result.means)) + "\n")

    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        _write_json(partial, about, result.means)
        (partial / "result.txt").write_text("".join(lines), encoding="utf-8")
        columns = {"row": result.rows, "image_path": np.array(result.image_paths, str)}
        np.savez(partial / "errors_mm.npz", allow_pickle=False, **result.errors_mm, **columns)
        save_config(estimator.config, partial / CONFIG_NAME)
        if result.worst:
            (partial / "worst").mkdir()
            draw_worst(
                partial / "worst",
                result.worst,
                [f"row {result.rows[sample.place]}" for sample in result.worst],
                estimator.config.model,
                estimator.bodies.folder,
                hands_alone=source.hands_alone,
            )
    _write_log(folder, log_lines)


def mean_primary_error(means_by_dataset: Mapping[str, Means]) -> MeanAndCount | None:
    """Mean of the five primary errors (millimetres) over 5; None where one of them is missing."""
    errors = [
        means_by_dataset.get(dataset, {}).get(metric, {"mean": None, "count": 0})["mean"]
        for dataset, metric in PRIMARY_METRICS.items()
    ]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return {"mean": sum(known) / len(known), "count": len(known)}


def write_mean_primary_error(
    folder: Path,
    about_run: Mapping[str, Any],
    datasets: Sequence[str],
    mean: MeanAndCount,
    log_lines: Sequence[str],
) -> None:
    """The mean over several benchmarks, in the form of `write_results`."""
    about = {"dataset": "MPE", **about_run, "datasets": list(datasets)}
    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        _write_json(partial, about, {MPE: mean})
    _write_log(folder, log_lines)


def means_table(title: str, means: Means) -> Table:
    """The means, for the screen."""
    table = Table("metric", title=title)
    table.add_column("mean, mm", justify="right")
    table.add_column("samples", justify="right")
    for name, mean in _in_order(means):
        table.add_row(label(name), _number(mean) or "-", str(mean["count"]))
    return table


def label(metric: str) -> str:
    """The published name: pa_mpvpe_l_hand -> PA MPVPE (L-Hands)."""
    kind, part = metric.removeprefix("pa_").split("_", 1)
    return f"{'PA ' if metric.startswith('pa_') else ''}{kind.upper()} ({_PART_LABELS[part]})"


def _write_json(folder: Path, about: Mapping[str, Any], means: Means) -> None:
    text = json.dumps({**about, "metrics": means}, indent=2, allow_nan=False) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8")


def _write_log(folder: Path, lines: Sequence[str]) -> None:
    with atomic_path(folder / "log" / "test.log") as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _in_order(means: Means) -> list[tuple[str, MeanAndCount]]:
    return [(name, means[name]) for name in SMPLX_METRICS if name in means]


def _sentence(mean: MeanAndCount) -> str:
    if mean["mean"] is None:
        return "no sample has it"
    return f"{mean['mean']:.2f} mm ({mean['count']} samples)"


def _number(mean: MeanAndCount) -> str:
    return "" if mean["mean"] is None else f"{mean['mean']:.2f}"

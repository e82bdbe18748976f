"""The benchmark door: `python -m main.test DATASET MODEL_DIR [CKPT_ID] [flags]`.

MODEL_DIR is what inference takes; with CKPT_ID it is a training run, whose snapshot of that epoch
is tested. Results go to outputs/test_DATASET_epID_DATE/result.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from configs.reader import save_config
from datasets.configured import find_source
from main.benchmark import BenchmarkResult, run_benchmark
from main.door import add_network_flags, door_parser, run_door
from main.estimator import Estimator
from main.model_files import CONFIG_NAME, OUTPUTS, ROOT, find_model, find_snapshot
from main.protocol import PROTOCOLS, Protocol
from utils.files import atomic_path

log = logging.getLogger(__name__)


def write_results(
    folder: Path, result: BenchmarkResult, about: dict[str, str], estimator: Estimator
) -> None:
    """result.json, result.txt, errors of every sample and the config, whole or not at all."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        report = json.dumps({**about, "metrics": result.means}, indent=2) + "\n"
        (partial / "result.json").write_text(report, encoding="utf-8")
        lines = [f"{name}: {_in_words(**mean)}\n" for name, mean in result.means.items()]
        (partial / "result.txt").write_text("".join(lines), encoding="utf-8")
        np.savez(partial / "errors_mm.npz", allow_pickle=False, **result.errors_mm)
        save_config(estimator.config, partial / CONFIG_NAME)


def _in_words(mean: float | None, count: int) -> str:
    return "no sample has it" if mean is None else f"{mean:.2f} mm ({count} samples)"


def run(arguments: argparse.Namespace) -> None:
    protocol = Protocol.named(arguments.protocol)
    if arguments.checkpoint_id is None:
        weights, epoch = find_model(arguments.model_dir).weights, "none"
    else:
        weights = find_snapshot(arguments.model_dir, arguments.checkpoint_id).weights
        epoch = arguments.checkpoint_id
    estimator = Estimator.load(
        str(weights),
        device=arguments.device,
        precision=arguments.precision,
        overrides=arguments.overrides,
    )
    source = find_source(arguments.dataset, estimator.config.data)
    data_dir = ROOT / estimator.config.data.data_dir
    result = run_benchmark(source, estimator, protocol, data_dir)
    date = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
    output = arguments.output or OUTPUTS / f"test_{source.name}_ep{epoch}_{date}" / "result"
    about = {
        "dataset": source.name,
        "protocol": protocol.name,
        "checkpoint": str(weights),
        "body_model": estimator.body_name,
    }
    write_results(output, result, about, estimator)
    table = Table("metric", "mean, mm", "samples", title=f"{source.name}, {protocol.name} protocol")
    for name, mean in result.means.items():
        shown = "-" if mean["mean"] is None else f"{mean['mean']:.2f}"
        table.add_row(name, shown, str(mean["count"]))
    Console().print(table)
    log.info("%s", output)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("test", "Evaluate a network on the test split of a dataset.")
    parser.add_argument("dataset", metavar="DATASET", help="a name of datasets/sources.py")
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="as for inference, or a run")
    parser.add_argument("checkpoint_id", metavar="CKPT_ID", nargs="?", help="an epoch of the run")
    parser.add_argument("--protocol", default="correct", help=" or ".join(PROTOCOLS))
    parser.add_argument("--output", type=Path, help="folder for the results")
    add_network_flags(parser)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

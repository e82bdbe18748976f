"""One call of the benchmark door: a network on the test splits of one dataset or of several."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.schema import DataConfig
from datasets.sources import Source, find_source
from main.estimator import Estimator
from main.model_files import OUTPUTS, ROOT, find_model, find_snapshot
from main.testing.benchmark import BenchmarkResult, run_benchmark
from main.testing.comparison import MPE, comparison_table, mean_primary_error
from main.testing.detections import read_detections
from main.testing.protocol import PUBLISHED, Protocol
from main.testing.report import (
    Means,
    kept_log,
    means_table,
    write_mean_primary_error,
    write_results,
)
from main.testing.worst import draw_worst
from utils.distributed import (
    device_of_process,
    failing_together,
    is_first,
    process_group,
)
from utils.errors import UserError

log = logging.getLogger(__name__)


class Session:
    """One network, and what all of its benchmarks have in common."""

    def __init__(
        self, arguments: argparse.Namespace, estimator: Estimator, weights: Path, epoch: str
    ) -> None:
        self.arguments, self.estimator = arguments, estimator
        self.weights, self.epoch = weights, epoch
        self.protocol = Protocol.named(arguments.protocol)
        file = arguments.detections
        self.detections = None if file is None else read_detections(file)
        self.date = datetime.now().astimezone()

    def about(self, dataset: str) -> dict[str, Any]:
        return {
            "dataset": dataset,
            "protocol": self.protocol.name,
            "checkpoint": str(self.weights),
            "body_model": self.estimator.body_name,
            "date": self.date.isoformat(timespec="seconds"),
        }

    def folder(self, dataset: str, several: bool) -> Path:
        if self.arguments.output is None:
            return OUTPUTS / f"test_{dataset}_ep{self.epoch}_{self.date:%Y%m%d_%H%M%S}"
        return self.arguments.output / dataset if several else self.arguments.output

    def evaluate(self, source: Source) -> BenchmarkResult | None:
        scans = source.scans if self.arguments.gt == "meshes" else None
        return run_benchmark(
            source,
            self.estimator,
            self.protocol,
            ROOT / self.estimator.config.data.data_dir,
            scans=scans,
            detections=self.detections,
            worst_count=self.arguments.worst,
        )

    def report(
        self, source: Source, result: BenchmarkResult, folder: Path, log_lines: Sequence[str]
    ) -> None:
        about = self.about(source.name) | {
            "files": source.files("test"),
            "ground_truth": result.truth,
            "interval": source.interval("test"),
            "samples": len(result.rows),
            "visible_only": source.visible_only and self.protocol != PUBLISHED,
        }
        if result.found is not None:
            about["detection"] = result.found.report(result.means)
        draw = partial(
            draw_worst,
            samples=result.worst,
            names=[f"row {result.rows[sample.place]}" for sample in result.worst],
            model=self.estimator.config.model,
            body_folder=self.estimator.bodies.folder,
            hands_alone=source.hands_alone,
        )
        write_results(
            *(folder, about, result, self.estimator.config, log_lines),
            draw=draw if result.worst else None,
        )
        title = f"{source.name}, {self.protocol.name} protocol"
        show([means_table(title, result.means), comparison_table(source.name, result.means)])
        if result.found is not None:
            log.info("detection: %s", about["detection"])
        log.info("%s", folder)

    def report_mean(
        self, means_by_dataset: dict[str, Means], folder: Path, log_lines: Sequence[str]
    ) -> None:
        """The mean of the primary errors, where all of them were measured."""
        mean = mean_primary_error(means_by_dataset)
        if mean is not None:
            about = self.about("MPE") | {"datasets": list(means_by_dataset)}
            write_mean_primary_error(folder, about, {MPE: mean}, log_lines)
            show([comparison_table("MPE", {MPE: mean})])
            log.info("%s", folder)


def run_test(arguments: argparse.Namespace) -> int:
    """Evaluate every dataset that was asked for; 2 where one of several could not be."""
    if not is_first():
        logging.disable()  # the first process tells what all of them do
    Protocol.named(arguments.protocol)
    weights, epoch = find_weights(arguments)
    device = device_of_process(arguments.device)
    with process_group(device), kept_log() as log_lines:
        with failing_together("network"):
            estimator = Estimator.load(
                str(weights),
                device=str(device),
                precision=arguments.precision,
                overrides=arguments.overrides,
            )
            sources = find_sources(arguments, estimator.config.data)
            session = Session(arguments, estimator, weights, epoch)
        return run_all(sources, session, log_lines)


def run_all(sources: Sequence[Source], session: Session, log_lines: list[str]) -> int:
    several = len(sources) > 1
    loaded = len(log_lines)
    means_by_dataset: dict[str, Means] = {}
    failures: list[str] = []
    for source in sources:
        before = len(log_lines)
        try:
            result = session.evaluate(source)
        except UserError as error:
            if not several:
                raise
            failures.append(f"{source.name}: {error}")
            continue
        with failing_together(f"{source.name}, results"):
            if result is not None:
                lines = [*log_lines[:loaded], *log_lines[before:]]
                session.report(source, result, session.folder(source.name, several), lines)
                means_by_dataset[source.name] = result.means
    session.report_mean(means_by_dataset, session.folder("MPE", several), log_lines)
    for failure in failures:
        log.error("error: %s", failure)
    return 2 if failures else 0


def find_weights(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The weights that the command line names, and their epoch ("none" if it names none).

    Raises:
        UserError: there are none, or the words do not go together.
    """
    model, epoch = arguments.model_dir, arguments.checkpoint_id
    if arguments.humandata is not None:
        if arguments.dataset or not (arguments.images and arguments.model):
            raise UserError("--humandata FILE needs --images DIR and --model MODEL_DIR; no DATASET")
        model, epoch = arguments.model, arguments.checkpoint
    elif arguments.images or arguments.model or arguments.checkpoint:
        raise UserError("--images, --model and --checkpoint belong to --humandata FILE; see --help")
    elif not model:
        raise UserError("DATASET and MODEL_DIR are needed, or --humandata FILE; see --help")
    if epoch is None:
        return find_model(model).weights, "none"
    return find_snapshot(model, epoch).weights, epoch


def find_sources(arguments: argparse.Namespace, config: DataConfig) -> list[Source]:
    """The datasets that the command line names, each once.

    Raises:
        UserError: one is unknown, or none has the wanted ground truth.
    """
    if arguments.humandata is not None:
        file, images = arguments.humandata.resolve(), arguments.images.resolve()
        if not file.is_file() or not images.is_dir():
            raise UserError(f"--humandata {file}, --images {images}: give a file and a folder")
        sources = [Source(file.stem, None, (str(file),), str(images))]
    else:
        names = dict.fromkeys(name.strip() for name in arguments.dataset.split(","))
        sources = [find_source(name, config) for name in names]
    if arguments.gt == "meshes" and not any(source.scans for source in sources):
        raise UserError(f"--gt meshes: {sources[0].name} has no meshes beside its images, EHF has")
    return sources


def show(tables: Iterable[Table | None]) -> None:
    console = Console()
    for table in tables:
        if table is not None:
            console.print(table)

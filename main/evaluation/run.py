"""Benchmarks of one network: the test splits of one dataset or of several, and their results."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from configs.schema import DataConfig
from datasets.sources import Source, find_source
from main.evaluation.benchmark import run_benchmark
from main.evaluation.detections import read_detections
from main.evaluation.metrics import EvaluationProtocol, Means
from main.evaluation.report import (
    kept_log,
    mean_primary_error,
    means_table,
    write_mean_primary_error,
    write_results,
)
from main.paths import OUTPUTS, ROOT
from main.pipeline.estimator import Estimator
from main.pipeline.model_files import find_weights
from utils.distributed import device_of_process, failing_together, process_group
from utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkOptions:
    """Which network is evaluated on what, by which rules, and where results go.

    Attributes:
        model_dir: a name under pretrained_models/, a folder or a weights file; with
            `checkpoint_id` a training run.
        checkpoint_id: the epoch of the run.
        datasets: names of datasets/sources.py or of the config.
        humandata: a HumanData file instead of a dataset, and
        images: the folder that its image paths start from.
        protocol: name of an `EvaluationProtocol`.
        ground_truth: "meshes" are those registered to scans, where a dataset has them.
        worst_count: how many of the worst samples to draw.
        detections: a file of a detector's boxes, instead of the dataset's own.
        output: folder for log/ and result/; None: a folder in outputs/.
        device: "auto", or a device of PyTorch.
        precision: of encoder and decoder, "fp32" or "bf16".
        overrides: changes of the model's config, "section.key=value".
    """

    model_dir: str
    checkpoint_id: str | None = None
    datasets: tuple[str, ...] = ()
    humandata: Path | None = None
    images: Path | None = None
    protocol: str = "correct"
    ground_truth: Literal["parameters", "meshes"] = "parameters"
    worst_count: int = 8
    detections: Path | None = None
    output: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    overrides: tuple[str, ...] = ()


def run_benchmarks(options: BenchmarkOptions) -> int:
    """Evaluate every dataset that was asked for; 2 where one of several could not be.

    Raises:
        UserError: something is missing or wrong, and there is no other dataset to evaluate.
    """
    protocol = EvaluationProtocol.named(options.protocol)
    weights = find_weights(options.model_dir, options.checkpoint_id).weights
    device = device_of_process(options.device)
    with process_group(device), kept_log() as log_lines:
        with failing_together("network"):
            estimator = Estimator.load(
                str(weights),
                device=str(device),
                precision=options.precision,
                overrides=options.overrides,
            )
            sources = _find_sources(options, estimator.config.data)
            file = options.detections
            detections = None if file is None else read_detections(file)
        date = datetime.now().astimezone()
        about_run = {
            "protocol": protocol.name,
            "checkpoint": str(weights),
            "body_model": estimator.body_name,
            "date": date.isoformat(timespec="seconds"),
        }
        several = len(sources) > 1
        lines_of_loading = log_lines.copy()
        means: dict[str, Means] = {}
        failures: list[str] = []
        for source in sources:
            lines_before = len(log_lines)
            try:
                result = run_benchmark(
                    source,
                    estimator,
                    protocol,
                    ROOT / estimator.config.data.data_dir,
                    scans=source.scans if options.ground_truth == "meshes" else None,
                    detections=detections,
                    worst_count=options.worst_count,
                )
            except UserError as error:
                if not several:
                    raise
                failures.append(f"{source.name}: {error}")
                continue
            with failing_together(f"{source.name}, results"):
                if result is not None:  # in the first process
                    folder = _result_folder(source.name, options, date, several=several)
                    lines = [*lines_of_loading, *log_lines[lines_before:]]
                    write_results(folder, about_run, source, result, estimator, lines)
                    title = f"{source.name}, {protocol.name} protocol"
                    Console().print(means_table(title, result.means))
                    if result.match is not None:
                        log.info("detection: %s", result.match.report(result.means))
                    log.info("%s", folder)
                    means[source.name] = result.means
        folder = _result_folder("MPE", options, date, several=several)
        _report_mean(means, folder, about_run, log_lines)
        for failure in failures:
            log.error("error: %s", failure)
        return 2 if failures else 0


def _find_sources(options: BenchmarkOptions, config: DataConfig) -> list[Source]:
    """The datasets that were asked for, each once.

    Raises:
        UserError: one is unknown, or none has the wanted ground truth.
    """
    if options.humandata is not None:
        assert options.images is not None
        file, images = options.humandata.resolve(), options.images.resolve()
        if not file.is_file() or not images.is_dir():
            raise UserError(f"--humandata {file}, --images {images}: give a file and a folder")
        sources = [Source(file.stem, None, (str(file),), str(images))]
    else:
        sources = [find_source(name, config) for name in dict.fromkeys(options.datasets)]
    if options.ground_truth == "meshes" and not any(source.scans for source in sources):
        raise UserError(f"--gt meshes: {sources[0].name} has no meshes beside its images, EHF has")
    return sources


def _result_folder(name: str, options: BenchmarkOptions, date: datetime, *, several: bool) -> Path:
    if options.output is None:
        epoch = "none" if options.checkpoint_id is None else options.checkpoint_id
        return OUTPUTS / f"test_{name}_ep{epoch}_{date:%Y%m%d_%H%M%S}"
    return options.output / name if several else options.output


def _report_mean(
    means: Mapping[str, Means], folder: Path, about_run: Mapping[str, Any], log_lines: list[str]
) -> None:
    """Write the mean of the primary errors, where all of them were measured."""
    mean = mean_primary_error(means)
    if mean is not None:
        write_mean_primary_error(folder, about_run, list(means), mean, log_lines)
        log.info("mean of the %d primary errors (MPE): %.2f mm", mean["count"], mean["mean"])
        log.info("%s", folder)

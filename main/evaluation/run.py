"""Benchmarks of one network on the test splits of one or more datasets, and their result files."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from configs.reader import save_config
from configs.schema import DataConfig, Protocol
from datasets.sources import Source, find_source
from main.evaluation.benchmark import BenchmarkResult, read_detections, run_benchmark
from main.evaluation.metrics import SMPLX_METRICS, MeanAndCount, Means
from main.evaluation.scoring import (
    WorldErrors,
    match_world,
    read_world_people,
    weighted_means,
    world_table,
)
from main.evaluation.truth import WorldSequence, WorldTrack, emdb_sequences, rich_sequences
from main.evaluation.worst import draw_worst
from main.pipeline.detection import Detection, Detector
from main.pipeline.estimator import Estimator
from main.pipeline.model_files import find_weights
from main.pipeline.options import CameraChoice, InferenceOptions
from main.pipeline.pipeline import NobodyFoundError, Tools, process_clip
from utils.camera import Box
from utils.devices import device_of_process, failing_together, process_group, world
from utils.errors import UserError, logging_to
from utils.files import CONFIG_NAME, OUTPUTS, ROOT, atomic_path
from utils.source import open_source

log = logging.getLogger(__name__)

WORLD_SETS: Final = {"EMDB": emdb_sequences, "RICH": rich_sequences}
"""Benchmarks in the world, and the functions that read their sequences."""
_WORLD_FPS: Final = 30.0
_WORST_COUNT: Final = 8
PRIMARY_METRICS: Final = {
    "AGORA": "mpvpe_all",
    "UBody": "mpvpe_all",
    "EgoBody_Egocentric": "mpvpe_all",
    "PW3D": "mpjpe_body",
    "EHF": "mpvpe_all",
}
"""The five benchmarks of the papers' mean primary error (MPE), and the metric of each."""
MPE: Final = "mpe"
_PART_LABELS: Final = {
    "all": "All",
    "l_hand": "L-Hands",
    "r_hand": "R-Hands",
    "hand": "Hands",
    "face": "Face",
    "body": "Body",
}


@contextmanager
def kept_log() -> Iterator[StringIO]:
    """A buffer that receives everything that is logged in the block."""
    content = StringIO()
    handler = logging.StreamHandler(content)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with logging_to(handler):
        yield content


def write_results(
    folder: Path,
    about_run: Mapping[str, Any],
    source: Source,
    result: BenchmarkResult,
    estimator: Estimator,
    log_text: str,
) -> None:
    """Write `folder`/result and `folder`/log atomically; older ones are replaced.

    Args:
        about_run: entries about the run for result.json, at least protocol and checkpoint.
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
    if result.breakdown:
        about["breakdown"] = result.breakdown
        lines += [f"{name}: {_number(mean) or '-'}\n" for name, mean in result.breakdown.items()]
    # All means on one line, the 14 of the published code first, in its order.
    lines.append(",".join(_number(mean) for _, mean in _in_order(result.means)) + "\n")

    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        _write_json(partial, about, result.means)
        _write_text(partial / "result.txt", "".join(lines))
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
    _write_log(folder, log_text)


def mean_primary_error(means_by_dataset: Mapping[str, Means]) -> MeanAndCount | None:
    """Mean of the five primary errors (millimetres); None if one of them is missing."""
    errors = []
    for dataset, metric in PRIMARY_METRICS.items():
        mean = means_by_dataset.get(dataset, {}).get(metric)
        if mean is None or mean["mean"] is None:
            return None
        errors.append(mean["mean"])
    return {"mean": sum(errors) / len(errors), "count": len(errors)}


def means_table(title: str, means: Means, breakdown: Means) -> Table:
    """A table of the means for the terminal."""
    table = Table("metric", title=title)
    table.add_column("mean, mm", justify="right")
    table.add_column("samples", justify="right")
    for name, mean in _in_order(means):
        table.add_row(label(name), _number(mean) or "-", str(mean["count"]))
    for name, mean in breakdown.items():
        table.add_row(name, _number(mean) or "-", str(mean["count"]))
    return table


def label(metric: str) -> str:
    """The published name of a metric, such as PA MPVPE (L-Hands) for pa_mpvpe_l_hand."""
    kind, part = metric.removeprefix("pa_").split("_", 1)
    return f"{'PA ' if metric.startswith('pa_') else ''}{kind.upper()} ({_PART_LABELS[part]})"


def _write_json(folder: Path, about: Mapping[str, Any], means: Means) -> None:
    text = json.dumps({**about, "metrics": means}, indent=2, allow_nan=False) + "\n"
    _write_text(folder / "result.json", text)


def _write_log(folder: Path, text: str) -> None:
    with atomic_path(folder / "log" / "test.log") as partial:
        _write_text(partial, text)


def _write_text(path: Path, text: str) -> None:
    """Write UTF-8; characters of names that it cannot encode become backslash sequences."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _in_order(means: Means) -> list[tuple[str, MeanAndCount]]:
    return [(name, means[name]) for name in SMPLX_METRICS if name in means]


def _sentence(mean: MeanAndCount) -> str:
    if mean["mean"] is None:
        return "not measured in any sample"
    return f"{mean['mean']:.2f} mm ({mean['count']} samples)"


def _number(mean: MeanAndCount) -> str:
    return "" if mean["mean"] is None else f"{mean['mean']:.2f}"


@dataclass(frozen=True)
class BenchmarkOptions:
    """Network, datasets, protocol and output of an evaluation; see `main.test --help`.

    `worst_count` is 8 if it is None, except for benchmarks in the world.
    """

    model_dir: str
    checkpoint_id: str | None = None
    datasets: tuple[str, ...] = ()
    humandata: Path | None = None
    images: Path | None = None
    protocol: Protocol = "correct"
    ground_truth: Literal["parameters", "meshes"] = "parameters"
    worst_count: int | None = None
    detections: Path | None = None
    output: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    overrides: tuple[str, ...] = ()


def run_benchmarks(options: BenchmarkOptions) -> int:
    """Evaluate all requested datasets; return the exit status.

    If one of several datasets fails, the others are still evaluated, and the status is 2.

    Raises:
        UserError: a file or an option is wrong, and there is no other dataset.
    """
    if set(options.datasets) & WORLD_SETS.keys():
        run_world_benchmark(options)
        return 0
    worst_count = _WORST_COUNT if options.worst_count is None else options.worst_count
    weights = find_weights(options.model_dir, options.checkpoint_id).weights
    device = device_of_process(options.device)
    with process_group(device), kept_log() as logged:
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
        about_run = {"protocol": options.protocol, **_about_network(weights, estimator, date)}
        several = len(sources) > 1
        log_of_loading = logged.getvalue()
        means: dict[str, Means] = {}
        failures: list[str] = []
        for source in sources:
            begin = logged.tell()
            try:
                result = run_benchmark(
                    source,
                    estimator,
                    options.protocol,
                    ROOT / estimator.config.data.data_dir,
                    scans=source.scans if options.ground_truth == "meshes" else None,
                    detections=detections,
                    worst_count=worst_count,
                )
            except UserError as error:
                if not several:
                    raise
                failures.append(f"{source.name}: {error}")
                continue
            with failing_together(f"{source.name}, results"):
                if result is not None:  # in the first process
                    folder = _result_folder(source.name, options, date, several=several)
                    log_text = log_of_loading + logged.getvalue()[begin:]
                    write_results(folder, about_run, source, result, estimator, log_text)
                    _report(folder, f"{source.name}, {options.protocol} protocol", result)
                    means[source.name] = result.means
        folder = _result_folder("MPE", options, date, several=several)
        _report_mean(means, folder, about_run, logged.getvalue())
        for failure in failures:
            log.error("error: %s", failure)
        return 2 if failures else 0


def _about_network(weights: Path, estimator: Estimator, date: datetime) -> dict[str, str]:
    return {
        "checkpoint": str(weights),
        "body_model": estimator.body_name,
        "date": date.isoformat(timespec="seconds"),
    }


def _report(folder: Path, title: str, result: BenchmarkResult) -> None:
    Console().print(means_table(title, result.means, result.breakdown))
    if result.match is not None:
        log.info("detection: %s", result.match.report(result.means))
    log.info("%s", folder)


def run_world_benchmark(options: BenchmarkOptions) -> None:
    """Run inference with --world on the sequences of EMDB or RICH, and measure people in the world.

    Sequences whose results exist in the folder are not processed again.

    Raises:
        UserError: a file or an option is missing or wrong.
    """
    _check_world_options(options)
    (name,) = options.datasets
    weights = find_weights(options.model_dir, options.checkpoint_id).weights
    date = datetime.now().astimezone()
    folder = _result_folder(name, options, date, several=False)
    common = InferenceOptions(
        str(weights),
        device=options.device,
        precision=options.precision,
        overrides=options.overrides,
        fps=_WORLD_FPS,
        world=True,
        overlay=None,
    )
    with kept_log() as logged:
        tools = Tools.load(common)
        bodies, config = tools.estimator.bodies, tools.estimator.config
        errors: dict[str, list[WorldErrors]] = {}
        frames = 0
        for sequence in WORLD_SETS[name](ROOT / config.data.data_dir / "img" / name, bodies):
            result = folder / "sequences" / f"result_{sequence.name}"
            if not result.is_dir():
                camera: CameraChoice = "static" if sequence.stands_still else "auto"
                tools.options = replace(common, focal_px=sequence.focal_px, camera=camera)
                _process_sequence(sequence, result, tools)
            tracks, fps = read_world_people(result) if result.is_dir() else ([], _WORLD_FPS)
            errors[sequence.name] = match_world(tracks, fps, sequence.people)
            frames += sum(len(person.frames) for person in sequence.people)
        means = weighted_means([person for people in errors.values() for person in people])
        about = {
            "dataset": name,
            **_about_network(weights, tools.estimator, date),
            "frames": frames,
            "sequences": {key: weighted_means(people) for key, people in errors.items()},
        }
        with atomic_path(folder / "result") as partial:
            partial.mkdir()
            _write_json(partial, about, means)
        _write_log(folder, logged.getvalue())
        title = f"{name}, in the world"
        Console().print(world_table(means, counted=f"of {frames} frames", title=title))
        log.info("%s", folder)


def _check_world_options(options: BenchmarkOptions) -> None:
    if len(options.datasets) > 1 or world().size > 1:
        raise UserError(f"{', '.join(WORLD_SETS)}: give one of them alone, without NPROC")
    others = (options.protocol, options.ground_truth, options.detections, options.worst_count or 0)
    if others != ("correct", "parameters", None, 0):
        flags = "--protocol, --gt, --detections and --worst"
        raise UserError(f"EMDB, RICH: {flags} are for other datasets; leave them out")


def _process_sequence(sequence: WorldSequence, result: Path, tools: Tools) -> None:
    """Write the result folder of a sequence; none, with a warning, if nobody is found."""
    with open_source(sequence.images, _WORLD_FPS) as source:
        try:
            process_clip(source, result, tools, _boxes_of(sequence.people))
        except NobodyFoundError as error:
            log.warning("%s: %s", sequence.name, error)


def _boxes_of(people: Sequence[WorldTrack]) -> Detector | None:
    """A detector that returns the true boxes; None if the truth has none."""
    found: dict[int, list[Detection]] = {}
    for person in people:
        for frame, box in zip(person.frames.tolist(), person.boxes.tolist(), strict=True):
            if np.isfinite(box).all():
                found.setdefault(frame, []).append(Detection(Box(*box), 1.0))
    return (lambda index, image: found.get(index, [])) if found else None


def _find_sources(options: BenchmarkOptions, config: DataConfig) -> list[Source]:
    """The requested datasets, without repetitions.

    Raises:
        UserError: one is unknown, or none has the requested ground truth.
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
        raise UserError(
            f"--gt meshes: {sources[0].name} has no meshes beside its images; EHF has them"
        )
    return sources


def _result_folder(name: str, options: BenchmarkOptions, date: datetime, *, several: bool) -> Path:
    if options.output is None:
        epoch = "none" if options.checkpoint_id is None else options.checkpoint_id
        return OUTPUTS / f"test_{name}_ep{epoch}_{date:%Y%m%d_%H%M%S}"
    return options.output / name if several else options.output


def _report_mean(
    means: Mapping[str, Means], folder: Path, about_run: Mapping[str, Any], log_text: str
) -> None:
    """Write the mean primary error in the form of a dataset's result, if it is known."""
    mean = mean_primary_error(means)
    if mean is None:
        return
    with atomic_path(folder / "result") as partial:
        partial.mkdir()
        about = {"dataset": "MPE", **about_run, "datasets": list(means)}
        _write_json(partial, about, {MPE: mean})
    _write_log(folder, log_text)
    log.info("mean of the %d primary errors (MPE): %.2f mm", mean["count"], mean["mean"])
    log.info("%s", folder)

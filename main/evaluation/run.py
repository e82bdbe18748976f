"""Benchmarks of one network: the test splits of one dataset or of several, and their results.

The samples with the largest errors are kept while a benchmark runs, and drawn when it has ended.
"""

import heapq
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from rich.console import Console
from rich.table import Table
from torch import Tensor

from configs.reader import save_config
from configs.schema import DataConfig, ModelConfig
from datasets.sources import Source, find_source
from human_models.files import ModelFolder, read_body, read_hand_vertices
from main.evaluation.benchmark import BenchmarkResult, read_detections, run_benchmark
from main.evaluation.metrics import (
    SMPLX_METRICS,
    EvaluationProtocol,
    MeanAndCount,
    Means,
    SampleErrors,
)
from main.pipeline.estimator import Estimator
from main.pipeline.model_files import find_weights
from utils.devices import device_of_process, failing_together, process_group
from utils.errors import UserError, logging_to
from utils.files import CONFIG_NAME, OUTPUTS, ROOT, atomic_path
from utils.geometry import align_similarity
from utils.image import write_image
from utils.render import Colour, MeshRenderer, PlacedMesh, person_colour

_RANKED_BY: Final = ("mpvpe_all", "pa_mpvpe_hand")
_PELVIS: Final = 0
_ENLARGED: Final = 2
_CAPTION_PX: Final = 24
_BEHIND_THE_CAMERA: Final = (0.0, 0.0, -1.0)
"""Where nothing is drawn."""


class WorstSample(NamedTuple):
    """What the picture of a sample needs; compared as tuples, the larger is the worse."""

    error_mm: float
    place: int
    """Row of the dataset's table."""
    metric: str
    pixels: UInt8[np.ndarray, "h w 3"]
    """The network's input, RGB."""
    predicted_m: Float32[np.ndarray, "10475 3"]
    true_m: Float32[np.ndarray, "V 3"]
    hands_valid: tuple[bool, bool]
    """Whether the truth has a left and a right hand."""


class WorstSamples:
    """At most `count` samples, whatever the length of the benchmark."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[WorstSample] = []

    def consider(
        self,
        indices: Sequence[int],
        errors: Mapping[str, SampleErrors],
        crops: Float[Tensor, "B h w 3"],
        predicted_m: Float[Tensor, "B 10475 3"],
        true_m: Float[Tensor, "B V 3"],
        hands_valid: Bool[Tensor, "B 2"],
    ) -> None:
        """Keep those of a batch that are worse than what is kept; crops are 0..255."""
        metric = next((name for name in _RANKED_BY if name in errors), next(iter(errors)))
        error_mm = errors[metric].error_mm.where(errors[metric].valid, -1.0)
        for error, k in zip(*error_mm.topk(min(self._count, len(indices))), strict=True):
            least = self._heap[0].error_mm if len(self._heap) == self._count else -1.0
            if float(error) > least:
                sample = WorstSample(
                    float(error),
                    indices[int(k)],
                    metric,
                    crops[k].clamp(0, 255).byte().numpy(force=True),
                    predicted_m[k].float().numpy(force=True),
                    true_m[k].float().numpy(force=True),
                    (bool(hands_valid[k, 0]), bool(hands_valid[k, 1])),
                )
                push = heapq.heappush if least < 0 else heapq.heapreplace
                push(self._heap, sample)

    def worst_first(self) -> list[WorstSample]:
        return sorted(self._heap, reverse=True)


def worst_of_all(parts: Iterable[Sequence[WorstSample]], count: int) -> list[WorstSample]:
    """The worst of several processes' worst."""
    return heapq.nlargest(count, (sample for part in parts for sample in part))


def draw_worst(
    folder: Path,
    samples: Sequence[WorstSample],
    names: Sequence[str],
    model: ModelConfig,
    body_folder: ModelFolder,
    *,
    hands_alone: bool,
) -> None:
    """One picture per sample: the crop, the prediction over it, and the truth over it.

    The truth is drawn where the prediction is, since cameras of datasets differ from the crop's:
    its pelvis at the predicted one, or, in sets of hands alone, each hand aligned as it is
    measured.

    Args:
        names: captions of the samples in the pictures.
    """
    draw = _Pictures(model, body_folder, hands_alone)
    for number, (sample, name) in enumerate(zip(samples, names, strict=True), start=1):
        write_image(folder / f"{number:02d}_{sample.error_mm:.0f}mm.jpg", draw(sample, name))


class _Pictures:
    def __init__(self, model: ModelConfig, folder: ModelFolder, hands_alone: bool) -> None:
        self._bodies = {10475: read_body(folder, "smplx"), 6890: read_body(folder, "smpl")}
        self._hands = list(read_hand_vertices(folder).values()) if hands_alone else []
        self._model = model
        self._renderers = {}
        for count, body in self._bodies.items():
            faces = body.faces
            if hands_alone:
                faces = faces[np.isin(faces, np.concatenate(self._hands)).all(axis=1)]
            self._renderers[count] = MeshRenderer(faces, count)

    def __call__(self, sample: WorstSample, name: str) -> UInt8[np.ndarray, "H W 3"]:
        crop = cv2.resize(sample.pixels, None, fx=_ENLARGED, fy=_ENLARGED)
        panels = {
            f"{name}": crop,
            f"prediction, {sample.metric} {sample.error_mm:.1f} mm": self._over(
                crop, sample.predicted_m, person_colour(0)
            ),
            "truth": self._over(crop, self._placed_truth(sample), person_colour(2)),
        }
        return np.concatenate([_captioned(*panel) for panel in panels.items()], axis=1)

    def _placed_truth(self, sample: WorstSample) -> Float32[np.ndarray, "V 3"]:
        placed = sample.true_m.copy()
        if self._hands:
            for hand, valid in zip(self._hands, sample.hands_valid, strict=True):
                if not valid:
                    placed[hand] = _BEHIND_THE_CAMERA
                    continue
                points = (torch.from_numpy(v[None, hand]) for v in (placed, sample.predicted_m))
                placed[hand] = align_similarity(*points)[0].numpy()
            return placed
        predicted, true = (
            (self._bodies[len(mesh)].joint_regressor[_PELVIS] @ mesh).astype(np.float32)
            for mesh in (sample.predicted_m, placed)
        )
        return placed + (predicted - true)

    def _over(
        self, crop: UInt8[np.ndarray, "H W 3"], mesh: Float32[np.ndarray, "V 3"], colour: Colour
    ) -> UInt8[np.ndarray, "H W 3"]:
        focal_x, focal_y = (_ENLARGED * focal for focal in self._model.focal)
        # Pixels count from their centres, which enlarging moves.
        x, y = (_ENLARGED * (centre + 0.5) - 0.5 for centre in self._model.princpt)
        placed = PlacedMesh(mesh, (focal_x, focal_y), (x, y), colour)
        return self._renderers[len(mesh)].overlay(crop, [placed])


def _captioned(text: str, panel: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H2 W 3"]:
    strip = np.zeros((_CAPTION_PX, panel.shape[1], 3), np.uint8)
    place, white = (4, _CAPTION_PX - 8), (255, 255, 255)
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])


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
    with logging_to(keeper):
        yield keeper.lines


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
    if result.breakdown:
        about["breakdown"] = result.breakdown
        lines += [f"{name}: {_number(mean) or '-'}\n" for name, mean in result.breakdown.items()]
    # The published order of 14 numbers in one line; those that it does not have follow.
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


def means_table(title: str, means: Means, breakdown: Means) -> Table:
    """The means, for the screen."""
    table = Table("metric", title=title)
    table.add_column("mean, mm", justify="right")
    table.add_column("samples", justify="right")
    for name, mean in _in_order(means):
        table.add_row(label(name), _number(mean) or "-", str(mean["count"]))
    for name, mean in breakdown.items():
        table.add_row(name, _number(mean) or "-", str(mean["count"]))
    return table


def label(metric: str) -> str:
    """The published name: pa_mpvpe_l_hand -> PA MPVPE (L-Hands)."""
    kind, part = metric.removeprefix("pa_").split("_", 1)
    return f"{'PA ' if metric.startswith('pa_') else ''}{kind.upper()} ({_PART_LABELS[part]})"


def _write_json(folder: Path, about: Mapping[str, Any], means: Means) -> None:
    text = json.dumps({**about, "metrics": means}, indent=2, allow_nan=False) + "\n"
    _write_text(folder / "result.json", text)


def _write_log(folder: Path, lines: Sequence[str]) -> None:
    with atomic_path(folder / "log" / "test.log") as partial:
        _write_text(partial, "".join(f"{line}\n" for line in lines))


def _write_text(path: Path, text: str) -> None:
    """Names that are not UTF-8 get backslash sequences."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _in_order(means: Means) -> list[tuple[str, MeanAndCount]]:
    return [(name, means[name]) for name in SMPLX_METRICS if name in means]


def _sentence(mean: MeanAndCount) -> str:
    if mean["mean"] is None:
        return "no sample has it"
    return f"{mean['mean']:.2f} mm ({mean['count']} samples)"


def _number(mean: MeanAndCount) -> str:
    return "" if mean["mean"] is None else f"{mean['mean']:.2f}"


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
                    Console().print(means_table(title, result.means, result.breakdown))
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

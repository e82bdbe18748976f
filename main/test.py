"""The benchmark door: `python -m main.test DATASET MODEL_DIR [CKPT_ID] [flags]`.

DATASET is a name of datasets/sources.py or of the config, or several with commas between them.
MODEL_DIR is what inference takes; with CKPT_ID it is a training run, whose snapshot of that epoch
is tested. Results go to outputs/test_DATASET_epID_DATE/{log,result}.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from configs.schema import DataConfig
from datasets.configured import find_source
from datasets.sources import Source
from main.door import add_network_flags, door_parser, run_door
from main.estimator import Estimator
from main.model_files import OUTPUTS, ROOT, find_model, find_snapshot
from main.testing.benchmark import BenchmarkResult, run_benchmark
from main.testing.comparison import MPE, comparison_table, mean_primary_error
from main.testing.detections import read_detections
from main.testing.protocol import PROTOCOLS, PUBLISHED, Protocol
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

GROUND_TRUTHS: Final = ("parameters", "meshes")
_EPILOG: Final = (
    "Several processes share the work: NPROC=4 sh scripts/test.sh ..., or "
    "torchrun --nproc-per-node 4 -m main.test ...; each takes a GPU of its own."
)


class _Session:
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


def run(arguments: argparse.Namespace) -> int:
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
            session = _Session(arguments, estimator, weights, epoch)
        return run_all(sources, session, log_lines)


def run_all(sources: Sequence[Source], session: _Session, log_lines: list[str]) -> int:
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


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("test", "Evaluate a network on the test split of a dataset.")
    parser.epilog = _EPILOG
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="?",
        help="a name of datasets/sources.py or of the config, or several: EHF,PW3D",
    )
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", nargs="?", help="as for inference, or a run"
    )
    parser.add_argument("checkpoint_id", metavar="CKPT_ID", nargs="?", help="an epoch of the run")
    parser.add_argument("--humandata", type=Path, metavar="FILE", help="instead of DATASET")
    parser.add_argument("--images", type=Path, metavar="DIR", help="what its paths start from")
    parser.add_argument("--model", metavar="MODEL_DIR", help="with --humandata")
    parser.add_argument("--checkpoint", metavar="CKPT_ID", help="with --humandata")
    parser.add_argument("--protocol", default="correct", help=" or ".join(PROTOCOLS))
    parser.add_argument(
        "--gt",
        choices=GROUND_TRUTHS,
        default="parameters",
        help="meshes: those registered to scans, where a dataset has them beside its images (EHF)",
    )
    parser.add_argument(
        "--worst", type=_count, default=8, metavar="K", help="samples to draw (8); 0: none"
    )
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FILE",
        help="a detector's boxes instead of the dataset's, as JSON {image path: [[x, y, width, "
        "height], ...]}; gives F1 and errors normalised by it",
    )
    parser.add_argument("--output", type=Path, help="folder for log/ and result/")
    add_network_flags(parser)
    return parser


def _count(word: str) -> int:
    if not word.isdigit():
        raise argparse.ArgumentTypeError(f"'{word}' is no number of samples")
    return int(word)


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

"""Benchmarks of a network: `python -m main.test DATASET MODEL_DIR [CKPT_ID] [flags]`.

DATASET is a name from datasets/sources.csv or from the config, or several separated by commas.
MODEL_DIR is the same as for inference; with CKPT_ID it is a training run, whose snapshot of that
epoch is tested. Results go to outputs/test_DATASET_epID_DATE/{log,result}.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Final

from main.cli import add_network_flags, as_options, command, command_parser, count, quick_imports
from utils.errors import UserError

PROTOCOLS: Final = ("correct", "published")
GROUND_TRUTHS: Final = ("parameters", "meshes")
_EPILOG: Final = (
    "To share the work among several processes with one GPU each, use NPROC=4 sh scripts/test.sh "
    "... or torchrun --nproc-per-node 4 -m main.test ..."
)


def run(arguments: argparse.Namespace) -> int:
    with quick_imports():
        from main.evaluation.run import BenchmarkOptions, run_benchmarks
        from utils.devices import world

    if not world().is_first:
        logging.disable()  # the first process reports for all of them
    model_dir, checkpoint_id = _network(arguments)
    names = (arguments.dataset or "").split(",")
    return run_benchmarks(
        as_options(
            BenchmarkOptions,
            arguments,
            model_dir=model_dir,
            checkpoint_id=checkpoint_id,
            datasets=tuple(name.strip() for name in names),
        )
    )


def _network(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """MODEL_DIR and CKPT_ID, which are flags with --humandata.

    Raises:
        UserError: arguments are missing or contradict each other.
    """
    if arguments.humandata is not None:
        if arguments.dataset or not (arguments.images and arguments.model):
            raise UserError(
                "--humandata FILE needs --images DIR and --model MODEL_DIR, and no DATASET"
            )
        return arguments.model, arguments.checkpoint
    if arguments.images or arguments.model or arguments.checkpoint:
        raise UserError("--images, --model and --checkpoint need --humandata FILE; see --help")
    if not arguments.model_dir:
        raise UserError("give DATASET and MODEL_DIR, or --humandata FILE; see --help")
    return arguments.model_dir, arguments.checkpoint_id


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("test", "Evaluate a network on the test split of a dataset.")
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "dataset",
        metavar="DATASET",
        nargs="?",
        help="a name in datasets/sources.csv or in the config, or several, such as EHF,PW3D",
    )
    add("model_dir", metavar="MODEL_DIR", nargs="?", help="as for inference, or a training run")
    add("checkpoint_id", metavar="CKPT_ID", nargs="?", help="an epoch of the run, from 0")
    add("--humandata", type=Path, metavar="FILE", help="a HumanData file instead of DATASET")
    add("--images", type=Path, metavar="DIR", help="with --humandata: root of its image paths")
    add("--model", metavar="MODEL_DIR", help="with --humandata: MODEL_DIR")
    add("--checkpoint", metavar="CKPT_ID", help="with --humandata: CKPT_ID")
    add("--protocol", choices=PROTOCOLS, default="correct", help="rules (default: correct)")
    add(
        "--gt",
        dest="ground_truth",
        choices=GROUND_TRUTHS,
        default="parameters",
        help="meshes: compare with meshes registered to scans, beside the images (EHF)",
    )
    add(
        "--worst",
        dest="worst_count",
        type=partial(count, least=0),
        metavar="K",
        help="draw the K samples with the largest errors (default: 8)",
    )
    add(
        "--detections",
        type=Path,
        metavar="FILE",
        help="boxes of a detector instead of the dataset's, as JSON {image path: [[x, y, width, "
        "height], ...]}; adds F1, and errors divided by F1",
    )
    add("--output", type=Path, help="folder for log/ and result/")
    add_network_flags(parser)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

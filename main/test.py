"""Benchmarks: `python -m main.test DATASET MODEL_DIR [CKPT_ID] [flags]`.

DATASET is a name of datasets/sources.py or of the config, or several with commas between them.
MODEL_DIR is what inference takes; with CKPT_ID it is a training run, whose snapshot of that epoch
is tested. Results go to outputs/test_DATASET_epID_DATE/{log,result}.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from main.cli import add_network_flags, command_parser, run_command
from main.testing.protocol import PROTOCOLS

GROUND_TRUTHS: Final = ("parameters", "meshes")
_EPILOG: Final = (
    "Several processes share the work: NPROC=4 sh scripts/test.sh ..., or "
    "torchrun --nproc-per-node 4 -m main.test ...; each takes a GPU of its own."
)


def run(arguments: argparse.Namespace) -> int:
    from main.testing.session import run_test

    return run_test(arguments)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("test", "Evaluate a network on the test split of a dataset.")
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


def main(command_line: Sequence[str] | None = None) -> int:
    """Run this command with a command line, the process' own by default; the exit status."""
    return run_command(make_parser(), run, command_line)


if __name__ == "__main__":
    sys.exit(main())

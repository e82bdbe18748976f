"""The tool for HumanData files: `python -m main.humandata check|stats|show|convert`.

check reports what is wrong with files, stats what is in them, show draws rows on their images, and
convert writes such files: from others, from results of inference, from plain parameters.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from main.cli import command_parser, run_command
from main.paths import ROOT

_BODY_FOLDER: Final = ROOT / "human_models" / "human_model_files"


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("humandata", "Check, show and make HumanData annotation files.")
    tools = parser.add_subparsers(required=True, metavar="check|stats|show|convert")
    _add_check(tools)
    _add_show(tools)
    converters = tools.add_parser("convert", help="write a HumanData file").add_subparsers(
        required=True, metavar="merge|slice|subset|from-results|from-params"
    )
    _add_cuts(converters)
    _add_sources(converters)
    return parser


def _add_check(tools: Any) -> None:
    add = tools.add_parser(
        "check", help="what is wrong; status 0: no errors, 1: errors, 2: a file is unreadable"
    )
    add.set_defaults(tool="check")
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument("--images", type=Path, metavar="DIR", help="look at the images as well")
    add.add_argument("--images-sample", type=_count, metavar="K", help="at K of them only")
    add.add_argument("--json", action="store_true", help="the findings as JSON")
    add = tools.add_parser("stats", help="what is in files")
    add.set_defaults(tool="stats")
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument("--json", action="store_true", help="the numbers as JSON")


def _add_show(tools: Any) -> None:
    add = tools.add_parser("show", help="draw rows on their images")
    add.set_defaults(tool="show")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--images", type=Path, metavar="DIR", required=True)
    add.add_argument("--output", type=Path, metavar="DIR", required=True)
    which = add.add_mutually_exclusive_group()
    which.add_argument("--rows", help="such as 0,5,10-20")
    which.add_argument("--sample", type=_count, metavar="K", help="K rows at random (default: 8)")
    add.add_argument("--seed", type=_seed, default=0, help="of the choice")
    _add_body_folder(add)


def _add_cuts(converters: Any) -> None:
    add = converters.add_parser("merge", help="several files into one")
    add.set_defaults(tool="merge")
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument(
        "--keep",
        choices=("common", "all"),
        default="common",
        help="joints and entries that all files have, or (with zeros elsewhere) those of any",
    )
    _add_output(add)
    add = converters.add_parser("slice", help="rows START:STOP[:STEP]")
    add.set_defaults(tool="slice")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--rows", required=True, metavar="START:STOP[:STEP]")
    _add_output(add)
    add = converters.add_parser("subset", help="rows by their images, or at random")
    add.set_defaults(tool="subset")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--images-matching", metavar="GLOB", help="such as 'seq_03/*'")
    add.add_argument("--sample", type=_count, metavar="K", help="K rows of them at random")
    add.add_argument("--seed", type=_seed, default=0, help="of the choice")
    _add_output(add)


def _add_sources(converters: Any) -> None:
    add = converters.add_parser("from-results", help="pseudo-labels from results of inference")
    add.set_defaults(tool="from-results")
    add.add_argument("results", type=Path, metavar="RESULT_DIR", help="with summary.json in it")
    add.add_argument("--images", type=Path, metavar="DIR", help="that image_path counts from")
    add.add_argument("--input", metavar="FILE", help="what the inference was of, if it was moved")
    add.add_argument(
        "--extract-frames", type=Path, metavar="DIR", help="write frames as JPEG there"
    )
    add.add_argument("--min-score", type=float, default=0.0, help="of detections, 0..1")
    _add_output(add)
    add = converters.add_parser("from-params", help="from .json or .npz files of SMPL-X parameters")
    add.set_defaults(tool="from-params")
    add.add_argument("parameters", nargs="+", type=Path, metavar="FOLDER|FILE")
    add.add_argument("--images", type=Path, metavar="DIR", required=True)
    _add_output(add)
    _add_body_folder(add)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=_npz, metavar="FILE.npz", required=True)


def _add_body_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--body-folder", type=Path, default=_BODY_FOLDER, metavar="DIR", help="of the SMPL-X files"
    )


def _npz(text: str) -> Path:
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{text}: name it .npz")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int | None:
    from main.humandata_tools.tools import TOOLS

    return TOOLS[arguments.tool](arguments)


def main(command_line: Sequence[str] | None = None) -> int:
    """Run this command with a command line, the process' own by default; the exit status."""
    return run_command(make_parser(), run, command_line)


if __name__ == "__main__":
    sys.exit(main())

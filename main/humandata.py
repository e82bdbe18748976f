"""Tools for HumanData files: `python -m main.humandata check|stats|show|convert`.

check reports errors, stats summarises the content, show draws rows on their images, and convert
writes HumanData files from others, from results of inference, or from SMPL-X parameters.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from main.cli import command, command_parser, count
from utils.errors import UserError
from utils.files import ROOT

log = logging.getLogger(__name__)

_BODY_FOLDER: Final = ROOT / "human_models" / "human_model_files"


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("humandata", "Check, show and make HumanData annotation files.")
    tools = parser.add_subparsers(required=True, metavar="check|stats|show|convert")
    _add_reports(tools)
    _add_show(tools)
    converters = tools.add_parser("convert", help="write a HumanData file").add_subparsers(
        required=True, metavar="merge|slice|subset|from-results|from-params"
    )
    _add_cuts(converters)
    _add_sources(converters)
    return parser


def _add_reports(tools: Any) -> None:
    add = tools.add_parser(
        "check", help="find errors; exit status 0: none, 1: errors, 2: a file is unreadable"
    )
    add.set_defaults(tool=_check)
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument("--images", type=Path, metavar="DIR", help="also check the images")
    add.add_argument("--images-sample", type=count, metavar="K", help="check only K images")
    add.add_argument("--json", action="store_true", help="print findings as JSON")
    add = tools.add_parser("stats", help="summarise the content of files")
    add.set_defaults(tool=_stats)
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument("--json", action="store_true", help="print numbers as JSON")


def _add_show(tools: Any) -> None:
    add = tools.add_parser("show", help="draw rows on their images")
    add.set_defaults(tool=_show)
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--images", type=Path, metavar="DIR", required=True)
    add.add_argument("--output", type=Path, metavar="DIR", required=True)
    which = add.add_mutually_exclusive_group()
    which.add_argument("--rows", help="for example 0,5,10-20")
    which.add_argument("--sample", type=count, metavar="K", help="K rows at random (default: 8)")
    add.add_argument("--seed", type=partial(count, least=0), default=0, help="random seed")
    _add_body_folder(add)


def _add_cuts(converters: Any) -> None:
    add = converters.add_parser("merge", help="join several files")
    add.set_defaults(tool=_merge)
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add.add_argument(
        "--keep",
        choices=("common", "all"),
        default="common",
        help="joints and entries that all files have (default), or that any has (else zeros)",
    )
    _add_output(add)
    add = converters.add_parser("slice", help="take rows START:STOP[:STEP]")
    add.set_defaults(tool=_slice)
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--rows", required=True, metavar="START:STOP[:STEP]")
    _add_output(add)
    add = converters.add_parser("subset", help="take rows by their images, or at random")
    add.set_defaults(tool=_subset)
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--images-matching", metavar="GLOB", help="for example 'seq_03/*'")
    add.add_argument("--sample", type=count, metavar="K", help="K random rows of these")
    add.add_argument("--seed", type=partial(count, least=0), default=0, help="random seed")
    _add_output(add)


def _add_sources(converters: Any) -> None:
    add = converters.add_parser("from-results", help="write pseudo-labels from inference results")
    add.set_defaults(tool=_from_results)
    add.add_argument("results", type=Path, metavar="RESULT_DIR", help="result folder of inference")
    add.add_argument("--images", type=Path, metavar="DIR", help="root of image paths")
    add.add_argument(
        "--input", type=Path, metavar="FILE", help="input of the inference, if it was moved"
    )
    add.add_argument(
        "--extract-frames", type=Path, metavar="DIR", help="write frames as JPEG files into DIR"
    )
    add.add_argument("--min-score", type=float, default=0.0, help="lowest detection score, 0 to 1")
    _add_output(add)
    add = converters.add_parser("from-params", help="convert .json or .npz files of parameters")
    add.set_defaults(tool=_from_parameters)
    add.add_argument("parameters", nargs="+", type=Path, metavar="FOLDER|FILE")
    add.add_argument("--images", type=Path, metavar="DIR", required=True)
    _add_output(add)
    _add_body_folder(add)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=_npz, metavar="FILE.npz", required=True)


def _add_body_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--body-folder", type=Path, default=_BODY_FOLDER, metavar="DIR", help="SMPL-X files"
    )


def _npz(text: str) -> Path:
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{text}: give a name that ends in .npz")
    return Path(text)


def run(arguments: argparse.Namespace) -> int | None:
    tool: Callable[[argparse.Namespace], int | None] = arguments.tool
    return tool(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from datasets.humandata.report import report_checks

    return report_checks(
        arguments.files, arguments.images, arguments.images_sample, as_json=arguments.json
    )


def _stats(arguments: argparse.Namespace) -> None:
    from datasets.humandata.report import report_statistics

    report_statistics(arguments.files, as_json=arguments.json)


def _show(arguments: argparse.Namespace) -> None:
    from datasets.humandata.lenient import LenientFile
    from datasets.humandata.report import choose_rows, draw_rows

    length = LenientFile(arguments.file).length
    rows = choose_rows(arguments.rows, arguments.sample, arguments.seed, length)
    draw_rows(arguments.file, arguments.images, arguments.output, rows, arguments.body_folder)
    log.info("%s: %d rows", arguments.output, len(rows))


def _merge(arguments: argparse.Namespace) -> None:
    from datasets.humandata.file import read_entries
    from datasets.humandata.merge import Part, merge

    for path, other in combinations(arguments.files, 2):
        if path.resolve() == other.resolve():
            raise UserError(f"{other} is given twice, which would repeat its rows; give it once")
    parts = [Part(path, read_entries(path)) for path in arguments.files]
    _write(arguments.output, merge(parts, arguments.keep))


def _slice(arguments: argparse.Namespace) -> None:
    from datasets.humandata.file import read_entries, take_rows
    from datasets.humandata.merge import slice_rows

    entries = read_entries(arguments.file)
    rows = slice_rows(arguments.rows, len(entries["image_path"]))
    _write(arguments.output, take_rows(entries, rows))


def _subset(arguments: argparse.Namespace) -> None:
    from datasets.humandata.file import read_entries, take_rows
    from datasets.humandata.merge import subset_rows

    entries = read_entries(arguments.file)
    images = entries["image_path"].tolist()
    rows = subset_rows(
        arguments.file, images, arguments.images_matching, arguments.sample, arguments.seed
    )
    _write(arguments.output, take_rows(entries, rows))


def _from_results(arguments: argparse.Namespace) -> None:
    from main.motion.pseudo_labels import from_results

    from_results(
        arguments.results,
        arguments.output,
        min_score=arguments.min_score,
        images=arguments.images,
        source=arguments.input,
        extract_frames=arguments.extract_frames,
    )


def _from_parameters(arguments: argparse.Namespace) -> None:
    from datasets.humandata.parameters import entries_of_parameters

    entries, files = entries_of_parameters(
        arguments.parameters, arguments.images, arguments.body_folder
    )
    _write(arguments.output, entries, f" of {files} files")


def _write(output: Path, entries: dict[str, Any], source: str = "") -> None:
    from datasets.humandata.writer import write_humandata

    write_humandata(output, entries)
    log.info("%s: %d rows%s", output, len(entries["image_path"]), source)


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

"""Export results of inference as characters for other programs, and as a page for browsers.

python -m main.export RESULT --format glb,bvh,amass,obj,ply,usd,viewer|all [--person N] [flags]
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from main.characters.options import (
    ALL,
    FORMATS,
    ExportOptions,
    Origin,
    Space,
    UpAxis,
    parse_formats,
)
from main.cli import as_options, command, command_parser, count
from utils.errors import UserError
from utils.files import DEMO, require_regular_file


def run(arguments: argparse.Namespace) -> None:
    from main.characters.export import export_result

    if arguments.input is not None:
        require_regular_file(arguments.input)
    export_result(
        find_result(arguments.result),
        parse_formats(arguments.format),
        persons=arguments.person,
        output=arguments.output,
        options=as_options(ExportOptions, arguments),
        source=arguments.input,
        bodies=arguments.body_folder,
    )


def find_result(name: str) -> Path:
    """The folder RESULT, as a path or as a name in demo/.

    Raises:
        UserError: neither exists.
    """
    for folder in (Path(name), DEMO / name):
        if folder.is_dir():
            return folder
    raise UserError(f"{name}: no such folder, neither as a path nor in demo/")


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "export", "Export the people of a result as characters (docs/animation.md)."
    )
    parser.add_argument("result", metavar="RESULT", help="a folder that inference wrote")
    parser.add_argument(
        "--format",
        default="glb",
        help=f"{','.join(FORMATS)}, or {ALL} (those without extra packages); default: glb",
    )
    parser.add_argument(
        "--person",
        type=count,
        action="append",
        metavar="N",
        help="only this person (may be repeated)",
    )
    parser.add_argument(
        "--up",
        choices=get_args(UpAxis),
        help="vertical axis (default: z for amass, y for the others)",
    )
    parser.add_argument(
        "--origin",
        choices=get_args(Origin),
        default="camera",
        help="person: each starts above the origin with the feet at height 0",
    )
    parser.add_argument(
        "--space",
        choices=get_args(Space),
        help="coordinates (default: world if the result has them)",
    )
    parser.add_argument(
        "--every", type=count, default=1, metavar="K", help="obj, ply: every K-th frame"
    )
    parser.add_argument(
        "--no-clothes", dest="clothes", action="store_false", help="glb, usd, viewer: no clothes"
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="viewer: the video or image (default: the one beside RESULT or in demo/)",
    )
    parser.add_argument(
        "--body-folder", type=Path, metavar="DIR", help="SMPL-X files (default: the config's)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: RESULT/export, and RESULT for the viewer",
    )
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

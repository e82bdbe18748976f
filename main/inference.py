"""The inference door: a video, an image or a folder of images in; overlay and parameters out.

python -m main.inference MODEL_DIR FILE_NAME [FPS] [flags]
python -m main.inference MODEL_DIR --input FOLDER|LIST.txt --output FOLDER [flags]
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from main.door import add_network_flags, door_parser, run_door
from utils.errors import UserError

BACKENDS: Final = ("torch", "onnx", "compile", "cuda-graphs")
OVERLAYS: Final = ("mesh", "vertices", "skeleton")


def run(arguments: argparse.Namespace) -> int:
    gc.disable()  # what is imported stays: looking for garbage among it takes a tenth of the time
    from main.batch.run import run_batch
    from main.medium import run_one
    from main.session import check_words

    gc.freeze()
    gc.enable()
    check_words(arguments)
    if arguments.input is not None:
        return run_batch(arguments)
    if arguments.file_name is None:
        raise UserError("FILE_NAME is missing, or --input with many of them; see --help")
    run_one(arguments, arguments.file_name)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("inference", "People in a video, image or folder of images, as SMPL-X.")
    add = parser.add_argument
    add("model_dir", metavar="MODEL_DIR", help="name under pretrained_models/, a folder or a file")
    add("file_name", metavar="FILE_NAME", nargs="?", help="in demo/, or any path")
    add("fps", metavar="FPS", nargs="?", type=float, help="of the result (default: the file's own)")
    add("--output", type=Path, help="folder for the results (default: demo/)")
    add("--boxes", metavar="FILE", help='{"frame": [[x, y, width, height], ...]} instead of YOLO')
    add(
        "--detector",
        choices=("yolo", "whole-image"),
        help="default: the file NAME.boxes.json beside the input, else yolo",
    )
    add("--person", metavar="largest|N,N", help="only these people (default: everyone)")
    add("--keep-longest", type=_count, metavar="N", help="only the N people with the most frames")
    add("--preview", action="store_true", help="only a sheet of the people, to choose from")
    add("--smooth", default="auto", metavar="auto|off|FACTOR", help="of frames (default: auto)")
    add("--focal", type=float, metavar="PX", help="the camera's focal length in pixels")
    add("--fov", type=float, metavar="DEG", help="or its angle of view across the width")
    add("--floor", action="store_true", help="find the ground and the feet that touch it")
    add("--export", metavar="FORMAT,...", help="characters for other programs: glb, bvh, ..., all")
    add("--backend", choices=BACKENDS, default="torch", help="what runs the network")
    add("--batch-size", type=_count, help="people a batch (default: 8 on a CPU, else 32)")
    add("--overlay", choices=OVERLAYS, default="mesh", help="what is drawn")
    add("--no-overlay", action="store_true", help="parameters only")
    add("--download", action="store_true", help="fetch a published model if it is absent")
    _add_batch_flags(parser)
    add_network_flags(parser)
    return parser


def _add_batch_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "many clips", "instead of FILE_NAME; what is finished is not done again"
    )
    add = group.add_argument
    add(
        "--input",
        type=Path,
        metavar="FOLDER|LIST.txt",
        help="all videos under a folder, or a list with a path a line",
    )
    add("--fps", dest="rate", type=float, metavar="FPS", help="the same as FPS")
    add("--engine", choices=("local", "ray"), default="local", help="one process, or Ray's workers")
    add("--workers", type=_count, metavar="N", help="of Ray (default: a GPU each, or two cores)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 1")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

"""Inference on videos, images and folders of images: writes parameters and an overlay.

python -m main.inference MODEL_DIR FILE_NAME [FPS] [flags]
python -m main.inference MODEL_DIR --input FOLDER|LIST.txt --output FOLDER [flags]
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from main.characters.options import parse_formats
from main.cli import add_network_flags, as_options, command, command_parser, count, quick_imports
from main.pipeline.options import (
    BUILT_IN,
    Backend,
    CameraChoice,
    DetectorName,
    InferenceOptions,
    OverlayMode,
    parse_person,
    parse_smoothing,
)
from utils.errors import UserError
from utils.files import DEMO


def run(arguments: argparse.Namespace) -> int:
    with quick_imports():
        from main.pipeline.clips import process_clips
        from main.pipeline.pipeline import process_input

    options = options_of(arguments)
    if arguments.input is None:
        if arguments.file_name is None:
            raise UserError("FILE_NAME is missing (or --input, for many clips); see --help")
        return process_input(arguments.file_name, arguments.output or DEMO, options)
    if arguments.file_name is not None:
        raise UserError("FILE_NAME and --input: give only one of them (frame rate: --fps)")
    if arguments.output is None:
        raise UserError("--input needs --output FOLDER")
    if options.reuse:
        raise UserError("--reuse works with a single input; give FILE_NAME instead of --input")
    if options.boxes is not None:
        raise UserError("--boxes works with a single input; put NAME.boxes.json beside each clip")
    if options.keypoints not in (None, BUILT_IN):
        raise UserError(f"--keypoints FILE works with a single input; use --keypoints {BUILT_IN}")
    return process_clips(
        arguments.input,
        arguments.output,
        options,
        engine=arguments.engine,
        workers=arguments.workers,
    )


def options_of(arguments: argparse.Namespace) -> InferenceOptions:
    """The options of a command line.

    Raises:
        UserError: a value is wrong, or two values contradict each other.
    """
    if arguments.floor and arguments.camera not in ("auto", "static"):
        raise UserError("--floor means --world --camera static; leave out --floor or --camera")
    if arguments.fps is not None and arguments.rate is not None:
        raise UserError("FPS and --fps: give only one of them")
    keypoints = arguments.keypoints
    return as_options(
        InferenceOptions,
        arguments,
        fps=arguments.rate if arguments.fps is None else arguments.fps,
        keypoints=keypoints if keypoints in (None, BUILT_IN) else Path(keypoints),
        camera="static" if arguments.floor else arguments.camera,
        world=arguments.world or arguments.floor,
        overlay=None if arguments.no_overlay else arguments.overlay,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("inference", "Estimate SMPL-X bodies in a video, image or folder.")
    add = parser.add_argument
    add("model_dir", metavar="MODEL_DIR", help="a name in pretrained_models/, a folder or a file")
    add("file_name", metavar="FILE_NAME", nargs="?", help="a file in demo/, or any path")
    add("fps", metavar="FPS", nargs="?", type=float, help="frame rate (default: the input's)")
    add("--output", type=Path, help="folder for the results (default: demo/)")
    _add_people_flags(parser)
    add("--preview", action="store_true", help="only write a picture with each person")
    add("--reuse", action="store_true", help="use the estimates of the existing result")
    add(
        "--smooth",
        dest="smoothing",
        type=parse_smoothing,
        default="auto",
        metavar="auto|off|FACTOR",
        help="temporal smoothing of videos; 2 is twice as strong as auto",
    )
    _add_camera_flags(parser)
    add(
        "--export",
        type=parse_formats,
        default=(),
        metavar="FORMAT,...",
        help="characters for other programs: glb, bvh, ..., all",
    )
    add("--backend", choices=get_args(Backend), default="torch", help="what runs the network")
    add("--batch-size", type=count, help="people per batch (default: 8 on a CPU, 32 on a GPU)")
    add("--overlay", choices=get_args(OverlayMode), default="mesh", help="what to draw")
    add("--no-overlay", action="store_true", help="write no overlay")
    add("--download", action="store_true", help="download a published model if it is missing")
    _add_batch_flags(parser)
    add_network_flags(parser)
    return parser


def _add_people_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say where people are and which of them are estimated."""
    add = parser.add_argument
    add(
        "--boxes",
        type=Path,
        metavar="FILE",
        help='boxes instead of a detector: {"frame": [[x, y, width, height], ...]}',
    )
    add(
        "--detector",
        choices=get_args(DetectorName),
        default="auto",
        help="auto: NAME.boxes.json beside the input, else yolo if its weights exist, else movenet",
    )
    add(
        "--keypoints",
        metavar=f"{BUILT_IN}|FILE|FOLDER",
        help="find 2D keypoints, or read those of OpenPose, MMPose or AlphaPose",
    )
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="move bodies onto keypoints (default: inference.refine of the model's config)",
    )
    add(
        "--person",
        type=parse_person,
        metavar="largest|N,N",
        help="only these people (default: everyone)",
    )
    add("--keep-longest", type=count, metavar="N", help="only the N people with the most frames")


def _add_camera_flags(parser: argparse.ArgumentParser) -> None:
    """Flags about the camera and the world."""
    add = parser.add_argument
    add("--focal", dest="focal_px", type=float, metavar="PX", help="focal length in pixels")
    add("--fov", dest="fov_deg", type=float, metavar="DEG", help="or the horizontal angle of view")
    add(
        "--camera",
        choices=get_args(CameraChoice),
        default="auto",
        help="with --world: how the camera moves (default: auto, found from the background)",
    )
    add("--world", action="store_true", help="also write motion in world coordinates with a floor")
    add("--floor", action="store_true", help="the same as --world --camera static")


def _add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for many clips in one run."""
    group = parser.add_argument_group(
        "many clips", "instead of FILE_NAME; finished clips are skipped"
    )
    add = group.add_argument
    add(
        "--input",
        type=Path,
        metavar="FOLDER|LIST.txt",
        help="all videos below a folder, or a list with one path per line",
    )
    add("--fps", dest="rate", type=float, metavar="FPS", help="the same as FPS, for --input")
    add("--engine", choices=("local", "ray"), default="local", help="one process, or Ray workers")
    add("--workers", type=count, metavar="N", help="for ray (default: one per GPU or 2 CPU cores)")


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

"""Draw synthetic people: `python -m main.synthesize --people N --seed S [flags]`.

Writes dressed people with exact ground truth to OUT/annot/NAME_SPLIT.npz (HumanData) and
OUT/img/NAME/SPLIT; with --video, each clip has its own annotation file. The same seed gives the
same pictures and annotations for any number of workers; a run that was stopped continues when it
is started again.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from main.cli import as_options, command, command_parser, count
from utils.errors import UserError

if TYPE_CHECKING:
    from synthetic.production import Kind, SynthesisOptions

_SIZES: Final = {"crops": (192, 256)}
_LARGE_SIZE: Final = (1280, 720)
_SPLITS: Final = ("train", "test")
_LARGEST_SIDE: Final = 4096
_CAMERAS: Final = ("static", "pan", "tilt", "hand-held", "zoom", "dolly", "walk-along")
"""The keys of `synthetic.shots.CAMERAS`, which is not imported for --help."""


def run(arguments: argparse.Namespace) -> None:
    from synthetic.backgrounds import bundled_photographs
    from synthetic.production import synthesize
    from utils.iteration import with_progress

    options = _options(arguments)
    bundled_photographs()  # raises an error before workers start, if some are missing
    batches = synthesize(options, arguments.out, arguments.workers)
    pictures = (None for drawn in batches for _ in range(drawn))
    for _ in with_progress(pictures, options.picture_count(), options.kind):
        pass


def _options(arguments: argparse.Namespace) -> "SynthesisOptions":
    """The options of a command line.

    Raises:
        UserError: the value of a flag is out of range.
    """
    from synthetic.production import SynthesisOptions

    kind: Kind = "scenes"
    if arguments.crops or arguments.video or arguments.demo:
        kind = "crops" if arguments.crops else "clips" if arguments.video else "demo"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", arguments.name):
        raise UserError(f"--name {arguments.name!r} is not a file name; use letters and digits")
    if arguments.camera and not arguments.video:
        raise UserError(f"--camera {arguments.camera} needs --video")
    size = _SIZES.get(kind, _LARGE_SIZE)
    return as_options(
        SynthesisOptions,
        arguments,
        kind=kind,
        size=size if arguments.size is None else _parsed_size(arguments.size),
        frames=arguments.frames if kind in ("clips", "demo") else 0,
    )


def _parsed_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(32 <= side <= _LARGEST_SIDE for side in size):
        raise UserError(f"--size {text}: give WIDTHxHEIGHT in pixels, such as 192x256")
    return size


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("synthesize", "Draw synthetic people with ground truth.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="parent of annot/ and img/")
    parser.add_argument("--name", default="openpeople", help="name of the dataset")
    parser.add_argument("--split", choices=_SPLITS, default="train")
    parser.add_argument("--people", type=count, required=True, help="number of people")
    parser.add_argument("--seed", type=partial(count, least=0), default=0)
    parser.add_argument("--workers", type=count, default=1, help="number of processes")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--crops", action="store_true", help="one person per picture (fast)")
    what.add_argument("--video", action="store_true", help="clips (mp4)")
    what.add_argument("--demo", action="store_true", help="a clip like demo/test_video.mp4")
    parser.add_argument(
        "--camera",
        choices=_CAMERAS,
        help="with --video: a clip of three people in a room, with this camera motion",
    )
    parser.add_argument(
        "--frames", type=count, default=90, help="per clip, at 30 fps (default: 90)"
    )
    parser.add_argument(
        "--size", metavar="WxH", help="picture size (default: 192x256 with --crops, else 1280x720)"
    )
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

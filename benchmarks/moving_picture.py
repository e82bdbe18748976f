"""A video as the GIF that a README shows: `python -m benchmarks.moving_picture VIDEO PICTURE.gif`.

`--width` pixels, `--fps` pictures a second, `--colours` of one palette for all of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from main.cli import command_parser, run_command
from utils.files import atomic_path
from utils.source import open_source

_SAMPLED: Final = 8
"""Frames that the palette is made from."""


def write_gif(video: Path, picture: Path, width: int, fps: int, colours: int) -> None:
    """Raises UserError where `video` cannot be read."""
    with open_source(video, fps=fps) as media:
        frames = [_smaller(Image.fromarray(frame.image), width) for frame in media]
    step = max(1, len(frames) // _SAMPLED)
    palette = _below_each_other(frames[::step]).quantize(colours)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(picture) as partial:
        drawn[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=drawn[1:],
            duration=round(1000 / fps),
            loop=0,
        )


def _smaller(frame: Image.Image, width: int) -> Image.Image:
    height = round(frame.height * width / frame.width)
    return frame.resize((width, height), Image.Resampling.LANCZOS)


def _below_each_other(frames: Sequence[Image.Image]) -> Image.Image:
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(frames)))
    for k, frame in enumerate(frames):
        sheet.paste(frame, (0, k * height))
    return sheet


def run(arguments: argparse.Namespace) -> None:
    write_gif(arguments.video, arguments.picture, arguments.width, arguments.fps, arguments.colours)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("moving_picture", "Write a video as a GIF.")
    parser.prog = "python -m benchmarks.moving_picture"
    parser.add_argument("video", metavar="VIDEO", type=Path)
    parser.add_argument("picture", metavar="PICTURE.gif", type=Path)
    parser.add_argument("--width", type=int, default=560, help="pixels (default: 560)")
    parser.add_argument("--fps", type=int, default=10, help="pictures a second (default: 10)")
    parser.add_argument("--colours", type=int, default=128, help="at most 256 (default: 128)")
    return parser


def main(command_line: Sequence[str] | None = None) -> int:
    return run_command(make_parser(), run, command_line)


if __name__ == "__main__":
    sys.exit(main())

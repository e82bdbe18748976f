"""One input of the inference door, from its name to its results."""

import argparse
import logging
from pathlib import Path

from main.inference import DEMO, name_of
from main.session import Session
from utils.image import image_size, list_images
from utils.media import open_media

log = logging.getLogger(__name__)


def run_one(arguments: argparse.Namespace, source: Path) -> None:
    output = arguments.output or DEMO
    photographs = _different_photographs(source) if source.is_dir() else []
    if photographs:
        session = Session.load(arguments)
        log.info("%s: images of different sizes, each is taken on its own", source)
        session.photographs(source, photographs, output / f"result_{name_of(source)}")
        return
    fps = arguments.rate if arguments.fps is None else arguments.fps
    # What cannot be read is told before the model is loaded.
    with open_media(source, fps) as media:
        Session.load(arguments).media(media, output, name_of(source))


def _different_photographs(folder: Path) -> list[Path]:
    """The images of a folder if they differ in size: then they are no frames of one video."""
    images = list_images(folder)
    return images if len({image_size(image) for image in images} - {None}) > 1 else []

"""One input of the inference door, from its name to its results."""

import argparse
import logging
from pathlib import Path

from main.model_files import DEMO
from main.session import Session
from utils.errors import UserError
from utils.image import image_size, list_images
from utils.media import open_media

log = logging.getLogger(__name__)


def run_one(arguments: argparse.Namespace, file_name: str) -> None:
    """Estimate FILE_NAME as the command line asks for.

    Raises:
        UserError: it is absent, cannot be read, or the words do not fit; see the message.
    """
    source = _find(file_name)
    output = arguments.output or DEMO
    photographs = _different_photographs(source) if source.is_dir() else []
    if photographs:
        session = Session.load(arguments)
        log.info("%s: images of different sizes, each is taken on its own", source)
        session.photographs(source, photographs, output / f"result_{_name_of(source)}")
        return
    fps = arguments.rate if arguments.fps is None else arguments.fps
    # What cannot be read is told before the model is loaded.
    with open_media(source, fps) as media:
        Session.load(arguments).media(media, output, _name_of(source))


def _different_photographs(folder: Path) -> list[Path]:
    """The images of a folder if they differ in size: then they are no frames of one video."""
    images = list_images(folder)
    return images if len({image_size(image) for image in images} - {None}) > 1 else []


def _find(file_name: str) -> Path:
    """FILE_NAME as a path of its own, or in demo/. Raises UserError if it is in neither place."""
    for path in (Path(file_name), DEMO / file_name):
        if path.exists():
            return path
    raise UserError(f"{file_name}: no such file or folder, neither as a path nor in demo/")


def _name_of(path: Path) -> str:
    """What results are called after: the file's name without its ending."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem

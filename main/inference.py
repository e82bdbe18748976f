"""The inference door: a video, an image or a folder of images in; overlay and parameters out.

python -m main.inference MODEL_DIR FILE_NAME [FPS] [flags]
"""

import argparse
import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from configs.reader import save_config
from main.detector import BoxFileDetector, Detector, WholeImageDetector, YoloDetector
from main.door import add_network_flags, door_parser, run_door
from main.estimator import Estimator
from main.flow import (
    Choice,
    ChooseLargest,
    EstimatedFrame,
    choose_everyone,
    choose_identity,
    estimate_people,
    find_people,
)
from main.model_files import CONFIG_NAME, ROOT
from main.overlay import OVERLAYS, Overlay, open_overlay
from main.results import open_results
from main.tracker import Tracker
from utils.errors import UserError
from utils.image import image_size, list_images
from utils.media import MediaSource, open_media
from utils.prefetch import prefetch
from utils.progress import with_progress

log = logging.getLogger(__name__)

DEMO: Final = ROOT / "demo"
READ_AHEAD: Final = 8
"""Frames that are decoded, and frames that are estimated, ahead of the next step."""


def find_input(file_name: str) -> Path:
    """FILE_NAME as a path of its own, or in demo/.

    Raises:
        UserError: it is in neither place.
    """
    for path in (Path(file_name), DEMO / file_name):
        if path.exists():
            return path
    raise UserError(f"{file_name}: no such file or folder, neither as a path nor in demo/")


def name_of(path: Path) -> str:
    """What results are called after: the file's name without its ending."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def make_detector(arguments: argparse.Namespace, estimator: Estimator) -> Detector:
    if arguments.boxes is not None:
        return BoxFileDetector(arguments.boxes)
    if arguments.detector == "whole-image":
        return WholeImageDetector()
    return YoloDetector(estimator.config.inference.detection, estimator.device)


def make_choice(person: str | None, fps: float) -> Choice:
    """What --person asks for.

    Raises:
        UserError: neither "largest" nor a number from 1.
    """
    if person is None:
        return choose_everyone
    if person == "largest":
        return ChooseLargest(patience=max(1, round(fps)))
    if person.isdecimal() and int(person) > 0:
        return choose_identity(int(person))
    raise UserError(f"--person {person}: say largest, or a number from 1")


class Session:
    """One call of the door: the tools that all of its inputs share."""

    def __init__(self, arguments: argparse.Namespace, estimator: Estimator) -> None:
        self.arguments, self.estimator = arguments, estimator
        self.detector = make_detector(arguments, estimator)
        default_batch = 8 if estimator.device.type == "cpu" else 32
        self.batch_size = arguments.batch_size or default_batch
        self.overlay = None if arguments.no_overlay else Overlay(arguments.overlay, estimator.body)

    def media(self, media: MediaSource, output: Path, name: str, first_frame: int = 0) -> None:
        """Write `output`/result_NAME(.mp4, .jpg, .png) and the folder `output`/result_NAME.

        Args:
            first_frame: number of the first frame in the file of boxes.

        Raises:
            UserError: nobody was found, or something cannot be read or written.
        """
        info = media.info
        result = output / f"result_{name}"
        with ExitStack() as stack:
            results = stack.enter_context(open_results(result))
            drawn = self.overlay and stack.enter_context(open_overlay(media, result))
            estimated = stack.enter_context(closing(self._estimated(media, first_frame)))
            frame_count = 0
            for frame, people in with_progress(estimated, info.frame_count_estimate, "frames"):
                frame_count += 1
                for identity, score, person in people:
                    results.add(identity, frame.index, score, person)
                if drawn and self.overlay:
                    drawn.write(self.overlay.draw(frame.image, people))
            if not results.count:
                raise UserError(f"{media.path}: nobody found in {frame_count} frame(s); {_ADVICE}")
            save_config(self.estimator.config, results.folder / CONFIG_NAME)
            results.finish(
                self._about(media, frame_count), (info.width, info.height), float(info.fps)
            )
        log.info("%s: %d frames, %d people-frames", result, frame_count, results.count)

    def photographs(self, paths: list[Path], output: Path) -> None:
        """Each image on its own, into `output`; one that fails is told and left out.

        Raises:
            UserError: none of them gave a result.
        """
        stems = [path.stem for path in paths]
        failed = 0
        for number, path in enumerate(paths):
            name = path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_")
            try:
                with open_media(path) as media:
                    self.media(media, output, name, first_frame=number)
            except UserError as error:
                log.warning("left out: %s", error)
                failed += 1
        if failed == len(paths):
            raise UserError(f"{output.name}: none of the {failed} images gave a result")

    def _estimated(
        self, media: MediaSource, first_frame: int
    ) -> Generator[EstimatedFrame, None, None]:
        fps = media.info.fps
        seen = find_people(
            prefetch(media, READ_AHEAD),
            lambda index, image: self.detector(first_frame + index, image),
            Tracker(fps),
            make_choice(self.arguments.person, fps),
            self.estimator,
        )
        want_vertices = self.overlay is not None and self.overlay.needs_vertices
        people = estimate_people(seen, self.estimator, self.batch_size, want_vertices=want_vertices)
        return prefetch(people, READ_AHEAD)

    def _about(self, media: MediaSource, frame_count: int) -> dict[str, object]:
        return {
            "input": media.path.name,
            "frames": frame_count,
            "model": self.arguments.model_dir,
            "precision": self.arguments.precision,
            "body_model": self.estimator.body_name,
            "flat_hand_mean": False,
        }


_ADVICE: Final = (
    "lower the threshold with --set inference.detection.conf=0.3, or say where people are "
    "with --boxes FILE.json or --detector whole-image"
)


def run(arguments: argparse.Namespace) -> None:
    source = find_input(arguments.file_name)
    make_choice(arguments.person, 1)  # a wrong word is told before the model is loaded
    photographs = _different_photographs(source) if source.is_dir() else []
    with ExitStack() as stack:
        media = None if photographs else stack.enter_context(open_media(source, arguments.fps))
        estimator = Estimator.load(
            arguments.model_dir,
            device=arguments.device,
            precision=arguments.precision,
            overrides=arguments.overrides,
            download=arguments.download,
        )
        session = Session(arguments, estimator)
        if media is not None:
            session.media(media, arguments.output, name_of(source))
            return
        log.info("%s: images of different sizes, each is taken on its own", source)
        session.photographs(photographs, arguments.output / f"result_{name_of(source)}")


def _different_photographs(folder: Path) -> list[Path]:
    """The images of a folder if they differ in size: then they are no frames of one video."""
    images = list_images(folder)
    return images if len({image_size(image) for image in images} - {None}) > 1 else []


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("inference", "People in a video, image or folder of images, as SMPL-X.")
    add = parser.add_argument
    add("model_dir", metavar="MODEL_DIR", help="name under pretrained_models/, a folder or a file")
    add("file_name", metavar="FILE_NAME", help="in demo/, or any path")
    add("fps", metavar="FPS", nargs="?", type=float, help="of the result (default: the file's own)")
    add("--output", type=Path, default=DEMO, help="folder for the results (default: demo/)")
    add("--boxes", metavar="FILE", help='{"frame": [[x, y, width, height], ...]} instead of YOLO')
    add("--detector", choices=("yolo", "whole-image"), default="yolo")
    add("--person", metavar="largest|N", help="only this person (default: everyone)")
    add("--batch-size", type=_count, help="people a batch (default: 8 on a CPU, else 32)")
    add("--overlay", choices=OVERLAYS, default="mesh", help="what is drawn")
    add("--no-overlay", action="store_true", help="parameters only")
    add("--download", action="store_true", help="fetch a published model if it is absent")
    add_network_flags(parser)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 1")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

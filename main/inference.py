"""The inference door: a video, an image or a folder of images in; overlay and parameters out.

python -m main.inference MODEL_DIR FILE_NAME [FPS] [flags]
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import numpy as np

from configs.reader import save_config
from main.detector import BoxFileDetector, Detector, WholeImageDetector, YoloDetector
from main.door import add_network_flags, door_parser, run_door
from main.estimator import Estimator
from main.flow import estimate_people, find_people
from main.model_files import CONFIG_NAME, ROOT
from main.overlay import OVERLAYS, Overlay, open_overlay
from main.results import open_results
from main.tracker import Tracker
from main.tracks.assemble import Clip, assemble_people, check_person_flag, choose_people
from main.tracks.camera import check_camera_flags, choose_camera
from main.tracks.ground import find_floor
from main.tracks.preview import contact_sheet
from main.tracks.refine import Strengths, smoothing_factor
from main.tracks.rows import RowFile, row_of
from utils.errors import UserError
from utils.floor import world_from_camera
from utils.image import image_size, list_images, write_image
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

        The medium is read twice: once to estimate, and once to draw what became of it. With
        --preview only `output`/result_NAME_preview.jpg is written.

        Args:
            first_frame: number of the first frame in the file of boxes.

        Raises:
            UserError: nobody was found, or something cannot be read or written.
        """
        clip = self._clip(media)
        result = output / f"result_{name}"
        if self.arguments.preview:
            with tempfile.TemporaryDirectory() as folder, closing(RowFile(Path(folder))) as file:
                self._estimate(media, first_frame, file, clip)
                rows = file.view()
                sheet = contact_sheet(rows, media, self._chosen(rows))
            write_image(result.with_name(f"{result.name}_preview.jpg"), sheet)
            log.info("%s_preview.jpg: choose with --person", result)
            return
        with open_results(result) as results:
            frame_count = self._estimate(media, first_frame, results.rows, clip)
            rows = results.rows.view()
            chosen = self._chosen(rows)
            about = self._about(media, frame_count, clip)
            extra = {}
            if self.arguments.floor and (plane := find_floor(rows, clip.fps)) is not None:
                extra["world_from_camera"] = world_from_camera(plane)
                about["floor"] = {"world_from_camera": extra["world_from_camera"].tolist()}
            if self.overlay is not None:
                self._draw(media, rows, chosen, result)
            save_config(self.estimator.config, results.folder / CONFIG_NAME)
            results.finish(about, clip.image_size, clip.fps, chosen=chosen, extra=extra)
        log.info("%s: %d frames, %d people", result, frame_count, len(chosen))
        self._export(result)

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

    def _clip(self, media: MediaSource) -> Clip:
        info, words = media.info, self.arguments
        image = media.path if info.kind == "image" else None
        camera = choose_camera(
            info.width, info.height, focal_px=words.focal, fov_deg=words.fov, image=image
        )
        factor = 0.0 if info.kind == "image" else smoothing_factor(words.smooth)
        strengths = Strengths().times(factor)
        return Clip(camera, (info.width, info.height), float(info.fps), strengths)

    def _estimate(self, media: MediaSource, first_frame: int, file: RowFile, clip: Clip) -> int:
        """Fill `file` with people and give the number of frames.

        Raises:
            UserError: nobody was found.
        """
        seen = find_people(
            prefetch(media, READ_AHEAD),
            lambda index, image: self.detector(first_frame + index, image),
            Tracker(clip.fps),
            self.estimator,
        )
        estimated = prefetch(estimate_people(seen, self.estimator, self.batch_size), READ_AHEAD)
        count = 0
        with closing(estimated):
            for index, people in with_progress(
                estimated, media.info.frame_count_estimate, "frames"
            ):
                count += 1
                for track, score, person in people:
                    file.append(row_of(track, index, score, person))
        if not file.count:
            raise UserError(f"{media.path}: nobody found in {count} frame(s); {_ADVICE}")
        assemble_people(file, self.estimator.body, clip)
        return count

    def _chosen(self, rows: np.ndarray) -> Collection[int]:
        return choose_people(rows, self.arguments.person, self.arguments.keep_longest)

    def _draw(
        self, media: MediaSource, rows: np.ndarray, chosen: Collection[int], result: Path
    ) -> None:
        assert self.overlay is not None
        posed = self.overlay.people(prefetch(media, READ_AHEAD), rows, chosen)
        numbers = media.info.kind != "image"
        with open_overlay(media, result) as drawn, closing(prefetch(posed, READ_AHEAD)) as frames:
            expected = media.info.frame_count_estimate
            for frame, people in with_progress(frames, expected, "frames drawn"):
                drawn.write(self.overlay.draw(frame.image, people, with_numbers=numbers))

    def _export(self, result: Path) -> None:
        if self.arguments.export:
            from main.exporting.results import export_result

            export_result(result, _formats(self.arguments.export))

    def _about(self, media: MediaSource, frame_count: int, clip: Clip) -> dict[str, object]:
        smoothing = {name: round(value, 4) for name, value in vars(clip.strengths).items()}
        return {
            "input": media.path.name,
            "frames": frame_count,
            "model": self.arguments.model_dir,
            "precision": self.arguments.precision,
            "body_model": self.estimator.body_name,
            "flat_hand_mean": False,
            "camera": clip.camera._asdict(),
            "smoothing_s": smoothing if any(smoothing.values()) else None,
        }


_ADVICE: Final = (
    "lower the threshold with --set inference.detection.conf=0.3, or say where people are "
    "with --boxes FILE.json or --detector whole-image"
)


def _formats(words: str | None) -> list[str]:
    """What --export asks for.

    Raises:
        UserError: there is no such format.
    """
    if words is None:
        return []
    from main.exporting.results import ExportOptions, check_formats

    formats = [word.strip() for word in words.split(",")]
    check_formats(formats, ExportOptions())
    return formats


def run(arguments: argparse.Namespace) -> None:
    source = find_input(arguments.file_name)
    # Wrong words are told before the model is loaded.
    check_person_flag(arguments.person)
    check_camera_flags(arguments.focal, arguments.fov)
    smoothing_factor(arguments.smooth)
    _formats(arguments.export)
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
    add("--person", metavar="largest|N,N", help="only these people (default: everyone)")
    add("--keep-longest", type=_count, metavar="N", help="only the N people with the most frames")
    add("--preview", action="store_true", help="only a sheet of the people, to choose from")
    add("--smooth", default="auto", metavar="auto|off|FACTOR", help="of frames (default: auto)")
    add("--focal", type=float, metavar="PX", help="the camera's focal length in pixels")
    add("--fov", type=float, metavar="DEG", help="or its angle of view across the width")
    add("--floor", action="store_true", help="find the ground and the feet that touch it")
    add("--export", metavar="FORMAT,...", help="characters for other programs: glb, bvh, ...")
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

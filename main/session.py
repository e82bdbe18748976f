"""One call of the inference door: the tools that all of its media share, and one medium's way.

frames -> people's rows -> one camera, one shape, smooth motion -> overlay, files, characters
"""

import argparse
import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from configs.reader import save_config
from main.characters import check_formats, parse_formats
from main.detector import Detector, Detectors
from main.estimator import Estimator
from main.flow import estimate_people, find_people
from main.model_files import CONFIG_NAME, ROOT
from main.overlay import DrawnPerson, Overlay, open_overlay
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
from utils.image import write_image
from utils.media import Frame, MediaSource, open_media
from utils.prefetch import parallel_map, prefetch
from utils.progress import with_progress

log = logging.getLogger(__name__)

READ_AHEAD: Final = 8
"""Frames that are decoded, and frames that are estimated, ahead of the next step."""
MOST_WORKERS: Final = 4
"""Batches under way at a time, and frames being drawn, where there are as many cores."""
_ADVICE: Final = (
    "lower the threshold with --set inference.detection.conf=0.3, or say where people are "
    "with --boxes FILE.json or --detector whole-image"
)


class Found(NamedTuple):
    """What a medium held: frames, and people who were written; None: not known any more."""

    frames: int | None
    people: int | None


class Session:
    """One call of the door: the tools that all of its inputs share."""

    def __init__(self, arguments: argparse.Namespace, estimator: Estimator) -> None:
        self.arguments, self.estimator = arguments, estimator
        self.detectors = Detectors(
            arguments.boxes,
            arguments.detector,
            estimator.config.inference.detection,
            estimator.device,
        )
        default_batch = 8 if estimator.device.type == "cpu" else 32
        self.batch_size = arguments.batch_size or default_batch
        self.cores = torch.get_num_threads()
        self.workers = min(MOST_WORKERS, self.cores)

    @classmethod
    def load(cls, arguments: argparse.Namespace) -> "Session":
        """Load the model that a command line names.

        Raises:
            UserError: it is missing or does not fit.
        """
        estimator = Estimator.load(
            arguments.model_dir,
            device=arguments.device,
            precision=arguments.precision,
            backend=arguments.backend,
            overrides=arguments.overrides,
            download=arguments.download,
        )
        return cls(arguments, estimator)

    @cached_property
    def overlay(self) -> Overlay | None:
        """Made when the first frame is drawn, as what it needs takes time to load."""
        words = self.arguments
        return None if words.no_overlay else Overlay(words.overlay, self.estimator.body)

    def media(self, media: MediaSource, output: Path, name: str) -> Found:
        """Write `output`/result_NAME(.mp4, .jpg, .png) and the folder `output`/result_NAME.

        The medium is read twice: once to estimate, and once to draw what became of it. The folder
        comes last, when all else is there. With --preview only `output`/result_NAME_preview.jpg
        is written.

        Raises:
            UserError: nobody was found, or something cannot be read or written.
        """
        detector = self.detectors.of(media.path, media.info.own_fps / media.info.fps)
        return self._media(media, output, name, detector)

    def photographs(self, folder: Path, paths: list[Path], output: Path) -> None:
        """Each image of a folder on its own, into `output`; one that fails is told and left out.

        In a file of boxes the images count from 0.

        Raises:
            UserError: none of them gave a result.
        """
        detector = self.detectors.of(folder)
        stems = [path.stem for path in paths]
        failed = 0
        for number, path in enumerate(paths):
            name = path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_")
            try:
                with open_media(path) as media:
                    self._media(media, output, name, detector, first_frame=number)
            except UserError as error:
                log.warning("left out: %s", error)
                failed += 1
        if failed == len(paths):
            raise UserError(f"{output.name}: none of the {failed} images gave a result")

    def _media(
        self,
        media: MediaSource,
        output: Path,
        name: str,
        detector: Detector,
        first_frame: int = 0,
    ) -> Found:
        clip = self.clip(media)
        result = output / f"result_{name}"

        def estimate(file: RowFile) -> int:
            return self._estimate(media, detector, first_frame, file, clip)

        if self.arguments.preview:
            with tempfile.TemporaryDirectory() as folder, closing(RowFile(Path(folder))) as file:
                found = self._preview(media, estimate(file), file.view(), preview_of(result))
            log.info("%s_preview.jpg: choose with --person", result)
            return found
        with open_results(result) as results:
            frame_count = estimate(results.rows)
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
        self.export(result, media.path)
        return Found(frame_count, len(chosen))

    def export(self, result: Path, source: Path) -> None:
        """Write the people of `result` for other programs, if --export asks for it.

        Args:
            source: what the results are of; the viewer shows it.
        """
        formats = export_formats(self.arguments.export)
        if formats:
            from main.characters.export import export_result

            bodies = ROOT / self.estimator.config.model.human_model_path
            export_result(result, formats, source=source, bodies=bodies)

    def clip(self, media: MediaSource) -> Clip:
        info, words = media.info, self.arguments
        image = media.path if info.kind == "image" else None
        camera = choose_camera(
            info.width, info.height, focal_px=words.focal, fov_deg=words.fov, image=image
        )
        factor = 0.0 if info.kind == "image" else smoothing_factor(words.smooth)
        strengths = Strengths().times(factor)
        return Clip(camera, (info.width, info.height), float(info.fps), strengths)

    def _estimate(
        self,
        media: MediaSource,
        detector: Detector,
        first_frame: int,
        file: RowFile,
        clip: Clip,
    ) -> int:
        """Fill `file` with people and give the number of frames.

        Raises:
            UserError: nobody was found.
        """
        seen = find_people(
            prefetch(media, READ_AHEAD),
            lambda index, image: detector(first_frame + index, image),
            Tracker(clip.fps),
            self.estimator,
        )
        # One batch alone is done soonest by all cores together.
        one_by_one = media.info.kind == "image" or self.estimator.device.type != "cpu"
        workers = 1 if one_by_one else self.workers
        seen = prefetch(seen, READ_AHEAD)
        frames = estimate_people(seen, self.estimator, self.batch_size, workers)
        count = 0
        with closing(frames):
            for index, people in with_progress(frames, media.info.frame_count_estimate, "frames"):
                count += 1
                for track, score, person in people:
                    file.append(row_of(track, index, score, person))
        if not file.count:
            raise UserError(f"{media.path}: nobody found in {count} frame(s); {_ADVICE}")
        assemble_people(file, self.estimator.body, clip)
        return count

    def _preview(self, media: MediaSource, frames: int, rows: np.ndarray, file: Path) -> Found:
        chosen = self._chosen(rows)
        write_image(file, contact_sheet(rows, media, chosen))
        return Found(frames, len(chosen))

    def _chosen(self, rows: np.ndarray) -> Collection[int]:
        return choose_people(rows, self.arguments.person, self.arguments.keep_longest)

    def _draw(
        self, media: MediaSource, rows: np.ndarray, chosen: Collection[int], result: Path
    ) -> None:
        assert self.overlay is not None
        overlay, numbers = self.overlay, media.info.kind != "image"

        def pose() -> Iterator[tuple[Frame, list[DrawnPerson]]]:
            torch.set_num_threads(max(1, self.cores // self.workers))  # of prefetch's thread
            yield from overlay.people(prefetch(media, READ_AHEAD), rows, chosen)

        with open_overlay(media, result) as file:

            def draw(posed: tuple[Frame, list[DrawnPerson]]) -> object:
                frame, people = posed
                return file.prepare(overlay.draw(frame.image, people, with_numbers=numbers))

            pictures = parallel_map(draw, prefetch(pose(), READ_AHEAD), self.workers)
            with closing(pictures):
                expected = media.info.frame_count_estimate
                for picture in with_progress(pictures, expected, "frames drawn"):
                    file.write(picture)

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


def check_words(arguments: argparse.Namespace) -> None:
    """Tell wrong words of a command line before anything is loaded.

    Raises:
        UserError: one of them is wrong.
    """
    check_person_flag(arguments.person)
    check_camera_flags(arguments.focal, arguments.fov)
    smoothing_factor(arguments.smooth)
    export_formats(arguments.export)


def preview_of(result: Path) -> Path:
    """The sheet of people that --preview writes in place of the folder `result`."""
    return result.with_name(f"{result.name}_preview.jpg")


def export_formats(words: str | None) -> list[str]:
    """What --export asks for.

    Raises:
        UserError: there is no such format.
    """
    if words is None:
        return []
    formats = list(parse_formats(words))
    check_formats(formats)
    return formats

"""All steps for a clip, from its frames to the result files: `process_clip`."""

import logging
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from configs.reader import save_config
from main.motion.camera import ASSUMED, TURNS, CameraMotion, Clip, choose_camera, static_camera
from main.motion.camera_motion import CameraTracker
from main.motion.kinematics import ERRORS_NAME, NetworkErrors
from main.motion.refinement import Refinement
from main.motion.result_names import as_given, input_ids, result_names
from main.motion.results import choose_people, write_results
from main.motion.rows import RAW_ROW, FinalRows, RawRows, WorldRows
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories
from main.motion.world import World, solve_world
from main.pipeline.detection import NETWORKS, Detector, Detectors, fitted
from main.pipeline.estimator import Estimator
from main.pipeline.keypoint_files import KeypointFileDetector, read_keypoints
from main.pipeline.keypoints import KeypointFinder
from main.pipeline.model_files import find_model
from main.pipeline.options import BUILT_IN, InferenceOptions
from main.pipeline.overlay import Renderer, contact_sheet, draw_overlay, remove_stale_overlays
from main.pipeline.stages import (
    INTERVAL_S,
    READ_AHEAD,
    KeypointDetector,
    Tracker,
    crop_people,
    detect_people,
    estimate_people,
    place_again,
    place_people,
    read_estimates,
    track_people,
    watch_camera,
)
from utils.errors import UserError, printable
from utils.files import CONFIG_NAME, DEMO, PRETRAINED, ROOT, atomic_path, require_output
from utils.image import image_size, list_images, write_image
from utils.iteration import prefetch, with_progress
from utils.source import FrameSource, advice_on_name, open_source, warn_of_others

log = logging.getLogger(__name__)

MOST_WORKERS: Final = 4
"""Largest number of batches, and of frames being drawn, that are processed at a time."""
_DEFAULT_ERRORS: Final = PRETRAINED / "smplest_x_demo" / ERRORS_NAME
_DEFAULT_SCALE: Final = 0.5
"""Assumed errors of a network without measured ones, relative to those of the demo network."""
_MIN_FREE_BYTES: Final = 1 << 20
"""Bytes that must be free on the disk before a clip is processed, besides those for its rows."""
EXPORTING: Final = ".exporting"
"""File that marks a result folder while the requested exports are not complete."""
_ADVICE: Final = (
    "lower the threshold with --set inference.detection.conf=0.3, or state where people are "
    "with --boxes FILE.json or --detector whole-image"
)


class NobodyFoundError(UserError):
    """The detector finds nobody in a clip."""


class ClipResult(NamedTuple):
    """Numbers of frames of a clip and of people written; None: unknown."""

    frames: int | None
    people: int | None


def process_clip(
    source: FrameSource, result: Path, tools: "Tools", detector: Detector | None = None
) -> ClipResult:
    """Estimate the people of a clip; write the folder `result` and the overlay beside it.

    The source is read to estimate, again if the camera's rotation determines the focal length, and
    to draw. The folder appears when it is complete. `options.preview` writes only a sheet of people
    (`preview_of`), and `options.reuse` takes the estimates of the existing result.

    Args:
        detector: the person detector; None: as the options specify.

    Raises:
        NobodyFoundError: there is nobody in any frame.
        UserError: something cannot be read or written, or a requested person does not exist.
    """
    options, estimator = tools.options, tools.estimator
    clip, smoothing = describe_clip(source, options), smoothing_of(source, options)
    errors = tools.errors_for(source)
    wants_keypoints = options.wants_keypoints or errors is not None
    keypoints = ("built-in" if tools.keypoints is None else "file") if wants_keypoints else None
    written = preview_of(result) if options.preview else result
    rows = (2 if errors is None else 3) * (source.info.frame_count_estimate or 0)
    space = _MIN_FREE_BYTES + rows * RAW_ROW.itemsize
    require_output(result, ending="_preview.jpg" if options.preview else ".mp4", least_free=space)
    with (
        atomic_path(written) as partial,
        closing(RawRows(partial.parent)) as raw,  # on the disk that gets the result
        closing(RawRows(partial.parent)) as refined,
        closing(FinalRows(partial.parent)) as final,
        closing(WorldRows(partial.parent)) as world,
    ):
        partial.touch() if options.preview else partial.mkdir()

        if options.reuse:
            before = read_estimates(
                result, clip, source.path, estimator, options.model_dir, wants_keypoints
            )
            frame_count, keypoints, clip = before.frame_count, before.keypoints, before.clip
            camera = camera_tracker(source, clip, options)
            place_people(before.frames, clip, raw)
            people = raw.column("track")
            _watch_again(source, raw, camera)
        else:
            camera = camera_tracker(source, clip, options)
            detector = detector or tools.detector_for(source)
            if wants_keypoints:
                detector = tools.with_keypoints(detector, clip.fps)
            frame_count = _estimate(source, clip, detector, tools, camera, raw)
            people = stitch(raw, clip.camera, clip.fps)  # numbers as in a preview
        if camera is not None:
            clip, camera = _with_found_focal(source, clip, camera, raw, tools)

        # The clip as a whole: raw rows become final ones.
        motion = static_camera(frame_count) if camera is None else camera.finish()
        if errors is not None:
            refinement = Refinement(estimator.body, errors, clip, tools.workers)
            moved = refinement.refine(raw, people, refined)
            log.info("%d of %d bodies moved onto keypoints", moved, len(raw))
        estimates = raw if errors is None else refined
        build_trajectories(raw, estimates, people, clip, estimator.body, smoothing, final)
        chosen = choose_people(final, options.person, options.keep_longest)

        # What is written.
        if options.preview:
            write_image(partial, contact_sheet(final, source, chosen))
        else:
            solved = _solve_world(source, final, clip, motion, world, tools)
            if options.overlay is not None:
                draw_overlay(source, final, chosen, result, tools.renderer, tools.workers)
            save_config(estimator.config, partial / CONFIG_NAME)
            summary = summary_of(source, frame_count, clip, smoothing, tools)
            summary |= {"refined": errors is not None, "keypoints": keypoints}
            write_results(
                *(partial, final, clip, summary),
                chosen=chosen,
                world=None if solved is None else (solved, world),
                with_keypoints=keypoints is not None,
            )
            prepare_exports(result, partial, options.export)
    if options.preview:
        log.info("%s: choose with --person", written)
    else:
        remove_stale_overlays(result, source, drawn=options.overlay is not None)
        log.info("%s: %d frames, %d people", result, frame_count, len(chosen))
        export_characters(result, source.path, tools)
    return ClipResult(frame_count, len(chosen))


def _estimate(
    source: FrameSource,
    clip: Clip,
    detector: Detector,
    tools: "Tools",
    camera: CameraTracker | None,
    raw: RawRows,
) -> int:
    """Append the network's estimates of all frames to `raw`; the number of frames.

    Each stage is a generator; a thread works ahead where `prefetch` is used.
    """
    estimator, workers = tools.estimator, tools.network_workers(source)
    # The thread that reads the source must end before the source is closed, even after an error.
    with closing(prefetch(source, READ_AHEAD)) as frames:
        detected = detect_people(frames, detector)
        tracked = track_people(detected, Tracker(clip.fps))
        watched = watch_camera(tracked, camera)
        with (
            closing(prefetch(crop_people(watched, estimator), READ_AHEAD)) as cropped,
            closing(estimate_people(cropped, estimator, tools.batch_size, workers)) as estimated,
        ):
            counted = with_progress(estimated, source.info.frame_count_estimate, "frames")
            frame_count = place_people(counted, clip, raw)
    if not len(raw):
        raise NobodyFoundError(f"{source.path}: nobody found in {frame_count} frame(s); {_ADVICE}")
    return frame_count


def _watch_again(source: FrameSource, raw: RawRows, camera: CameraTracker | None) -> None:
    """Pass all frames to the tracker of the camera's motion, if any; results do not contain it."""
    if camera is not None:
        rows = dict(raw.by_frame())
        with closing(prefetch(source, READ_AHEAD)) as frames:
            for frame in with_progress(frames, source.info.frame_count_estimate, "frames"):
                here = rows.get(frame.index, np.zeros(0, int))
                camera.add(frame.index, frame.image, raw.take(here, "box_xywh").astype(float))


def _with_found_focal(
    source: FrameSource, clip: Clip, camera: CameraTracker, raw: RawRows, tools: "Tools"
) -> tuple[Clip, CameraTracker]:
    """The clip and its camera tracker, with the focal length that the camera's rotation determines.

    If one was only assumed, all people are converted to the new camera, and frames read again.
    """
    focal = camera.find_focal() if clip.camera.origin == ASSUMED else None
    if focal is None:
        return clip, camera
    log.info(
        "camera: its turns show a focal length of %.0f pixels (assumed before: %.0f)",
        *(focal, clip.camera.focal[0]),
    )
    clip = clip._replace(camera=clip.camera._replace(focal=(focal, focal), origin=TURNS))
    place_again(raw, clip, tools.estimator)
    camera = CameraTracker(clip, camera.kind)
    _watch_again(source, raw, camera)
    return clip, camera


def _solve_world(
    source: FrameSource,
    final: FinalRows,
    clip: Clip,
    motion: CameraMotion,
    world: WorldRows,
    tools: "Tools",
) -> World | None:
    """Compute the motion of all people in the world, if requested and if the source is a video."""
    options = tools.options
    if not options.world:
        return None
    if source.info.kind == "image":
        log.warning("%s: a photograph shows no motion, so --world is left out", source.path)
        return None
    certain = options.camera != "auto"
    return solve_world(final, clip, motion, tools.estimator.body, world, kind_is_certain=certain)


class Tools:
    """What all clips of a run have in common: the network, the detectors and the renderer."""

    def __init__(self, estimator: Estimator, options: InferenceOptions) -> None:
        self.estimator, self.options = estimator, options
        self.detectors = Detectors(
            options.boxes,
            options.detector,
            estimator.config.inference.detection,
            estimator.device,
        )
        of_file = options.keypoints not in (None, BUILT_IN)
        self.keypoints = read_keypoints(Path(str(options.keypoints))) if of_file else None
        self.batch_size = options.batch_size or (8 if estimator.device.type == "cpu" else 32)
        self.workers = min(MOST_WORKERS, torch.get_num_threads())

    @classmethod
    def load(cls, options: InferenceOptions) -> "Tools":
        """Load the model that the options name.

        Raises:
            UserError: it is missing or does not fit.
        """
        estimator = Estimator.load(
            options.model_dir,
            device=options.device,
            precision=options.precision,
            backend=options.backend,
            overrides=options.overrides,
            download=options.download,
        )
        return cls(estimator, options)

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer, loaded when the first frame is drawn."""
        return Renderer(self.options.overlay or "mesh", self.estimator.body)

    def errors_for(self, source: FrameSource) -> NetworkErrors | None:
        """The network's errors if the source is to be refined, else None."""
        wanted, default = self.options.refine, self.estimator.config.inference.refine
        if wanted is None:
            wanted = default == "always" or (default == "images" and source.info.kind == "image")
        return self._errors if wanted else None

    @cached_property
    def _errors(self) -> NetworkErrors:
        scale = self.estimator.config.inference.error_scale
        return network_errors(self.options.model_dir, scale)

    @cached_property
    def keypoint_finder(self) -> KeypointFinder:
        return KeypointFinder(self.workers)

    def detector_for(self, source: FrameSource) -> Detector:
        """The person detector for a source."""
        info = source.info
        detector = self.detectors.for_source(source.path, info.own_fps / info.fps)
        return self.fitted(detector, 0, info.reduction)

    def fitted(self, detector: Detector, first: int, reduction: int) -> Detector:
        """A detector whose frames count from `first`, with the file of keypoints if there is one.

        Args:
            reduction: pixels of the image file, which files count in, for one of the frame.
        """
        detector = fitted(detector, first, reduction)
        if self.keypoints is None:
            return detector
        return KeypointFileDetector(detector, self.keypoints, first, reduction)

    def with_keypoints(self, detector: Detector, fps: float) -> Detector:
        """A detector that also finds keypoints in a clip, if no file has them.

        Boxes of a file are taken frame by frame.
        """
        if self.keypoints is not None:
            return detector
        interval = max(1, round(INTERVAL_S * fps)) if isinstance(detector, NETWORKS) else None
        return KeypointDetector(detector, self.keypoint_finder, interval)

    def network_workers(self, source: FrameSource) -> int:
        """Batches that the network has under way at a time.

        One batch alone is done soonest by all cores together, and a GPU takes one after the other.
        """
        one_by_one = source.info.kind == "image" or self.estimator.device.type != "cpu"
        return 1 if one_by_one else self.workers


def describe_clip(source: FrameSource, options: InferenceOptions) -> Clip:
    """The camera, image size and frame rate of a source."""
    info = source.info
    camera = choose_camera(
        info.width,
        info.height,
        focal_px=options.focal_px,
        fov_deg=options.fov_deg,
        image=source.path if info.kind == "image" else None,
    )
    return Clip(camera, (info.width, info.height), float(info.fps))


def camera_tracker(
    source: FrameSource, clip: Clip, options: InferenceOptions
) -> CameraTracker | None:
    """The tracker of the camera's motion; None where it is static or not needed."""
    if (
        not options.world
        or options.camera == "static"
        or options.preview
        or source.info.kind == "image"
    ):
        return None
    return CameraTracker(clip, None if options.camera == "auto" else options.camera)


def smoothing_of(source: FrameSource, options: InferenceOptions) -> Smoothing:
    """The strength of smoothing, which is 0 for a single image."""
    return Smoothing().times(0.0 if source.info.kind == "image" else options.smoothing)


def summary_of(
    source: FrameSource, frame_count: int, clip: Clip, smoothing: Smoothing, tools: Tools
) -> dict[str, object]:
    """Entries of the summary that describe the result as a whole."""
    smoothing_s = {name: round(value, 4) for name, value in vars(smoothing).items()}
    return {
        "input": printable(as_given(source.path).name),
        "input_ids": list(input_ids(source.path)),
        "frames": frame_count,
        "model": printable(tools.options.model_dir),
        "precision": tools.options.precision,
        "body_model": tools.estimator.body_name,
        "flat_hand_mean": False,
        "camera": clip.camera._asdict(),
        "smoothing_s": smoothing_s if any(smoothing_s.values()) else None,
    }


def network_errors(model_dir: str, scale: float) -> NetworkErrors:
    """The measured errors of a network, or else half of the demo network's, times `scale`."""
    path = find_model(model_dir).weights.with_name(ERRORS_NAME)
    if path.is_file():
        return NetworkErrors.read(path, scale)
    return NetworkErrors.read(_DEFAULT_ERRORS, scale * _DEFAULT_SCALE)


def preview_of(result: Path) -> Path:
    """Path of the sheet of people that is written instead of the folder `result`."""
    return result.with_name(f"{result.name}_preview.jpg")


def prepare_exports(old: Path, new: Path, formats: Sequence[str]) -> None:
    """Mark a new result whose exports are incomplete, and keep old exports until then."""
    if formats:
        (new / EXPORTING).touch()
    if old.is_dir():
        from main.characters.export import keep_exports

        keep_exports(old, new, formats)


def export_characters(result: Path, source: Path, tools: Tools) -> None:
    """Export the people of a result folder for other programs, if the options request it.

    Args:
        source: input of the result, which the viewer shows.
    """
    if tools.options.export:
        from main.characters.export import export_result  # loads what few runs need

        bodies = ROOT / tools.estimator.config.model.human_model_path
        export_result(result, tools.options.export, source=source, bodies=bodies)
        (result / EXPORTING).unlink(missing_ok=True)


def process_input(file_name: str, output: Path, options: InferenceOptions) -> int:
    """Process the video, image or folder of images FILE_NAME into the folder `output`.

    Images of a folder are frames of a video if their sizes are equal, else separate photographs.
    The exit status is 1 if any of these photographs failed.

    Raises:
        UserError: it is absent, cannot be read, or the options do not fit; see the message.
    """
    path = _find(file_name)
    (name,) = result_names([path], output, preview=options.preview)
    result = output / f"result_{name}"
    photographs = _photographs(path) if path.is_dir() else []
    if photographs:
        tools = Tools.load(options)
        log.info("%s: images of different sizes, each is estimated on its own", path)
        return process_photographs(path, photographs, result, tools)
    # What cannot be read is reported before the model is loaded.
    with open_source(path, options.fps) as source:
        process_clip(source, result, Tools.load(options))
    return 0


def process_photographs(folder: Path, paths: list[Path], output: Path, tools: Tools) -> int:
    """Process each image of a folder on its own; one that fails is left out, with a warning.

    Files of boxes number the images from 0. The exit status is 1 if any image failed.

    Raises:
        UserError: all of them failed.
    """
    warn_of_others(folder, paths)
    detector = tools.detectors.for_source(folder)
    names = result_names(paths, output, preview=tools.options.preview)
    failed = 0
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        try:
            with open_source(path) as source:
                own = tools.fitted(detector, number, source.info.reduction)
                process_clip(source, output / f"result_{name}", tools, own)
        except UserError as error:
            log.warning("left out: %s", error)
            failed += 1
    if failed == len(paths):
        raise UserError(f"{output.name}: none of the {failed} images gave a result")
    if failed:
        log.warning("%s: %d of %d images gave no result", folder, failed, len(paths))
    return int(failed > 0)


def _photographs(folder: Path) -> list[Path]:
    """The images of a folder if their sizes differ, else an empty list."""
    images = list_images(folder)
    return images if len({image_size(image) for image in images} - {None}) > 1 else []


def _find(file_name: str) -> Path:
    """FILE_NAME as a path or in demo/. Raises UserError if it is in neither place."""
    for path in (Path(file_name), DEMO / file_name):
        if path.exists():
            return path
    advice = advice_on_name(file_name)
    raise UserError(f"{file_name}: no such file or folder, neither as a path nor in demo/{advice}")

"""Streams of upright RGB frames from video files, still images and folders of images."""

import logging
import math
import re
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from utils.errors import UserError
from utils.image import (
    IMAGE_SUFFIXES,
    image_sizes,
    is_animated,
    is_image,
    kinds_of,
    list_images,
    open_picture,
    read_image,
    to_rgb,
)
from utils.video_read import VIDEO_SUFFIXES, Timing, VideoFile, judge_timing, require_rate, resample

logger = logging.getLogger(__name__)

_FOLDER_FPS: Final = 30.0  # images have no frame rate
_SHOWN_MS: Final = 100  # default duration of an animation's frame, as in browsers
_SAME_RATE: Final = 5e-4  # relative; 29.97 equals 30000/1001, but not 30


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a source of frames.

    Attributes:
        kind: a video file, one still image or a folder of images.
        width, height: size of every upright frame, pixels.
        fps: rate of the frames that are read (for images: the requested rate, or 30).
        own_fps: average rate of the source; differs from `fps` if frames are repeated or dropped.
        frame_count_estimate: expected number of frames; a damaged file has fewer. None if unknown.
        has_audio: whether the file has sound.
        reduction: factor by which frames are smaller than the stored pixels, along each side; very
            large photographs are read reduced.
    """

    kind: Literal["video", "image", "folder"]
    width: int
    height: int
    fps: float
    own_fps: float
    frame_count_estimate: int | None
    has_audio: bool
    reduction: int = 1


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright frame, RGB; `time_s` is index / fps, so 0 for the first frame."""

    index: int
    time_s: float
    image: UInt8[np.ndarray, "H W 3"]


@runtime_checkable
class _Frames(Protocol):
    """A kind of source; each call of `images` starts from the first frame."""

    info: SourceInfo

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]: ...


class FrameSource:
    """The frames of one source, read on demand, so memory does not grow with the length.

    Each `iter()` starts from the first frame. Leaving the `with` block closes the file. Only one
    thread may read it at a time.
    """

    def __init__(self, path: Path, frames: _Frames) -> None:
        self.path = path
        self.info = frames.info
        self._frames = frames
        self._open: set[Generator[UInt8[np.ndarray, "H W 3"], None, None]] = set()

    def __iter__(self) -> Iterator[Frame]:
        images = self._frames.images()
        self._open.add(images)
        for index, image in enumerate(images):
            yield Frame(index, index / self.info.fps, image)
        self._open.discard(images)

    def close(self) -> None:
        """Close all iterators over the file."""
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(path: Path, fps: float | None = None) -> FrameSource:
    """Open a video, a still image or a folder of images.

    Args:
        path: video (.mp4, .mov, .avi, .mkv, .webm, .gif, ...), image (.jpg, .png, .webp, .heic,
            ...) or folder, whose images are frames in natural order of their names. The kind of a
            file is detected by its content: an animated WebP or PNG is a video.
        fps: frames per second. A video is resampled by its time stamps (the last frame at or before
            each tick). Every image of a folder is one frame at any rate. None keeps the rate of a
            video; one without a constant rate is resampled to its average rate.

    Raises:
        UserError: `path` does not exist or is none of these, no frame can be decoded, or `fps` is
            outside the range of videos.
    """
    if fps is not None:
        require_rate(fps, f"cannot read '{path}'")
    if path.is_dir():
        return FrameSource(path, _ImageFolder(path, fps))
    if not path.exists():
        raise UserError(
            f"there is no file or folder '{path}'{advice_on_name(str(path)) or '; check the name'}"
        )
    if is_image(path):
        animated = is_animated(path)
        return FrameSource(
            path, _Video(path, Animation(path), fps) if animated else _StillImage(path, fps)
        )
    suffix = path.suffix.lower()
    try:
        return FrameSource(path, _Video(path, VideoFile(path), fps))
    except UserError:
        if suffix in VIDEO_SUFFIXES:
            raise
        if suffix in IMAGE_SUFFIXES:
            read_image(path)  # raises an error that states what is wrong
    known = " ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
    raise UserError(f"'{path}' has an unknown format; give a folder of images or one of: {known}")


def advice_on_name(name: str) -> str:
    """Advice for a name that does not exist, to be appended to an error message; may be empty."""
    with_slashes = name.replace("\\", "/")
    if re.search(r"(^|/)[a-z][a-z0-9+.-]+:/", name, re.IGNORECASE):
        return "; addresses are not read: download the file first"
    if with_slashes != name and Path(with_slashes).exists():
        return f"; write it as {with_slashes}"
    return ""


def _info_of_images(
    kind: Literal["image", "folder"], file: Path, image: np.ndarray, fps: float | None, count: int
) -> SourceInfo:
    """Properties of images of which `image`, read from `file`, is the first."""
    height, width = image.shape[:2]
    sizes, fps = image_sizes(file), fps or _FOLDER_FPS
    reduction = 1 if sizes is None else sizes.reduction
    return SourceInfo(kind, width, height, fps, fps, count, False, reduction)


class _StillImage:
    def __init__(self, path: Path, fps: float | None) -> None:
        self._image = read_image(path)
        self.info = _info_of_images("image", path, self._image, fps, 1)
        if self.info.reduction > 1:
            logger.info("'%s' is large and read at 1/%d of its size", path, self.info.reduction)

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
        yield self._image.copy()


class _ImageFolder:
    def __init__(self, path: Path, fps: float | None) -> None:
        self._path = path
        self._files = list_images(path)
        if not self._files:
            raise UserError(_without_images(path))
        warn_of_others(path, self._files)
        first = next(_readable(self._files), None)
        if first is None:
            raise UserError(f"none of the {len(self._files)} images in '{path}' can be read")
        self.info = _info_of_images("folder", *first, fps, len(self._files))

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
        size = (self.info.width, self.info.height)
        count = 0
        for file, image in _readable(self._files):
            if image.shape[1::-1] != size:
                raise UserError(
                    f"the image '{file}' has {image.shape[1]}x{image.shape[0]} pixels, the first "
                    f"one {size[0]}x{size[1]}; put images of one size in a folder"
                )
            yield image
            count += 1
        if count < len(self._files):
            unreadable = len(self._files) - count
            logger.warning("'%s': %d unreadable images left out", self._path, unreadable)


def _without_images(folder: Path) -> str:
    content = [path for path in folder.iterdir() if path.name[0] != "."]
    reason = f"it contains {kinds_of(content)}" if content else "it is empty"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in content):
        reason += "; for many videos, use --input FOLDER --output FOLDER"
    return f"the folder '{folder}' contains no image ({' '.join(IMAGE_SUFFIXES)}): {reason}"


def _readable(files: list[Path]) -> Iterator[tuple[Path, UInt8[np.ndarray, "H W 3"]]]:
    for file in files:
        try:
            image = read_image(file)
        except UserError as error:
            logger.debug("%s", error)
            continue
        yield file, image


def warn_of_others(folder: Path, taken: Collection[Path]) -> None:
    """Log a warning with the kinds and numbers of files in a folder that are not in `taken`."""
    others = [path for path in folder.iterdir() if path.name[0] != "."]
    if left_out := kinds_of(set(others) - set(taken)):
        logger.warning("'%s': skipped, because they are not images: %s", folder, left_out)


@runtime_checkable
class _MovingPictures(Protocol):
    """A file with timed frames: `VideoFile` or `Animation`."""

    width: int
    height: int
    timing: Timing
    has_audio: bool

    def images(self, fps: float | None) -> Iterator[UInt8[np.ndarray, "H W 3"]]: ...


class _Video:
    def __init__(self, path: Path, file: _MovingPictures, fps: float | None) -> None:
        self._file = file
        timing = file.timing
        if fps is None:
            require_rate(timing.fps, f"cannot read '{path}', by its time stamps,")
        own_rate = fps is None or math.isclose(fps, timing.fps, rel_tol=_SAME_RATE)
        self._resample_fps = None if own_rate and timing.is_constant else (fps or timing.fps)
        self.info = SourceInfo(
            kind="video",
            width=file.width,
            height=file.height,
            fps=self._resample_fps or timing.fps,
            own_fps=timing.fps,
            frame_count_estimate=timing.count_at(self._resample_fps),
            has_audio=file.has_audio,
        )

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
        yield from self._file.images(self._resample_fps)


class Animation:
    """An animated WebP, PNG or AVIF, which FFmpeg does not read; interface of `VideoFile`."""

    has_audio = False

    def __init__(self, path: Path) -> None:
        """Decode the file once to read the durations of its frames.

        Raises:
            UserError: a frame cannot be decoded.
        """
        self._path = path
        times_s: list[float] = []
        last_duration_s = 0.0
        for time_s, duration_s, image in self._decode():
            times_s.append(time_s)
            last_duration_s = duration_s
            self.height, self.width = image.shape[:2]
        self.timing = judge_timing(times_s, len(times_s), last_duration_s, declared_fps=None)

    def images(self, fps: float | None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Every frame once, or frames resampled to a constant `fps`."""
        shown = ((time_s, image) for time_s, _, image in self._decode())
        if fps is None:
            return (image for _, image in shown)
        return resample(shown, fps, self.timing.last_duration_s)

    def _decode(self) -> Iterator[tuple[float, float, UInt8[np.ndarray, "H W 3"]]]:
        """Frames with their time and duration, seconds."""
        time_s = 0.0
        with open_picture(self._path) as picture:
            # A PNG file can begin with a picture for programs without support of animation.
            numbers = range(
                int(getattr(picture, "default_image", False)), int(getattr(picture, "n_frames", 1))
            )
            for number in numbers:
                picture.seek(number)
                image = to_rgb(picture)
                duration_s = (picture.info.get("duration") or _SHOWN_MS) / 1000
                yield time_s, duration_s, image
                time_s += duration_s

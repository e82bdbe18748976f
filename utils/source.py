"""Video files, still images and folders of images as one stream of upright RGB frames."""

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

_FOLDER_FPS: Final = 30.0  # images carry no rate
_SHOWN_MS: Final = 100  # what browsers take where an animation states no time
_SAME_RATE: Final = 5e-4  # 29.97 is 30000/1001, but it is not 30


@dataclass(frozen=True)
class SourceInfo:
    """What a source of frames is before it is read.

    Attributes:
        kind: a video file, one still image or a folder of images.
        width, height: of every frame in pixels, upright.
        fps: rate of the frames given out (for images: the rate asked for, or 30).
        own_fps: the source's own rate, on average; it differs from `fps` where frames are
            repeated or left out.
        frame_count_estimate: frames to expect; a damaged file gives fewer. None if unknown.
        has_audio: the file has a sound track.
        reduction: pixels of the file for a pixel of a frame, along each side; huge photographs
            are read reduced.
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
    """One upright frame; `time_s` counts from the first frame and equals index / fps."""

    index: int
    time_s: float
    image: UInt8[np.ndarray, "H W 3"]


@runtime_checkable
class _Frames(Protocol):
    """Where the pixels come from; `images` starts from the first frame each time."""

    info: SourceInfo

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]: ...


class FrameSource:
    """Frames of one source, read as they are asked for, so memory does not grow with length.

    Each `iter()` starts again from the first frame. Leaving the `with` block closes the file.
    Not to be read by two threads at a time.
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
        """End every reading of the file that is under way."""
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
            ...) or folder, whose images are frames in natural order of their names. What a file
            is, its content says, not its name: an animated WebP or PNG is a video.
        fps: frames per second to give out. A video is resampled by its time stamps (the last frame
            at or before each tick); of a folder every image is a frame whatever the rate. None
            keeps a video's own rate: frame by frame where it is constant, else resampled to its
            average.

    Raises:
        UserError: there is nothing at `path`, it is nothing of the kind, it holds no frame that can
            be decoded, or `fps` is no rate that videos can have.
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
            read_image(path)  # which says what is wrong with it
    known = " ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
    raise UserError(f"'{path}' has an unknown format; give a folder of images or one of: {known}")


def advice_on_name(name: str) -> str:
    """What may be meant by a name that is no file, to end the message about it."""
    with_slashes = name.replace("\\", "/")
    if re.search(r"(^|/)[a-z][a-z0-9+.-]+:/", name, re.IGNORECASE):
        return "; addresses are not read: download it, and give the file"
    if with_slashes != name and Path(with_slashes).exists():
        return f"; write it as {with_slashes}"
    return ""


def _info_of_images(
    kind: Literal["image", "folder"], file: Path, image: np.ndarray, fps: float | None, count: int
) -> SourceInfo:
    """What `file`, the first of them, says of images."""
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
    holds = f"it holds {kinds_of(content)}" if content else "it is empty"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in content):
        holds += "; many videos are given as --input FOLDER --output FOLDER"
    return f"the folder '{folder}' holds no image ({' '.join(IMAGE_SUFFIXES)}): {holds}"


def _readable(files: list[Path]) -> Iterator[tuple[Path, UInt8[np.ndarray, "H W 3"]]]:
    for file in files:
        try:
            image = read_image(file)
        except UserError as error:
            logger.debug("%s", error)
            continue
        yield file, image


def warn_of_others(folder: Path, taken: Collection[Path]) -> None:
    """Name once, by kind and count, what of a folder's content is not among what is `taken`."""
    others = [path for path in folder.iterdir() if path.name[0] != "."]
    if left_out := kinds_of(set(others) - set(taken)):
        logger.warning("'%s': skipped, because they are not images: %s", folder, left_out)


@runtime_checkable
class _MovingPictures(Protocol):
    """Frames with times, whichever library decodes them."""

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
    """An animated WebP, PNG or AVIF, which FFmpeg does not read; as `VideoFile`."""

    has_audio = False

    def __init__(self, path: Path) -> None:
        """Decode it once, since each frame states how long it is shown.

        Raises:
            UserError: its first frame cannot be decoded.
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
        """Every frame once, or by their times at a steady `fps`."""
        shown = ((time_s, image) for time_s, _, image in self._decode())
        if fps is None:
            return (image for _, image in shown)
        return resample(shown, fps, self.timing.last_duration_s)

    def _decode(self) -> Iterator[tuple[float, float, UInt8[np.ndarray, "H W 3"]]]:
        """Frames with their time and duration in seconds; as far as they can be decoded."""
        time_s = 0.0
        with open_picture(self._path) as picture:
            # A PNG file can have a picture for programs that show no animation.
            numbers = range(
                int(getattr(picture, "default_image", False)), int(getattr(picture, "n_frames", 1))
            )
            for number in numbers:
                picture.seek(number)
                image = to_rgb(picture)
                duration_s = (picture.info.get("duration") or _SHOWN_MS) / 1000
                yield time_s, duration_s, image
                time_s += duration_s

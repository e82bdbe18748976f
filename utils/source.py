"""Video files, still images and folders of images as one stream of upright RGB frames."""

import logging
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from utils.errors import UserError
from utils.image import IMAGE_SUFFIXES, list_images, read_image
from utils.video_read import VIDEO_SUFFIXES, VideoFile

logger = logging.getLogger(__name__)

_FOLDER_FPS: Final = 30.0  # images carry no rate
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
    """

    kind: Literal["video", "image", "folder"]
    width: int
    height: int
    fps: float
    own_fps: float
    frame_count_estimate: int | None
    has_audio: bool


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

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_source(path: Path, fps: float | None = None) -> FrameSource:
    """Open a video, a still image or a folder of images.

    Args:
        path: video (.mp4, .mov, .avi, .mkv, .webm, .gif, ...), image (.jpg, .png, .webp, .bmp,
            .tiff) or folder, whose images are frames in natural order of their names.
        fps: frames per second to give out. A video is resampled by its time stamps (the last frame
            at or before each tick); of a folder every image is a frame whatever the rate. None
            keeps a video's own rate: frame by frame where it is constant, else resampled to its
            average.

    Raises:
        UserError: there is nothing at `path`, it is nothing of the kind, it holds no frame that can
            be decoded, or `fps` is not a positive number.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"cannot read '{path}' at {fps} frames per second: give 0 < fps <= 1000")
    if path.is_dir():
        return FrameSource(path, _ImageFolder(path, fps))
    if not path.exists():
        raise UserError(f"there is no file or folder '{path}'; check the name")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return FrameSource(path, _StillImage(path, fps))
    if suffix in VIDEO_SUFFIXES:
        return FrameSource(path, _Video(path, fps))
    known = " ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
    raise UserError(f"'{path}' is of no known format; give a folder of images or one of: {known}")


class _StillImage:
    def __init__(self, path: Path, fps: float | None) -> None:
        self._image = read_image(path)
        height, width = self._image.shape[:2]
        fps = fps or _FOLDER_FPS
        self.info = SourceInfo("image", width, height, fps, fps, 1, False)

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
        yield self._image.copy()


class _ImageFolder:
    def __init__(self, path: Path, fps: float | None) -> None:
        self._path = path
        self._files = list_images(path)
        if not self._files:
            raise UserError(f"the folder '{path}' holds no image ({' '.join(IMAGE_SUFFIXES)})")
        first = next(_readable(self._files), None)
        if first is None:
            raise UserError(f"none of the {len(self._files)} images in '{path}' can be read")
        height, width = first[1].shape[:2]
        fps = fps or _FOLDER_FPS
        self.info = SourceInfo("folder", width, height, fps, fps, len(self._files), False)

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


def _readable(files: list[Path]) -> Iterator[tuple[Path, UInt8[np.ndarray, "H W 3"]]]:
    for file in files:
        try:
            image = read_image(file)
        except UserError as error:
            logger.debug("%s", error)
            continue
        yield file, image


class _Video:
    def __init__(self, path: Path, fps: float | None) -> None:
        self._file = VideoFile(path)
        timing = self._file.timing
        own_rate = fps is None or math.isclose(fps, timing.fps, rel_tol=_SAME_RATE)
        self._resample_fps = None if own_rate and timing.is_constant else (fps or timing.fps)
        self.info = SourceInfo(
            kind="video",
            width=self._file.width,
            height=self._file.height,
            fps=self._resample_fps or timing.fps,
            own_fps=timing.fps,
            frame_count_estimate=self._file.count_at(self._resample_fps),
            has_audio=self._file.has_audio,
        )

    def images(self) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
        yield from self._file.images(self._resample_fps)

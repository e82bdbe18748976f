"""Frames of a video file, upright with square pixels, one by one or at a constant rate."""

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from utils.errors import UserError
from utils.files import require_regular_file
from utils.video_filters import RgbConverter, deinterlaced, upright

logger = logging.getLogger(__name__)

ShownFrame = TypeVar("ShownFrame")

# fmt: off
VIDEO_SUFFIXES: Final = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".vob", ".ts", ".mts",
    ".m2ts", ".wmv", ".flv", ".3gp", ".3g2", ".ogv",
)
# fmt: on

# FFmpeg detects the format by the content, and some of its formats are lists of other files or
# addresses (concat, HLS, DASH, SDP) that it would open, so only these are allowed.
_CONTAINERS: Final = (
    "mov",
    "avi",
    "matroska",
    "gif",
    "mpeg",
    "mpegvideo",
    "mpegts",
    "m4v",
    "asf",
    "flv",
    "ogg",
)
_RESTRICTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": ",".join(_CONTAINERS)}

SLOWEST_FPS: Final = 1e-5  # a frame a day
FASTEST_FPS: Final = 1000
_WHOLE_SHARE: Final = 0.98
"""Share of the announced frames with which a video is complete; headers may be inexact."""

# Containers such as Matroska store times in whole milliseconds.
_CLOCK_TOLERANCE_S: Final = 0.002
_FALLBACK_FPS: Final = 25.0


@dataclass(frozen=True)
class Timing:
    """Rate and length of a complete video, from its time stamps.

    Attributes:
        fps: average frames per second.
        is_constant: whether every frame is within half a frame of a regular grid at `fps`.
        frame_count: number of frames found.
        duration_s: time from the start of the first frame to the end of the last.
        last_duration_s: duration of the last frame.
    """

    fps: float
    is_constant: bool
    frame_count: int
    duration_s: float
    last_duration_s: float

    def count_at(self, fps: float | None) -> int:
        """Expected number of frames at a constant rate; None: at the video's own rate."""
        if fps is None:
            return self.frame_count
        return max(1, math.ceil((self.duration_s - _CLOCK_TOLERANCE_S) * fps))


def require_rate(fps: float | Fraction, what: str) -> None:
    """Raise a UserError that begins with `what` if `fps` is outside the range of videos."""
    if not SLOWEST_FPS <= fps <= FASTEST_FPS:
        lowest = f"{SLOWEST_FPS:.5f}"
        raise UserError(
            f"{what} at {fps} frames per second: give a rate from {lowest} to {FASTEST_FPS}"
        )


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Raises:
        UserError: the file is missing, empty or of an unknown format.
    """
    require_regular_file(path)
    try:
        # "file:" keeps a colon in the name from being read as a network protocol.
        container = av.open(f"file:{path}", metadata_errors="replace", options=_RESTRICTIONS)
    except (av.FFmpegError, OSError) as error:
        is_empty = path.is_file() and path.stat().st_size == 0
        reason = "the file is empty" if is_empty else f"no readable video ({error.strerror})"
        raise UserError(f"cannot read the video '{path}': {reason}") from error
    with container:
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main video stream of a container, which may also contain cover pictures.

    None if there is no stream with a known codec.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        return None
    return stream


class VideoFile:
    """A video file that can be read repeatedly from the start.

    Attributes:
        width, height: size of an upright frame with square pixels.
        timing: rate and length, from the time stamps of the whole file.
        has_audio: whether the file has sound.
    """

    def __init__(self, path: Path) -> None:
        """Read the time stamps and the first frame.

        Raises:
            UserError: no frame of the file can be decoded.
        """
        self._path = path
        self._has_warned = False
        self._converter = RgbConverter()
        with open_container(path) as container:
            stream = video_stream(container)
            if stream is None:
                raise UserError(
                    f"'{path}' has no readable video: it contains only sound, or is damaged"
                )
            self.has_audio = bool(container.streams.audio)
            self._square_width = _square_width(stream)
            self.timing, self._announced_count = _scan(container, stream)
        first = next(self._decode(), None)
        if first is None:
            raise UserError(f"no frame of the video '{path}' can be decoded; it is damaged")
        # Later frames of another size are scaled to the first one's.
        self._coded_size = (self._square_width or first[1].width, first[1].height)
        self.height, self.width = self._to_rgb(first[1]).shape[:2]

    def images(self, fps: float | None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Decode the video: every frame once, or resampled by time stamps to a constant `fps`."""
        frames = self._decode()
        chosen: Iterator[VideoFrame] = (frame for _, frame in frames)
        if fps is not None:
            chosen = resample(frames, fps, self.timing.last_duration_s)
        for frame in chosen:
            yield self._to_rgb(frame)

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """Every frame that can be decoded, with its time relative to the first one, seconds."""
        count = 0
        start_s = time_s = 0.0
        damage = _Damage()
        with open_container(self._path) as container:
            stream = video_stream(container)
            assert stream is not None, "checked when the file was first opened"
            stream.thread_type = "AUTO"
            for frame in deinterlaced(_tolerant_frames(container, stream, damage)):
                time_base = frame.time_base or stream.time_base
                if frame.pts is None or time_base is None:
                    time_s += 1 / self.timing.fps if count else 0.0
                else:
                    time_s = float(frame.pts * time_base)
                start_s = start_s if count else time_s
                count += 1
                yield time_s - start_s, frame
        is_short = count < _WHOLE_SHARE * self._announced_count
        if count and (damage.count or is_short) and not self._has_warned:
            self._has_warned = True
            of_all = f" of {self._announced_count}" if is_short else ""
            logger.warning(
                "'%s' is damaged or cut off: %d%s frames could be read", self._path, count, of_all
            )

    def _to_rgb(self, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        return upright(self._converter(frame, *self._coded_size), frame)


def _square_width(stream: VideoStream) -> int | None:
    """Width after scaling to square pixels; None if they are square."""
    aspect = stream.sample_aspect_ratio
    if not aspect or aspect == 1 or not 0.1 < aspect < 10:
        return None
    return max(1, round(stream.codec_context.width * aspect))


@dataclass
class _Damage:
    """Number of errors while reading a file."""

    count: int = 0

    def note(self, error: av.FFmpegError) -> None:
        self.count += 1
        logger.debug("damaged: %s", error)


def _scan(container: InputContainer, stream: VideoStream) -> tuple[Timing, int]:
    """Timing of the video, and the number of frames by its header (0 if unknown)."""
    times_s: list[float] = []
    count = discarded = 0
    last_duration_s = None
    for packet in _tolerant_packets(container, stream, _Damage()):
        if packet.is_discard:  # excluded by the file's edit list
            discarded += 1
            continue
        count += 1
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            times_s.append(float(time * packet.time_base))
        if packet.duration:
            last_duration_s = float(packet.duration * packet.time_base)
    declared_fps = stream.average_rate or stream.guessed_rate
    timing = judge_timing(
        times_s if len(times_s) == count else [],
        frame_count=count,
        last_duration_s=last_duration_s,
        declared_fps=float(declared_fps) if declared_fps else None,
    )
    announced_s = max(0.0, _announced_end_s(stream) - min(times_s, default=0.0))
    announced_count = stream.frames or int(announced_s * timing.fps)
    return timing, max(0, announced_count - discarded)


def _announced_end_s(stream: VideoStream) -> float:
    """End of a stream by the header of a Matroska file ("00:01:30.500"), seconds; 0 if unknown."""
    stated = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if stated is None:
        return 0.0
    hours, minutes, seconds = map(float, stated.groups())
    return 3600 * hours + 60 * minutes + seconds


def _tolerant_packets(
    container: InputContainer, stream: VideoStream, damage: _Damage
) -> Iterator[Packet]:
    """Compressed frames up to the end of the file, or to the first unreadable part."""
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                damage.count += 1
            if packet.size:  # an empty one would end the decoding
                yield packet
    except av.FFmpegError as error:
        damage.note(error)


def _tolerant_frames(
    container: InputContainer, stream: VideoStream, damage: _Damage
) -> Iterator[VideoFrame]:
    """Frames in the order of presentation, without those that cannot be decoded."""
    end_of_stream = None
    for packet in chain(_tolerant_packets(container, stream, damage), [end_of_stream]):
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            damage.note(error)
            continue
        yield from frames


# ---- times of frames, in seconds from the first frame


def judge_timing(
    times_s: Sequence[float],
    frame_count: int,
    last_duration_s: float | None,
    declared_fps: float | None,
) -> Timing:
    """Estimate rate and length of a video from its time stamps.

    Args:
        times_s: start of every frame in any order; empty if some have no time stamp.
        frame_count: number of frames.
        last_duration_s: duration of the last frame, if known.
        declared_fps: rate by the header of the file, which is used if the time stamps agree.
    """
    times_s = sorted(times_s)
    span_s = times_s[-1] - times_s[0] if times_s else 0.0
    measured_fps = (len(times_s) - 1) / span_s if span_s > 0 else None
    if measured_fps is None:  # one frame, or no usable time stamps
        own_fps = 1 / last_duration_s if frame_count == 1 and last_duration_s else declared_fps
        fps = own_fps or _FALLBACK_FPS
        return Timing(fps, True, frame_count, frame_count / fps, 1 / fps)

    for candidate in (declared_fps, measured_fps):
        if candidate and _is_even(times_s, candidate):
            return Timing(candidate, True, frame_count, frame_count / candidate, 1 / candidate)
    is_close = declared_fps is not None and abs(declared_fps / measured_fps - 1) < 0.1
    fps = declared_fps if declared_fps and is_close else measured_fps
    last_duration_s = last_duration_s or 1 / fps
    return Timing(fps, False, frame_count, span_s + last_duration_s, last_duration_s)


def _is_even(times_s: Sequence[float], fps: float) -> bool:
    return all(abs((time_s - times_s[0]) * fps - k) < 0.5 for k, time_s in enumerate(times_s))


def resample(
    shown: Iterable[tuple[float, ShownFrame]], fps: float, last_duration_s: float
) -> Iterator[ShownFrame]:
    """Yield for each tick k / fps the last frame that began at or before it.

    Frames are repeated or dropped, so that the duration is kept.

    Args:
        shown: start time (seconds) and frame, in order.
        last_duration_s: duration of the last frame.
    """
    tick = 0
    current: tuple[float, ShownFrame] | None = None
    for following in shown:
        while current is not None and tick / fps < following[0] - _CLOCK_TOLERANCE_S:
            yield current[1]
            tick += 1
        current = following
    if current is None:
        return
    end_s = current[0] + max(last_duration_s, 0.0)
    while tick == 0 or tick / fps < end_s - _CLOCK_TOLERANCE_S:
        yield current[1]
        tick += 1

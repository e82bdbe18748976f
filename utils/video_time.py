"""When frames are shown: the rate of a video, and frames at a steady rate out of irregular ones.

Times are seconds from the video's first frame.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

ShownFrame = TypeVar("ShownFrame")

# Containers such as Matroska keep times in whole milliseconds.
CLOCK_TOLERANCE_S: Final = 0.002
_FALLBACK_FPS: Final = 25.0


@dataclass(frozen=True)
class Timing:
    """Time stamps of a whole video, judged.

    Attributes:
        fps: average frames a second.
        is_constant: every frame lies within half a frame of an even grid at `fps`.
        frame_count: frames found.
        duration_s: from the first frame's start to the last frame's end.
        last_duration_s: how long the last frame is shown.
    """

    fps: float
    is_constant: bool
    frame_count: int
    duration_s: float
    last_duration_s: float


def judge_timing(
    times_s: Sequence[float],
    frame_count: int,
    last_duration_s: float | None,
    declared_fps: float | None,
) -> Timing:
    """Find a video's rate from its time stamps.

    Args:
        times_s: start of every frame in any order; empty if some have no time stamp.
        frame_count: frames found.
        last_duration_s: how long the last frame is shown, if the file says so.
        declared_fps: the rate that the file claims; believed if the time stamps agree.
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
    """Give, at each tick k / fps, the last frame that began at or before it.

    Frames are repeated or left out so that the running time stays. `shown` holds pairs of start
    time and frame, in order; the last frame is held for `last_duration_s`.
    """
    tick = 0
    current: tuple[float, ShownFrame] | None = None
    for following in shown:
        while current is not None and tick / fps < following[0] - CLOCK_TOLERANCE_S:
            yield current[1]
            tick += 1
        current = following
    if current is None:
        return
    end_s = current[0] + max(last_duration_s, 0.0)
    while tick == 0 or tick / fps < end_s - CLOCK_TOLERANCE_S:
        yield current[1]
        tick += 1

"""Videos of known content, for the tests that read and those that write some."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Int16, UInt8

from utils.video_write import VideoWriter

LEVELS = 12  # grey of frame k is 20 * (k % LEVELS), far enough apart to survive compression
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (40, 50, 220), (240, 240, 240)


def grey_frame(k: int, width: int = 64, height: int = 48) -> UInt8[np.ndarray, "H W 3"]:
    return np.full((height, width, 3), 20 * (k % LEVELS), np.uint8)


def four_colours(width: int = 64, height: int = 48) -> UInt8[np.ndarray, "H W 3"]:
    """Red and green above, blue and white below."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def write_video(path: Path, count: int, fps: float | Fraction = 30) -> Path:
    with VideoWriter(path, fps) as writer:
        for k in range(count):
            writer.write(grey_frame(k))
    return path


def write_raw(
    path: Path,
    times: list[int],
    codec: str = "libx264",
    time_base: Fraction = Fraction(1, 1000),
    sound: str | None = None,
) -> Path:
    """A video with frames at any times, and optionally a second of a 440 Hz tone."""
    with av.open(str(path), "w") as output:
        rate = 1 / time_base if time_base > Fraction(1, 1000) else 30
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = time_base
        tone = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(grey_frame(k), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone is not None:
            frame = av.AudioFrame.from_ndarray(sine(48000), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            output.mux(tone.encode(frame))
            output.mux(tone.encode(None))
    return path


def sine(samples: int) -> Int16[np.ndarray, "1 samples"]:
    wave = np.sin(np.arange(samples) * (2 * math.pi * 440 / 48000))
    return (wave * 8000).astype(np.int16)[None]

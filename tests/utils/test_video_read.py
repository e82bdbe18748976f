"""Video files read: times, rotation, containers, damage."""

import logging
import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from jaxtyping import UInt8

from utils.errors import UserError
from utils.source import open_source
from utils.video_read import judge_timing, resample
from utils.video_write import VideoWriter

LEVELS = 12  # grey of frame k is 20 * (k % LEVELS), far enough apart to survive compression
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (40, 50, 220), (240, 240, 240)


def grey_frame(k: int, width: int = 64, height: int = 48) -> UInt8[np.ndarray, "H W 3"]:
    return np.full((height, width, 3), 20 * (k % LEVELS), np.uint8)


def frame_number(image: UInt8[np.ndarray, "H W 3"]) -> int:
    return round(float(image.mean()) / 20)


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
) -> Path:
    """A video with frames at any times."""
    with av.open(str(path), "w") as output:
        rate = 1 / time_base if time_base > Fraction(1, 1000) else 30
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = time_base
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(grey_frame(k), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def rotate_in_header(path: Path, turns_clockwise: int) -> None:
    """Set the display matrix in the track header, as phones do, instead of turning the pixels."""
    cosine, sine_ = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns_clockwise]
    one = 1 << 16
    matrix = (cosine * one, sine_ * one, 0, -sine_ * one, cosine * one, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd")
    content[header + 44 : header + 80] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001), 30, 60])
def test_constant_rate_passes_through_unchanged(tmp_path: Path, fps: Fraction) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", 30, fps))
    assert source.info.kind == "video"
    assert source.info.fps == pytest.approx(float(fps))
    assert source.info.frame_count_estimate == 30
    frames = list(source)
    assert [frame_number(frame.image) for frame in frames] == [k % LEVELS for k in range(30)]
    assert [frame.index for frame in frames] == list(range(30))
    assert frames[29].time_s == pytest.approx(29 / float(fps))


@pytest.mark.parametrize("suffix", [".mov", ".avi", ".mkv", ".webm"])
def test_containers(tmp_path: Path, suffix: str) -> None:
    codec = "libvpx" if suffix == ".webm" else "libx264"
    path = write_raw(tmp_path / f"clip{suffix}", list(range(20)), codec, Fraction(1, 30))
    source = open_source(path)
    assert source.info.fps == pytest.approx(30)
    assert [frame_number(f.image) for f in source] == [k % LEVELS for k in range(20)]


@pytest.mark.parametrize(("fps", "step"), [(15, 2), (10, 3)])
def test_lower_rate_drops_frames(tmp_path: Path, fps: int, step: int) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", 12, 30), fps=fps)
    numbers = [frame_number(frame.image) for frame in source]
    assert numbers == list(range(0, 12, step))
    assert source.info.frame_count_estimate == len(numbers)


def test_higher_rate_repeats_frames(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", 6, 30), fps=60)
    assert [frame_number(frame.image) for frame in source] == [k // 2 for k in range(12)]


def test_variable_rate_is_resampled_by_time(tmp_path: Path) -> None:
    times_ms = [0, 100, 150, 200, 600, 700]
    source = open_source(write_raw(tmp_path / "vfr.mkv", times_ms), fps=10)
    numbers = [frame_number(frame.image) for frame in source]
    assert numbers[:8] == [0, 1, 3, 3, 3, 3, 4, 5]
    assert len(numbers) - 8 in (0, 1)  # how long the last frame stays is the container's to say


def test_variable_rate_without_a_wish_keeps_the_running_time(tmp_path: Path) -> None:
    times_ms = [k * 40 for k in range(20)] + [800 + k * 120 for k in range(10)]
    source = open_source(write_raw(tmp_path / "vfr.mkv", times_ms))
    frames = list(source)
    assert source.info.fps != pytest.approx(25)
    assert len(frames) / source.info.fps == pytest.approx(2.0, abs=0.15)
    assert len(frames) == source.info.frame_count_estimate


def test_time_stamps_missing_means_the_declared_rate() -> None:
    timing = judge_timing([], frame_count=50, last_duration_s=None, declared_fps=24.0)
    assert (timing.is_constant, timing.fps, timing.frame_count) == (True, 24.0, 50)


def test_milliseconds_of_ntsc_count_as_constant() -> None:
    fps = 30000 / 1001
    timing = judge_timing([round(k / fps, 3) for k in range(5000)], 5000, None, fps)
    assert timing.is_constant
    assert timing.fps == fps


def test_resample_holds_the_last_frame() -> None:
    assert list(resample([(0.0, "a"), (0.5, "b")], fps=10, last_duration_s=0.2)) == [
        *["a"] * 5,
        *["b"] * 2,
    ]
    assert list(resample([(0.0, "a")], fps=10, last_duration_s=0.0)) == ["a"]
    assert list(resample([], fps=10, last_duration_s=1.0)) == []


def test_whole_milliseconds_do_not_shift_frames() -> None:
    """Matroska says 67 and 133 ms where frames begin at 66.7 and 133.3 ms."""
    shown = [(round(k / 15, 3), k) for k in range(30)]
    assert list(resample(shown, fps=30, last_duration_s=1 / 15)) == [k // 2 for k in range(60)]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotated_video_is_upright(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "phone.mp4"
    with VideoWriter(path, 30) as writer:
        for _ in range(3):
            writer.write(four_colours())
    rotate_in_header(path, turns)
    source = open_source(path)
    expected = np.rot90(four_colours(), -turns)
    assert (source.info.width, source.info.height) == expected.shape[1::-1]
    for frame in source:
        assert frame.image.shape == expected.shape
        difference = np.abs(frame.image.astype(int) - expected)
        assert np.median(difference) <= 6
        assert difference[4:12, 4:12].max() < 12


def test_wide_pixels_become_square(tmp_path: Path) -> None:
    path = tmp_path / "dv.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 60, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(grey_frame(3, 60, 48))))
        output.mux(stream.encode(None))
    source = open_source(path)
    assert (source.info.width, source.info.height) == (80, 48)
    assert next(iter(source)).image.shape == (48, 80, 3)


def test_reading_again_starts_from_the_first_frame(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "clip.mp4", 8)) as source:
        first = iter(source)
        next(first), next(first)
        assert len(list(source)) == 8
    assert list(first) == []  # closed with the block


def test_names_with_odd_characters(tmp_path: Path) -> None:
    path = write_video(tmp_path / 'Zoë\'s "12:30" 50% #1 動画.mp4', 5)
    assert len(list(open_source(path))) == 5
    copy = tmp_path / "http: 'x' copy.mp4"
    with VideoWriter(copy, 30, audio_from=path) as writer:
        writer.write(grey_frame(0))
    assert copy.exists()


# ---------------------------------------------------------------- damage


def test_cut_off_video_gives_its_beginning_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cut.mp4"
    noise = np.random.default_rng(0)
    with VideoWriter(path, 30) as writer:
        for _ in range(60):
            writer.write(noise.integers(0, 255, (96, 128, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with caplog.at_level(logging.WARNING):
        source = open_source(path)
        count = len(list(source))
        assert len(list(source)) == count
    assert 20 < count < 50
    assert len(caplog.records) == 1
    assert f"{count} of 60 frames" in caplog.text


def test_whole_video_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(open_source(write_video(tmp_path / "clip.mp4", 40)))
    assert not caplog.records


def test_damage_in_the_middle_does_not_end_the_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hurt.avi"
    write_raw(path, list(range(60)), "mjpeg", Fraction(1, 30))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets[20:25]:
        content[position + 8 : position + 8 + size] = bytes(size)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(path))
    assert 50 <= len(frames) < 60
    assert frame_number(frames[-1].image) == 59 % LEVELS
    assert "damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"this is a text, not a film\n" * 50, bytes(5000)])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_no_video_is_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"fake{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="fake") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert ("empty" in str(caught.value)) == (not content)


@pytest.mark.parametrize("fps", [0, -5, math.nan, math.inf])
def test_impossible_rates(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UserError, match="frames per second"):
        open_source(write_video(tmp_path / "clip.mp4", 2), fps=fps)
    with pytest.raises(UserError, match="frames per second"):
        VideoWriter(tmp_path / "out.mp4", fps)

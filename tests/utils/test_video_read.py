"""Video files read: times, rotation, containers, damage."""

import gc
import logging
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8

from tests.utils.conftest import (
    BLUE,
    GREEN,
    LEVELS,
    RED,
    WHITE,
    four_colours,
    grey_frame,
    write_raw,
    write_video,
)
from utils.errors import UserError
from utils.source import open_source
from utils.video_read import VIDEO_SUFFIXES, judge_timing, resample
from utils.video_write import VideoWriter

DATA = Path(__file__).parents[1] / "data" / "media"


def frame_number(image: UInt8[np.ndarray, "H W 3"]) -> int:
    return round(float(image.mean()) / 20)


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


def test_frames_that_were_read_leave_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    path, tasks = write_video(tmp_path / "long.mp4", 40), Path("/proc/self/task")
    gc.collect()
    gc.disable()
    try:
        with open_source(path) as source:
            # Where the system does not list threads, only frames are counted.
            threads = [len(list(tasks.iterdir())) if tasks.is_dir() else 0 for _ in source]
            kept = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    finally:
        gc.enable()
    assert kept < 10
    assert threads[-1] <= threads[10]


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


# ---------------------------------------------------------------- colours, orientation, fields


def write_coloured(
    path: Path, frame: av.VideoFrame, *, primaries: int, transfer: int, matrix: int, full: bool
) -> Path:
    """One frame, already in YUV, marked with its colours by FFmpeg's numbers."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, 2 if full else 1
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def corner_colours(path: Path) -> list[list[int]]:
    (frame,) = open_source(path)
    height, width = frame.image.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [frame.image[y, x].tolist() for y in rows for x in columns]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "number"), [("ITU601", 6), ("ITU709", 1), ("BT2020", 9)])
def test_matrix_and_range(tmp_path: Path, matrix: str, number: int, full: bool) -> None:
    frame = av.VideoFrame.from_ndarray(four_colours(), format="rgb24").reformat(
        format="yuv444p",
        dst_colorspace=Colorspace[matrix],
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    path = write_coloured(
        tmp_path / "a.mp4", frame, primaries=1, transfer=1, matrix=number, full=full
    )
    np.testing.assert_allclose(corner_colours(path), [RED, GREEN, BLUE, WHITE], atol=4)


def pq_signal(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, from light to signal."""
    power = (np.asarray(nits) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg_signal(nits: np.ndarray) -> np.ndarray:
    """ARIB STD-B67 on a screen of 1000 nits, of grey."""
    scene = (np.asarray(nits) / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


BT709_TO_BT2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)
BT709_TO_P3 = np.array(
    [[0.822462, 0.177538, 0.0], [0.033194, 0.966806, 0.0], [0.017083, 0.072397, 0.910520]]
)


def deep_frame(signal: np.ndarray, matrix: Colorspace) -> av.VideoFrame:
    pixels = np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)
    return av.VideoFrame.from_ndarray(pixels, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=matrix, dst_color_range=ColorRange.MPEG
    )


@pytest.mark.parametrize(
    ("transfer", "signal"), [(16, pq_signal), (18, hlg_signal)], ids=["PQ", "HLG"]
)
def test_hdr_greys_look_as_on_an_ordinary_screen(
    tmp_path: Path, transfer: int, signal: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Up to half of white's light as they are; above it compressed, so that 1000 nits fit."""
    nits = np.repeat([1.0, 10.0, 30.0, 50.0, 100.0, 203.0, 500.0, 1000.0], 16)
    frame = deep_frame(np.tile(signal(nits)[None, :, None], (32, 1, 3)), Colorspace.BT2020)
    path = write_coloured(
        tmp_path / "a.mp4", frame, primaries=9, transfer=transfer, matrix=9, full=False
    )
    (read,) = open_source(path)
    greys = read.image[16, 8::16].astype(int)
    assert np.ptp(greys, axis=1).max() <= 4
    expected = 255 * (nits[8:64:16] / 100) ** (1 / 2.4)
    np.testing.assert_allclose(greys[:4, 1], expected, atol=4)
    assert 220 < greys[4, 1] < 235 < greys[5, 1] < 247 < greys[6, 1] < greys[7, 1] <= 255


@pytest.mark.parametrize(
    ("primaries", "matrix", "transfer"),
    [(9, 9, 16), (9, 9, 14), (12, 1, 1)],
    ids=["BT.2020 in PQ", "BT.2020", "P3"],
)
def test_wide_gamuts_keep_their_colours(
    tmp_path: Path, primaries: int, matrix: int, transfer: int
) -> None:
    wanted = four_colours() * 0.6
    light = (wanted / 255) ** 2.4 @ (BT709_TO_BT2020 if primaries == 9 else BT709_TO_P3).T
    signal = pq_signal(100 * light) if transfer == 16 else light ** (1 / 2.4)
    frame = deep_frame(signal, Colorspace.BT2020 if matrix == 9 else Colorspace.ITU709)
    path = write_coloured(
        tmp_path / "a.mp4", frame, primaries=primaries, transfer=transfer, matrix=matrix, full=False
    )
    expected = [[round(0.6 * value) for value in one] for one in (RED, GREEN, BLUE, WHITE)]
    np.testing.assert_allclose(corner_colours(path), expected, atol=6)


@pytest.mark.parametrize("name", ["hlg.mov", "pq.mov"])
def test_hdr_of_a_telephone_looks_like_its_sdr_original(name: str) -> None:
    sdr, hdr = (
        next(iter(open_source(DATA / one))).image.astype(float) for one in ("sdr.mp4", name)
    )
    assert np.abs(hdr - sdr).mean() < 4.5
    np.testing.assert_allclose(hdr.mean((0, 1)), sdr.mean((0, 1)), atol=4)


# The display matrix [[a, b], [c, d]], and what FFmpeg's autorotate makes of the frame.
ORIENTATIONS = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (-1, 0, 0, -1): lambda image: image[::-1, ::-1],
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_all_eight_orientations(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 10) as writer:
        writer.write(four_colours())
    a, b, c, d = (value << 16 for value in matrix)
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd")
    content[header + 44 : header + 80] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    expected = ORIENTATIONS[matrix](four_colours())
    source = open_source(path)
    (frame,) = source
    assert (source.info.height, source.info.width) == expected.shape[:2]
    assert np.abs(frame.image.astype(int) - expected).mean() < 6


def test_interlaced_video_is_deinterlaced(tmp_path: Path) -> None:
    """A bar that moves 12 pixels from field to field: no combs, as many frames, at their times."""
    path = tmp_path / "a.m2ts"
    with av.open(str(path), "w", format="mpegts") as output:
        options = {"flags": "+ildct+ilme", "field_order": "tt", "b": "8M"}
        stream = output.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(10):
            image = np.zeros((240, 320, 3), np.uint8)
            for field in (0, 1):
                left = 20 + 12 * (2 * k + field)
                image[field::2, left : left + 40] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    source = open_source(path)
    assert (source.info.fps, source.info.frame_count_estimate) == (25, 10)
    frames = list(source)
    assert len(frames) == 10
    for k, frame in enumerate(frames[1:-1], start=1):
        rows = frame.image.astype(int).mean(axis=-1)
        assert np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean() < 1
        centre = (rows.mean(0) * np.arange(320)).sum() / rows.mean(0).sum()
        # Of the field that is shown first, which in this file is the lower one.
        assert centre == pytest.approx(51.5 + 24 * k, abs=2)
    half = [frame.image for frame in open_source(path, fps=12.5)]
    assert len(half) == 5


def test_ogg_and_blu_ray_containers(tmp_path: Path) -> None:
    times = list(range(20))
    for name, codec in (("a.m2ts", "libx264"), ("a", "libx264")):
        path = write_raw(tmp_path / f"{name}.mkv", times, codec, Fraction(1, 30))
        path = path.rename(tmp_path / name)
        numbers = [frame_number(f.image) for f in open_source(path)]
        assert numbers == [k % LEVELS for k in range(20)]
    assert {".ogv", ".m2ts", ".vob"} <= set(VIDEO_SUFFIXES)


@pytest.mark.parametrize("fps", [0.0001, 1 / 3600, 1 / 2500, 0.4])
def test_slow_videos(tmp_path: Path, fps: float) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", 3, fps))
    assert source.info.fps == pytest.approx(fps, rel=1e-6)
    frames = list(source)
    assert [frame_number(frame.image) for frame in frames] == [0, 1, 2]
    assert frames[2].time_s == pytest.approx(2 / fps)


def test_two_frames_an_hour_apart(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mkv", [0, 3_600_000])
    source = open_source(path)
    assert source.info.fps == pytest.approx(1 / 3600, rel=1e-3)
    assert [frame_number(frame.image) for frame in source] == [0, 1]


def test_a_damaged_codec_name_is_one_line(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"avc1", b"\0\1zz").replace(b"avcC", b"free"))
    with pytest.raises(UserError, match=r"a\.mp4") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)

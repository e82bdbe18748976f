"""Video files written: what comes out, whole or not at all, with the sound kept."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.utils.conftest import four_colours, grey_frame, sine, write_raw, write_video
from utils.errors import UserError
from utils.iteration import parallel_map
from utils.source import open_source
from utils.video_write import VideoWriter


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), 29.97002997002997, 12.5])
def test_written_video(tmp_path: Path, fps: float | Fraction) -> None:
    path = write_video(tmp_path / "out.mp4", 30, fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(fps).limit_denominator(1001)
        assert stream.frames == 30
        assert float(stream.duration * stream.time_base) == pytest.approx(30 / float(fps), abs=1e-3)
        assert len(list(container.decode(stream))) == 30
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is loaded whole


def test_colours_survive(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 30) as writer:
        writer.write(four_colours(640, 480))
    image = next(iter(open_source(path))).image
    assert np.abs(image.astype(int) - four_colours(640, 480))[10:200, 10:300].max() <= 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == 1  # BT.709, said in the file


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (63, 47), (1, 1)])
def test_odd_sizes_grow_by_a_repeated_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 30) as writer:
        writer.write(grey_frame(6, width, height))
    image = next(iter(open_source(path))).image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(image.astype(int) - 120).max() <= 3


def test_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with suppress(KeyboardInterrupt), VideoWriter(path, 30) as writer:
        writer.write(grey_frame(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frame"), VideoWriter(tmp_path / "out.mp4", 30):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 30) as writer:
        writer.write(grey_frame(0))
        with pytest.raises(ValueError, match="frame of"):
            writer.write(grey_frame(1, 32, 32))


def test_output_must_be_an_mp4(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.mp4"):
        VideoWriter(tmp_path / "out.avi", 30)


# ---------------------------------------------------------------- sound


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("libmp3lame", ".mp4")])
def test_sound_is_copied_bit_by_bit(tmp_path: Path, codec: str, suffix: str) -> None:
    source = write_raw(tmp_path / f"in{suffix}", [k * 40 for k in range(26)], sound=codec)
    assert open_source(source).info.has_audio
    rewrite(source, tmp_path / "out.mp4", fps=None)
    kept, original = audio_packets(tmp_path / "out.mp4"), audio_packets(source)
    assert len(kept) > 30
    assert kept == original[: len(kept)]
    assert len(original) - len(kept) <= 1


def rewrite(source: Path, target: Path, fps: float | None) -> None:
    with (
        open_source(source, fps) as media,
        VideoWriter(target, media.info.fps, audio_from=source) as writer,
    ):
        for frame in media:
            writer.write(frame.image)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("pcm_s16le", ".mov"), ("libopus", ".mkv"), ("flac", ".mkv")]
)
def test_other_sound_becomes_aac(tmp_path: Path, codec: str, suffix: str) -> None:
    source = write_raw(tmp_path / f"in{suffix}", [k * 40 for k in range(26)], sound=codec)
    rewrite(source, tmp_path / "out.mp4", fps=10)
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio)])
    assert len(wave) / 48000 == pytest.approx(1.0, abs=0.06)
    middle = wave[8000:40000]
    crossings = np.count_nonzero(np.diff(np.signbit(middle)))
    assert crossings / 2 / (len(middle) / 48000) == pytest.approx(440, rel=0.02)


def test_sound_ends_with_the_pictures_and_keeps_its_beginning(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "in.mp4", [k * 40 for k in range(26)], sound="aac")
    with VideoWriter(tmp_path / "out.mp4", 25, audio_from=source) as writer:
        for k in range(10):
            writer.write(grey_frame(k))
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio = container.streams.audio[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(0.4, abs=0.03)


def test_sound_stays_with_pictures_that_begin_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pictures from 0.5 s on: half a second of sound before them goes."""
    source = write_raw(tmp_path / "in.mkv", [500 + k * 40 for k in range(12)], sound="aac")
    rewrite(source, tmp_path / "out.mp4", fps=None)
    assert not caplog.records
    before, after = sound_times(source), sound_times(tmp_path / "out.mp4")
    assert len(after) > 15
    assert min(before.values()) < -0.4
    assert 0 <= min(after.values()) < 0.03
    assert all(time == pytest.approx(before[packet], abs=0.002) for packet, time in after.items())


def sound_times(path: Path) -> dict[bytes, float]:
    """Time of each packet of sound from the first picture, in seconds."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        times = [float(packet.pts * packet.time_base) for packet in packets]
        first = min(t for t, p in zip(times, packets, strict=True) if p.stream.type == "video")
        return {
            bytes(packet): time - first
            for packet, time in zip(packets, times, strict=True)
            if packet.stream.type == "audio"
        }


def test_silent_or_missing_sound_does_not_lose_the_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silent = write_video(tmp_path / "silent.mp4", 5)
    rewrite(silent, tmp_path / "a.mp4", fps=None)
    assert not caplog.records
    with VideoWriter(tmp_path / "b.mp4", 30, audio_from=tmp_path / "missing.mp4") as writer:
        writer.write(grey_frame(0))
    assert len(caplog.records) == 1
    for name in ("a.mp4", "b.mp4"):
        assert not open_source(tmp_path / name).info.has_audio


def test_damaged_sound_does_not_lose_the_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_raw(tmp_path / "in.mkv", [k * 40 for k in range(26)], sound="flac")
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 3 // 4])
    with VideoWriter(tmp_path / "out.mp4", 25, audio_from=source) as writer:
        for k in range(26):
            writer.write(grey_frame(k))
    assert len(list(open_source(tmp_path / "out.mp4"))) == 26


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sine(4800), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(UserError, match="contains only sound"):
        open_source(path)


def test_frames_prepared_in_other_threads_make_the_same_file(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (49, 65, 3), np.uint8) for _ in range(12)]
    here, there = tmp_path / "here.mp4", tmp_path / "there.mp4"
    with VideoWriter(here, 30) as writer:
        for frame in frames:
            writer.write(frame)
    with VideoWriter(there, 30) as writer:
        for picture in parallel_map(writer.prepare, frames, 3):
            writer.write(picture)
    assert here.read_bytes() == there.read_bytes()

"""The sound track of one file carried into another, beside new pictures."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from utils.errors import UserError
from utils.video_read import open_container, video_stream

logger = logging.getLogger(__name__)

# Codecs that players expect in an .mp4; every other one (PCM, Vorbis, Opus, ...) becomes AAC.
_COPIED_CODECS: Final = ("aac", "mp3", "ac3", "eac3", "alac")
_AAC_RATES_HZ: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AUDIO_ERRORS: Final = (av.FFmpegError, UserError, ValueError)


class AudioTrack:
    """Carries the sound of a source into an output while its pictures are written.

    Sound keeps its time relative to the source's first picture. A failure ends the sound with
    one warning; it never stops the pictures.
    """

    def __init__(self, source_path: Path, output: OutputContainer) -> None:
        """Add a sound stream to `output`; none if the source has no sound or cannot be read."""
        self._source_path = source_path
        self._output = output
        self._resources = ExitStack()
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None
        try:
            source = self._resources.enter_context(open_container(source_path))
            audio = source.streams.best("audio")
            if isinstance(audio, AudioStream):
                self._packets = _carried(source, audio, output)
        except _AUDIO_ERRORS as error:
            self._give_up(0.0, error)

    def write_until(self, time_s: float) -> None:
        """Write the sound that begins before `time_s`, counted from the first picture."""
        begin_s = 0.0
        try:
            while packet := self._next or next(self._packets, None):
                self._next = packet
                begin_s = (
                    float(packet.dts * packet.time_base) if packet.dts is not None else begin_s
                )
                if begin_s >= time_s:
                    return
                self._next = None
                self._output.mux(packet)
        except _AUDIO_ERRORS as error:
            self._give_up(begin_s, error)

    def close(self) -> None:
        """Close the source; sound not yet written is left out."""
        self._resources.close()

    def _give_up(self, time_s: float, error: Exception) -> None:
        self._next, self._packets = None, iter(())
        logger.warning(
            "the sound of '%s' is lost from second %.1f on: %s", self._source_path, time_s, error
        )


def _carried(
    source: InputContainer, audio: AudioStream, output: OutputContainer
) -> Iterator[Packet]:
    """Add a stream to `output`; packets for it, timed from the source's first picture."""
    pictures = video_stream(source)
    first_picture_s = 0.0
    if pictures is not None and pictures.start_time is not None and pictures.time_base:
        first_picture_s = float(pictures.start_time * pictures.time_base)

    if audio.codec_context.codec.canonical_name in _COPIED_CODECS:
        return _copied(source, audio, output.add_stream_from_template(audio), first_picture_s)
    rate = min(_AAC_RATES_HZ, key=lambda rate: abs(rate - audio.codec_context.sample_rate))
    stream = output.add_stream("aac", rate=rate)
    stream.codec_context.layout = "mono" if audio.codec_context.channels == 1 else "stereo"
    return _encoded(source, audio, stream, first_picture_s)


def _copied(
    source: InputContainer, audio: AudioStream, stream: AudioStream, first_picture_s: float
) -> Iterator[Packet]:
    for packet in source.demux(audio):
        if packet.dts is None or packet.pts is None:
            continue
        shift = round(first_picture_s / packet.time_base)
        packet.pts -= shift
        packet.dts -= shift
        # With no shift, a time below zero is the codec's own lead-in and belongs to the sound.
        if shift <= 0 or packet.pts >= 0:
            packet.stream = stream
            yield packet


def _encoded(
    source: InputContainer, audio: AudioStream, stream: AudioStream, first_picture_s: float
) -> Iterator[Packet]:
    for frame in source.decode(audio):
        if frame.pts is not None and frame.time_base:
            frame.pts -= round(first_picture_s / frame.time_base)
        if frame.pts is None or frame.pts >= 0:
            yield from stream.encode(frame)
    yield from stream.encode(None)

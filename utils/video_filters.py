"""Conversion of decoded video frames to upright, progressive RGB frames of standard range.

FFmpeg converts the matrix and range of YUV. HDR (PQ and HLG) and wide gamuts are converted by a
colour table for FFmpeg's filter `lut3d`: from the signal to light, to the primaries of BT.709 with
compressed highlights, and back to a signal.
"""

import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter
from jaxtyping import Float, UInt8

Colours = Float[np.ndarray, "*shape 3"]

_STEPS: Final = 33
"""Size of the colour table along red, green and blue."""
_SCREEN_GAMMA: Final = 2.4  # BT.1886: from signal to light on a standard screen
_WHITE_NITS: Final = 100.0
"""Luminance of white on a standard screen, the unit of light here."""
_PEAK: Final = 10.0
"""Brightest light, which becomes white: 1000 nits, the peak of HLG and of most PQ videos."""
_KNEE: Final = 0.5
"""Light up to here is unchanged; from here to the peak it is compressed."""
_DEEP: Final = "gbrp16le"  # planar: the filter is three times as fast

_BT2020_TO_BT709: Final = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008349),
    (-0.018151, -0.100579, 1.118730),
)
_P3_TO_BT709: Final = (
    (1.224940, -0.224940, 0.0),
    (-0.042057, 1.042057, 0.0),
    (-0.019638, -0.078636, 1.098274),
)
_UNCHANGED: Final = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_TO_BT709: Final[dict[int, tuple[tuple[float, float, float], ...]]] = {
    ColorPrimaries.BT2020: _BT2020_TO_BT709,
    ColorPrimaries.SMPTE431: _P3_TO_BT709,
    ColorPrimaries.SMPTE432: _P3_TO_BT709,
}
_BT2020_LUMINANCE: Final = (0.2627, 0.6780, 0.0593)
_UNSPECIFIED_MATRIX: Final = 2  # FFmpeg's constant
_HDR: Final = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


class RgbConverter:
    """Converts the frames of one video to RGB; the colour space may change between frames.

    Only one thread may use it at a time.
    """

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int, int, int], _ToneMapping] = {}
        # A common reformatter, because one for each frame would start new threads.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
        """The frame scaled to `width` x `height` pixels, in 8-bit BT.709 or sRGB."""
        transfer, primaries, matrix = frame.color_trc, frame.color_primaries, frame.colorspace
        is_hdr = transfer in _HDR
        if is_hdr and primaries == ColorPrimaries.UNSPECIFIED:
            primaries = ColorPrimaries.BT2020
        if not is_hdr and primaries not in _TO_BT709:
            return self._reformatter.reformat(
                frame, format="rgb24", width=width, height=height, threads=1
            ).to_ndarray()
        is_untagged = matrix == _UNSPECIFIED_MATRIX and primaries == ColorPrimaries.BT2020
        deep = self._reformatter.reformat(
            frame,
            threads=1,
            width=width,
            height=height,
            format=_DEEP,
            src_colorspace=Colorspace.BT2020 if is_untagged else None,
        )
        key = (transfer if is_hdr else ColorTrc.BT709, primaries, width, height)
        if key not in self._mappings:
            self._mappings[key] = _ToneMapping(deep, _table(*key[:2]))
        mapped = self._mappings[key].apply(deep)
        return self._reformatter.reformat(mapped, format="rgb24", threads=1).to_ndarray()


def _filter_graph(frame: VideoFrame, time_base: Fraction, name: str, **options: str) -> Graph:
    """A graph with one FFmpeg filter, for frames of the size and format of `frame`."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=time_base
    )
    graph.link_nodes(source, graph.add(name, **options), graph.add("buffersink")).configure()
    return graph


class _ToneMapping:
    """A filter that looks up every pixel in a colour table."""

    def __init__(self, frame: VideoFrame, table: Float[np.ndarray, "N N N 3"]) -> None:
        """Prepare for frames of the size and format of `frame`."""
        self._time_base = Fraction(1)
        self._count = 0
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "table.cube")
            rows = (
                f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in table.reshape(-1, 3)
            )
            file.write_text("\n".join([f"LUT_3D_SIZE {len(table)}", *rows]), encoding="ascii")
            options = {"file": str(file), "interp": "tetrahedral"}
            self._graph = _filter_graph(frame, self._time_base, "lut3d", **options)

    def apply(self, frame: VideoFrame) -> VideoFrame:
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += 1
        self._graph.push(frame)
        mapped = self._graph.pull()
        assert isinstance(mapped, VideoFrame)
        return mapped


@cache
def _table(transfer: int, primaries: int) -> Float[np.ndarray, "N N N 3"]:
    """Output colour for each input colour, indexed by blue, green and red, 0 to 1."""
    steps = np.linspace(0, 1, _STEPS)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    light = _TO_LIGHT.get(transfer, _screen_light)(np.stack([red, green, blue], axis=-1))
    light = np.maximum(light @ np.array(_TO_BT709.get(primaries, _UNCHANGED)).T, 0)
    if transfer in _HDR:
        # The same factor for all three channels keeps the hue.
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
        light *= _compressed(brightest) / brightest
    return np.clip(light, 0, 1) ** (1 / _SCREEN_GAMMA)


def _screen_light(signal: Colours) -> Colours:
    return signal**_SCREEN_GAMMA


def _pq_light(signal: Colours) -> Colours:
    """SMPTE ST 2084 (PQ): from the signal to display light, up to 10000 nits."""
    root = signal ** (32 / 2523)
    ratio = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10000 / _WHITE_NITS * ratio ** (16384 / 2610)


def _hlg_light(signal: Colours) -> Colours:
    """ARIB STD-B67 (HLG): from the signal to the light of a display of 1000 nits (BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array(_BT2020_LUMINANCE)
    return 1000 / _WHITE_NITS * scene * luminance[..., None] ** 0.2


_TO_LIGHT: Final[dict[int, Callable[[Colours], Colours]]] = {
    ColorTrc.SMPTE2084: _pq_light,
    ColorTrc.ARIB_STD_B67: _hlg_light,
}


def _compressed(light: Float[np.ndarray, "*shape 1"]) -> Float[np.ndarray, "*shape 1"]:
    """Moebius tone curve: the identity up to the knee, then smooth to 1 at the peak."""
    a = -(_KNEE**2) * (_PEAK - 1) / (_KNEE**2 - 2 * _KNEE + _PEAK)
    b = (_KNEE**2 - 2 * _KNEE * _PEAK + _PEAK) / (_PEAK - 1)
    scale = (b**2 + 2 * b * _KNEE + _KNEE**2) / (b - a)
    return np.where(light <= _KNEE, light, np.minimum(scale * (light + a) / (light + b), 1))


def deinterlaced(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """Deinterlace frames that are marked as interlaced; their number and times do not change."""
    filtering: _Deinterlacer | None = None
    for frame in frames:
        if filtering is not None and not filtering.fits(frame):
            yield from filtering.rest()
            filtering = None
        if filtering is None and frame.interlaced_frame:
            filtering = _Deinterlacer(frame)
        if filtering is None:
            yield frame
        else:
            yield from filtering.push(frame)
    if filtering is not None:
        yield from filtering.rest()


class _Deinterlacer:
    """FFmpeg's filter bwdif, which uses the frames before and after each frame."""

    def __init__(self, first: VideoFrame) -> None:
        self._kind = (first.width, first.height, first.format.name)
        time_base = first.time_base or Fraction(1, 1000)
        # One output per frame, not per field; progressive frames are not changed.
        options = {"mode": "send_frame", "deint": "interlaced"}
        self._graph = _filter_graph(first, time_base, "bwdif", **options)

    def fits(self, frame: VideoFrame) -> bool:
        return self._kind == (frame.width, frame.height, frame.format.name)

    def push(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        self._graph.push(frame)
        while True:
            try:
                filtered = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):  # needs more input, or has ended
                return
            assert isinstance(filtered, VideoFrame)
            yield filtered

    def rest(self) -> Iterator[VideoFrame]:
        """The frames that waited for a following one."""
        return self.push(None)


def upright(image: UInt8[np.ndarray, "h w 3"], frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """Rotate and mirror a frame's image by its display matrix, to the nearest quarter turn.

    A display matrix [[a, b, _], [c, d, _], _] maps pixel (x, y) to (a x + c y, b x + d y).
    """
    # `frame.side_data` would create a reference cycle, which keeps the frame in memory.
    side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # PyAV's stub has no __init__
    matrix: Any = side_data.get(SideDataType.DISPLAYMATRIX.name)
    if matrix is None:
        return image
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, right, down = image.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])

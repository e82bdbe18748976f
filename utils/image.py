"""Still images: read upright as RGB, list a folder in natural order, write all or nothing.

Pillow reads them, since it applies the EXIF orientation to every format that can carry one and
knows the odd modes (16 bits, CMYK, palettes).
"""

import io
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from utils.errors import UserError
from utils.files import atomic_path, open_input, read_input

# fmt: off
IMAGE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff",
    ".heic", ".heif", ".hif", ".avif",
)
# fmt: on
# Whatever a file is called, Pillow knows it by its content: of its many formats some run other
# programs (EPS starts Ghostscript), so that it is given a list. JPEG includes what cameras write
# into .jpg files that hold several pictures.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")
_ANIMATED: Final = ("WEBP", "PNG", "AVIF")
"""Formats whose further pictures are frames of a video, not further photographs."""
_LARGEST_IMAGE: Final = 1 << 30
"""Bytes."""
# What Pillow raises on damaged bytes: its decoders do not agree on one type.
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    # Once ultralytics is imported, Pillow looks for a HEIC decoder for what it cannot read.
    ImportError,
)
_ORIENTATION: Final = 0x0112  # the EXIF tag
_LYING: Final = (5, 6, 7, 8)  # orientations that swap width and height
_MOST_PIXELS: Final = 1 << 28
"""Of a file; Pillow needs four bytes for each."""
_MOST_AT_ONCE: Final = 100_000_000
"""Pixels; a JPEG file of more is read at a half, a quarter or an eighth of its size."""
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

Image.MAX_IMAGE_PIXELS = None  # `_require_size` stands for it: Pillow's own limit is lower
# Pillow reads on after odd metadata, and would say so on the terminal.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
_JPEG_QUALITY: Final = 95


@cache
def _formats() -> tuple[str, ...]:
    """Of Pillow; its plug-in for HEIF, what Apple's telephones write, is loaded for them."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    return _FORMATS


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read one image, upright by its EXIF orientation, as RGB.

    Transparent pixels show white. 16-bit and float images are scaled to 8 bits. The first page
    of a file with several is read. JPEG files of over 100 megapixels are read reduced, see
    `ImageSizes`.

    Raises:
        UserError: the file is missing, empty, no image, damaged, or unreasonably large.
    """
    content = read_input(path, _LARGEST_IMAGE)
    return decode_image(content, name=str(path))


def decode_image(
    content: bytes, name: str, *, as_stored: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        name: for the error message.
        as_stored: neither turned upright nor reduced.
    """
    try:
        with _opened(content, name) as picture:
            if not as_stored:
                _reduce(picture)
            picture.load()  # TIFF is turned by Pillow here
            turn = 1 if as_stored else _orientation(picture)
            return np.ascontiguousarray(_UPRIGHT[turn](to_rgb(picture)))
    except _DAMAGE as error:
        reason = "the file is empty" if not content else "damaged, or not an image"
        raise UserError(f"cannot read the image '{name}': {reason}") from error


_UPRIGHT: Final[dict[int, Callable[[np.ndarray], np.ndarray]]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}
"""By EXIF orientation."""


def _opened(content: bytes, name: str) -> Image.Image:
    picture = Image.open(io.BytesIO(_without_metadata(content)), formats=_formats())
    return _require_size(picture, name)


def _require_size(picture: Image.Image, name: str) -> Image.Image:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        raise UserError(
            f"cannot read the image '{name}': {width}x{height} pixels are too many "
            f"(at most {_MOST_PIXELS // 1_000_000} million); make it smaller"
        )
    return picture


def _without_metadata(content: bytes) -> bytes:
    """A PNG file without texts and colour profile: Pillow refuses pictures for long ones."""
    if not content.startswith(_PNG_SIGNATURE):
        return content
    kept, start = [content[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE)
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        end = start + length + 12  # and the length, the name and a checksum
        if content[start + 4 : start + 8] not in _PNG_METADATA:
            kept.append(content[start:end])
        start = end
    return b"".join(kept)


def _orientation(picture: Image.Image) -> int:
    """From 1 to 8; 1 where odd metadata hides it."""
    if picture.format == "PNG":
        picture.load()  # EXIF data may lie behind the pixels
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _reduction(picture: Image.Image) -> int:
    """Pixels of the file for a pixel of the image, along each side."""
    width, height = picture.size
    factors = (1, 2, 4, 8) if picture.format in ("JPEG", "MPO") else (1,)
    fitting = (factor for factor in factors if width * height <= _MOST_AT_ONCE * factor**2)
    return next(fitting, factors[-1])


def _reduce(picture: Image.Image) -> None:
    """Have the decoder give the image at the size of `_reduction`, which costs less memory."""
    factor = _reduction(picture)
    if factor > 1:
        picture.draft(picture.mode, (picture.width // factor, picture.height // factor))


def to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of any mode as `read_image` gives it, but not turned."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return cv2.cvtColor(_to_8_bits(np.asarray(picture)), cv2.COLOR_GRAY2RGB)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def _to_8_bits(values: Shaped[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Scale grey values to bytes: 16-bit integers by their range, floats by [0, 1]."""
    full_scale = 1.0 if values.dtype.kind == "f" and np.nanmax(values) <= 1 else 65535.0
    scaled = np.nan_to_num(values.astype(np.float32)) * (255 / full_scale)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """A still image whose pixels are not decoded yet, of the formats that `read_image` reads.

    Raises:
        UserError: the file is missing, no image or too large, or what is asked of it is damaged.
    """
    with open_input(path) as file:
        try:
            head = file.read(len(_PNG_SIGNATURE))
            file.seek(0)
            if head == _PNG_SIGNATURE:
                picture = _opened(file.read(_LARGEST_IMAGE), str(path))
            else:
                picture = _require_size(Image.open(file, formats=_formats()), str(path))
            with picture:
                yield picture
        except _DAMAGE as error:
            raise UserError(f"cannot read the image '{path}': damaged, or not an image") from error


def is_image(path: Path) -> bool:
    """Whether a file begins like an image, whatever it is called."""
    try:
        with open_picture(path):
            return True
    except UserError:
        return False


def is_animated(path: Path) -> bool:
    """Whether a file that is an image holds the frames of a video."""
    with open_picture(path) as picture:
        return picture.format in _ANIMATED and getattr(picture, "is_animated", False)


class ImageSizes(NamedTuple):
    """Width and height of an image file."""

    upright: tuple[int, int]
    """As `read_image` gives it: as its EXIF data asks for, and perhaps reduced."""
    stored: tuple[int, int]
    """As its pixels are stored, which annotations count in."""
    reduction: int
    """Stored pixels for a pixel that is read, along each side."""
    is_turned: bool
    """EXIF data asks to turn or mirror it."""


def image_sizes(path: Path) -> ImageSizes | None:
    """Without decoding it where its format allows that; None if it is no image."""
    try:
        with open_picture(path) as picture:
            reduction, stored = _reduction(picture), picture.size
            upright = (-(-stored[0] // reduction), -(-stored[1] // reduction))
            orientation = _orientation(picture)
            if orientation in _LYING:
                upright = upright[::-1]
            return ImageSizes(upright, stored, reduction, is_turned=orientation != 1)
    except UserError:
        return None


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as `read_image` would give it; None if it is no image."""
    sizes = image_sizes(path)
    return None if sizes is None else sizes.upright


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in natural order ("frame2" before "frame10"), hidden files left out."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=natural_key)


def kinds_of(paths: Collection[Path]) -> str:
    """What files there are, as in "3 .mp4, 1 .txt, 1 folder"."""
    kinds = Counter(
        ("folder" if path.is_dir() else path.suffix.lower() or "without a suffix") for path in paths
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    pieces = re.findall(r"\d+|\D+", path.name.lower())
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces), path.name


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an RGB image as .jpg, .jpeg or .png, by its suffix; an existing file is replaced.

    Raises:
        UserError: another suffix, or the place cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"cannot write the image '{path}': name it .jpg or .png")
    # OpenCV warns of options that are another format's.
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    with writable(path), atomic_path(path) as partial:
        partial.write_bytes(encoded.tobytes())


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write at `path` (disk full, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error

"""Still images: read upright as RGB, list a folder in natural order, write whole or not at all.

Pillow reads them, since it applies the EXIF orientation to every format that can carry one and
knows the odd modes (16 bits, CMYK, palettes).
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.files import atomic_path, open_input, read_input

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Whatever a file is called, Pillow knows it by its content: of its many formats some run other
# programs (EPS starts Ghostscript), so that it is given a list. JPEG includes what cameras write
# into .jpg files that hold several pictures.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
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
_JPEG_QUALITY: Final = 95


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read one image, upright by its EXIF orientation, as RGB.

    Transparent pixels show white. 16-bit and float images are scaled to 8 bits. The first page
    of a file with several is read.

    Raises:
        UserError: the file is missing, empty, no image, damaged, or unreasonably large.
    """
    content = read_input(path, _LARGEST_IMAGE)
    return decode_image(content, name=str(path))


def decode_image(content: bytes, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the bytes of an image file as `read_image` does; `name` is for the error message."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            return _to_rgb(ImageOps.exif_transpose(picture))
    except _DAMAGE as error:
        reason = "the file is empty" if not content else "it is no image, damaged or too large"
        raise UserError(f"cannot read the image '{name}': {reason}") from error


def _to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
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
    """A still image whose header alone is read, of the formats that `read_image` reads.

    Raises:
        UserError: the file is missing or no image, or what is asked of it is damaged.
    """
    try:
        with open_input(path) as file, Image.open(file, formats=_FORMATS) as picture:
            yield picture
    except _DAMAGE as error:
        raise UserError(f"cannot read the image '{path}': it is no image or damaged") from error


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as `read_image` would give it; None if it is no image."""
    try:
        with open_picture(path) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) in _LYING
            return picture.size[::-1] if turned else picture.size
    except UserError:
        return None


class ImageSizes(NamedTuple):
    """Width and height of an image file."""

    upright: tuple[int, int]
    """As its EXIF data asks for."""
    stored: tuple[int, int]
    """As its pixels are stored, which annotations count in."""


def image_sizes(path: Path) -> ImageSizes | None:
    """Read from the header; None if it is no image."""
    upright = image_size(path)
    if upright is None:
        return None
    with open_picture(path) as picture:
        return ImageSizes(upright, picture.size)


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
    encoded = cv2.imencode(
        suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )[1]
    with writable(path), atomic_path(path) as partial:
        partial.write_bytes(encoded.tobytes())


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write at `path` (disk full, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error

"""Reading still images upright as RGB, listing those of a folder, and writing them atomically.

Images are read by Pillow, which supports EXIF orientation in all formats, and modes such as 16
bits, CMYK and palettes.
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
# Pillow detects the format by the content, and some of its formats start other programs (EPS runs
# Ghostscript), so only these are allowed. JPEG includes the multi-picture files of cameras.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")
_ANIMATED: Final = ("WEBP", "PNG", "AVIF")
"""Formats in which several pictures are the frames of an animation, not separate photographs."""
_LARGEST_IMAGE: Final = 1 << 30
"""Bytes."""
# Exceptions that Pillow's decoders raise on damaged files.
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
    # ultralytics patches Pillow to import a HEIC decoder for unreadable files.
    ImportError,
)
_ORIENTATION: Final = 0x0112  # the EXIF tag
_LYING: Final = (5, 6, 7, 8)  # orientations that swap width and height
_MOST_PIXELS: Final = 1 << 28
"""Largest size of an image file; Pillow needs four bytes per pixel."""
_MOST_AT_ONCE: Final = 100_000_000
"""Number of pixels above which a JPEG file is read at 1/2, 1/4 or 1/8 of its size."""
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

Image.MAX_IMAGE_PIXELS = None  # replaced by `_require_size`, because Pillow's limit is lower
# Pillow warns of damaged metadata on the terminal, and then continues.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
_JPEG_QUALITY: Final = 95


@cache
def _formats() -> tuple[str, ...]:
    """The allowed formats; registers the plug-in for HEIF, the format of iPhones."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    return _FORMATS


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read one image, upright by its EXIF orientation, as RGB.

    Transparent pixels become white. 16-bit and float images are scaled to 8 bits. Of a file with
    several pages, the first one is read. JPEG files of over 100 megapixels are read reduced, see
    `ImageSizes`.

    Raises:
        UserError: the file is missing, empty, damaged, too large, or not an image.
    """
    content = read_input(path, _LARGEST_IMAGE)
    return decode_image(content, name=str(path))


def decode_image(
    content: bytes, name: str, *, as_stored: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        name: name of the file for the error message.
        as_stored: do not turn the image upright or reduce it.

    Raises:
        UserError: the bytes are not an image, are damaged, or the image is too large.
    """
    try:
        with _opened(content, name) as picture:
            if not as_stored:
                _reduce(picture)
            picture.load()  # turns TIFF images upright
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
"""Functions that turn an image upright, by its EXIF orientation."""


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
    """A PNG file without texts and colour profile, because Pillow refuses images with long ones."""
    if not content.startswith(_PNG_SIGNATURE):
        return content
    kept, start = [content[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE)
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        end = start + length + 12  # with length, name and checksum
        if content[start + 4 : start + 8] not in _PNG_METADATA:
            kept.append(content[start:end])
        start = end
    return b"".join(kept)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if it cannot be read."""
    if picture.format == "PNG":
        picture.load()  # EXIF data may be stored after the pixels
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _reduction(picture: Image.Image) -> int:
    """Factor by which a file is reduced along each side when it is read."""
    width, height = picture.size
    factors = (1, 2, 4, 8) if picture.format in ("JPEG", "MPO") else (1,)
    fitting = (factor for factor in factors if width * height <= _MOST_AT_ONCE * factor**2)
    return next(fitting, factors[-1])


def _reduce(picture: Image.Image) -> None:
    """Let the decoder reduce the image by `_reduction`, which needs less memory."""
    factor = _reduction(picture)
    if factor > 1:
        picture.draft(picture.mode, (picture.width // factor, picture.height // factor))


def to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Convert a picture of any mode to RGB as `read_image` does, without turning it upright."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return cv2.cvtColor(_to_8_bits(np.asarray(picture)), cv2.COLOR_GRAY2RGB)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def _to_8_bits(values: Shaped[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Scale grey values to bytes: integers from 0..65535, floats from 0..1 (or 0..65535)."""
    full_scale = 1.0 if values.dtype.kind == "f" and np.nanmax(values) <= 1 else 65535.0
    scaled = np.nan_to_num(values.astype(np.float32)) * (255 / full_scale)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open an image file of the formats of `read_image` without decoding its pixels.

    Raises:
        UserError: the file is missing, damaged, too large, or not an image; also for damage that
            appears in the block.
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
    """Whether the beginning of a file is that of an image; its name does not matter."""
    try:
        with open_picture(path):
            return True
    except UserError:
        return False


def is_animated(path: Path) -> bool:
    """Whether an image file contains the frames of an animation."""
    with open_picture(path) as picture:
        return picture.format in _ANIMATED and getattr(picture, "is_animated", False)


class ImageSizes(NamedTuple):
    """Width and height of an image file."""

    upright: tuple[int, int]
    """Size of the result of `read_image`, after EXIF orientation and reduction."""
    stored: tuple[int, int]
    """Size of the stored pixels, to which annotations refer."""
    reduction: int
    """Stored over upright size, along each side."""
    is_turned: bool
    """Whether the EXIF orientation rotates or mirrors the image."""


def image_sizes(path: Path) -> ImageSizes | None:
    """Sizes of an image file, without decoding it if its format allows this; None if it is none."""
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
    """Width and height of the result of `read_image`; None if the file is not an image."""
    sizes = image_sizes(path)
    return None if sizes is None else sizes.upright


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in natural order ("frame2" before "frame10"), without hidden files."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=natural_key)


def kinds_of(paths: Collection[Path]) -> str:
    """Number of paths of each kind, as in "3 .mp4, 1 .txt, 1 folder"."""
    kinds = Counter(
        ("folder" if path.is_dir() else path.suffix.lower() or "without a suffix") for path in paths
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key by name in which numbers are compared by value."""
    pieces = re.findall(r"\d+|\D+", path.name.lower())
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces), path.name


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an RGB image as .jpg, .jpeg or .png; an existing file is replaced.

    Raises:
        UserError: the suffix is none of these, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"cannot write the image '{path}': name it .jpg or .png")
    # OpenCV warns of options of another format.
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    with writable(path), atomic_path(path) as partial:
        partial.write_bytes(encoded.tobytes())


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` (disk full, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error

"""Checks of the images that a HumanData file names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Int

from datasets.humandata.finding import Finding, OpenedFile, on_rows
from datasets.humandata.layout import is_list
from utils.files import is_below
from utils.image import image_size, open_picture
from utils.progress import with_progress

_SEED: Final = 0


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


def images(file: OpenedFile, folder: Path, sample: int | None) -> Iterator[Finding]:
    """Images are there, can be opened, and have the stated size; `sample`: of so many alone.

    Only their headers are read.
    """
    names = file.get("image_path")
    if not is_list(names) or len(names) != file.length:
        return
    different, image_of_row = np.unique(np.asarray(names, str), return_inverse=True)
    chosen = np.arange(len(different))
    if sample is not None and sample < len(different):
        generator = np.random.default_rng(_SEED)
        chosen = np.sort(generator.choice(len(different), sample, replace=False))
        yield Finding("info", "image_path", f"{sample} of {len(different)} images were looked at")
    outside, missing, damaged, turned = (np.zeros(len(different), bool) for _ in range(4))
    sizes = np.zeros((len(different), 2))
    for i in with_progress(chosen.tolist(), len(chosen), "images"):
        path = folder / different[i]
        if not is_below(different[i]):
            outside[i] = True
            continue
        if not path.is_file():
            missing[i] = True
            continue
        found = image_sizes(path)
        if found is None:
            damaged[i] = True
            continue
        turned[i], sizes[i] = found.upright != found.stored, found.stored
    for marked, what, advice in (
        (
            outside,
            "not within the images",
            "strip what these paths begin with",
        ),
        (missing, "no such image", f"looked for in {folder}; choose another --images, or take out"),
        (damaged, "no image, or damaged", "get the files again, or take these rows out"),
    ):
        yield from on_rows("error", "image_path", marked[image_of_row], what, advice)
    advice = "boxes and keypoints are to count pixels as they are stored, before the turn"
    what = "is turned by its EXIF data"
    yield from on_rows("warning", "image_path", turned[image_of_row], what, advice)
    yield from _sizes(file, sizes[image_of_row].astype(int))


def _sizes(file: OpenedFile, real: Int[np.ndarray, "N 2"]) -> Iterator[Finding]:
    """The sizes that meta states are those of the images."""
    stated = file.image_size
    known = (stated > 0).all(axis=1) & (real > 0).all(axis=1)
    wrong = known & (stated != real).any(axis=1)
    swapped = wrong & (stated == real[:, ::-1]).all(axis=1)
    advice = "exchange meta.width and meta.height"
    yield from on_rows("error", "meta.height", swapped, "width and height exchanged", advice)
    advice = "boxes and keypoints may belong to images of another size"
    yield from on_rows("error", "meta.height", wrong & ~swapped, "not the image's size", advice)


def stated_sizes(file: OpenedFile) -> Iterator[Finding]:
    """Sizes of images are stated."""
    unknown = np.logical_or.reduce(file.image_size <= 0, axis=1)
    advice = "the published code needs it, unless its class knows the size of all images"
    yield from on_rows("warning", "meta.height", unknown, "size of the image unknown", advice)

"""Person boxes: (x, y, width, height) in image pixels."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32


class Box(NamedTuple):
    """Left, top, width and height in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def scaled_boxes(boxes: Float[np.ndarray, "N 4"], scale: float) -> Float[np.ndarray, "N 4"]:
    """Boxes made larger or smaller about their centres."""
    size = boxes[:, 2:] * scale
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - size) / 2, size], axis=1)


def clip_box(box: Box, image_width: int, image_height: int) -> Box | None:
    """The part of `box` inside the image, from first to last pixel; None if nothing is left.

    The last pixel belongs to the box, so a whole-image box comes back one pixel smaller, as in
    the published code, whose crops depend on it.
    """
    if not all(map(math.isfinite, box)):
        return None
    left, top = max(0.0, box.x), max(0.0, box.y)
    right = min(image_width - 1.0, left + max(0.0, box.width - 1))
    bottom = min(image_height - 1.0, top + max(0.0, box.height - 1))
    if box.width * box.height <= 0 or right <= left or bottom <= top:
        return None
    return Box(left, top, right - left, bottom - top)


def have_area(
    boxes: Float32[np.ndarray, "N 4"], image_size: Float32[np.ndarray, "N 2"]
) -> Bool[np.ndarray, " N"]:
    """Which boxes have an area inside their image, as `clip_box` decides it.

    An image of unknown size (0) bounds a box only at its left and top.
    """
    last = np.where(image_size > 0, image_size - 1, np.inf)
    with np.errstate(invalid="ignore"):
        start = np.maximum(0, boxes[:, :2])
        end = np.minimum(last, start + np.maximum(0, boxes[:, 2:] - 1))
        positive = boxes[:, 2] * boxes[:, 3] > 0
    return np.isfinite(boxes).all(axis=1) & positive & (end > start).all(axis=1)


def person_box(
    box: Box, image_width: int, image_height: int, *, aspect: float = 384 / 512, ratio: float = 1.25
) -> Box | None:
    """Box that a person's crop is cut from; None if `box` has no area inside the image.

    The box is clipped to the image, its shorter side grows about the centre until
    width / height = `aspect`, and both sides are scaled by `ratio`.
    """
    clipped = clip_box(box, image_width, image_height)
    if clipped is None:
        return None
    center_x, center_y = clipped.center
    width = max(clipped.width, clipped.height * aspect) * ratio
    height = max(clipped.height, clipped.width / aspect) * ratio
    return Box(center_x - width / 2, center_y - height / 2, width, height)


def shared_areas(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Area in square pixels that each of the first boxes has in common with each of the second."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(
        first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:]
    )
    return np.clip(end - start, 0, None).prod(axis=-1)


def intersection_over_union(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Overlap of each of the first boxes with each of the second, 0 (apart) to 1 (equal)."""
    shared = shared_areas(first, second)
    union = first[:, 2:].prod(axis=-1)[:, None] + second[:, 2:].prod(axis=-1)[None] - shared
    return shared / np.maximum(union, 1e-9)


def share_of_smaller(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """How much of the smaller of two boxes lies in the other one, 0 to 1."""
    areas = np.minimum(first[:, 2:].prod(axis=-1)[:, None], second[:, 2:].prod(axis=-1)[None])
    return shared_areas(first, second) / np.maximum(areas, 1e-9)

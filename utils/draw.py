"""Points and skeletons drawn over an image, sized to it.

Pixel coordinates count from the centre of the top left pixel. Points that are not finite are left
out. Every function returns a new image.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Colour = tuple[int, int, int]

# Told apart also by people who see few colours (after Okabe and Ito, "Color Universal Design").
PERSON_COLOURS: Final[tuple[Colour, ...]] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 178, 130),  # green
    (240, 128, 185),  # pink
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (70, 110, 220),  # blue
    (170, 170, 170),  # grey
)
_SUBPIXEL_BITS: Final = 4
_LARGEST_PX: Final = 20_000
"""Drawing far outside the image costs time and overflows; no image has that many pixels."""


def person_colour(person_id: int) -> Colour:
    """The colour of a person, the same in every frame."""
    return PERSON_COLOURS[person_id % len(PERSON_COLOURS)]


def draw_vertices(
    image: UInt8[np.ndarray, "H W 3"], vertices_px: Float[np.ndarray, "V 2"], colour: Colour
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw points such as projected vertices, one pixel each (2x2 on images above 1000 pixels)."""
    result = image.copy()
    height, width = image.shape[:2]
    inside = ((vertices_px >= -0.5) & (vertices_px < (width - 0.5, height - 0.5))).all(axis=1)
    columns, rows = np.rint(vertices_px[inside]).astype(int).T
    for right in range(_thickness(image)):
        for down in range(_thickness(image)):
            result[np.minimum(rows + down, height - 1), np.minimum(columns + right, width - 1)] = (
                colour
            )
    return result


def draw_skeleton(
    image: UInt8[np.ndarray, "H W 3"],
    joints_px: Float[np.ndarray, "J 2"],
    edges: Sequence[tuple[int, int]],
    colour: Colour,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw bones, given as pairs of joint numbers, and joints as dots."""
    result = image.copy()
    drawable = (np.abs(joints_px) < _LARGEST_PX).all(axis=1)
    centres = np.rint(np.where(drawable[:, None], joints_px, 0) * 2**_SUBPIXEL_BITS).astype(int)
    points: list[list[int]] = centres.tolist()
    thickness = _thickness(image)
    for start, end in edges:
        if drawable[start] and drawable[end]:
            cv2.line(
                *(result, points[start], points[end], colour, thickness),
                *(cv2.LINE_AA, _SUBPIXEL_BITS),
            )
    dot = tuple(round(channel + (255 - channel) * 0.6) for channel in colour)
    for joint in np.flatnonzero(drawable).tolist():
        radius = thickness * 2**_SUBPIXEL_BITS
        cv2.circle(result, points[joint], radius, dot, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    return result


def _thickness(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """Lines of one pixel on small images, two from 1000 pixels on the longer side, and so on."""
    return 1 + max(image.shape[:2]) // 1000

"""Furniture of the hall: every object is made of boxes with a material.

The world has y up, x to the right and z towards the camera; the floor is at y = 0. The windows are
on the left.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float32

from synthetic.backgrounds import bundled_photographs, read_photograph
from synthetic.motion import Block
from synthetic.skeleton import Rotation, Vector, turn
from synthetic.textures import Material, plain, print_of, rug, wood

Rng = np.random.Generator
LEFT_M, RIGHT_M, BACK_M, FRONT_M, HIGH_M = -3.7, 4.0, -8.6, 1.6, 3.2
ROOM_M: Final = ((LEFT_M - 0.3, RIGHT_M), (0.0, HIGH_M), (BACK_M, FRONT_M))
"""Extent of the room along each axis, with the depth of the windows."""
_PICTURES: Final = (
    ("flower.jpg", -1.75, (1.05, 0.70)), ("rocket.jpg", -0.35, (1.0, 0.67)),
    ("china.jpg", 0.98, (1.05, 0.70)),
)  # fmt: skip
"""File, x and (width, height) of the pictures on the back wall, metres."""


class Solid(NamedTuple):
    """A box in the world, metres."""

    middle: Vector
    half: Float32[np.ndarray, "3"]
    rotation: Float32[np.ndarray, "3 3"]
    material: Material


def box(
    middle: Sequence[float] | np.ndarray,
    size: Sequence[float],
    material: Material,
    rotation: Rotation | None = None,
) -> Solid:
    """A box; `middle` is the centre of its lower face, metres."""
    half = np.array(size, np.float32) / 2
    frame = np.eye(3) if rotation is None else rotation
    centre = np.array(middle, np.float32) + (frame @ (0, half[1], 0)).astype(np.float32)
    return Solid(centre.astype(np.float32), half, frame.astype(np.float32), material)


def furnish(rng: Rng, blocks: Sequence[Block]) -> list[Solid]:
    """Floor, walls with windows on the left, and furniture."""
    width, depth = RIGHT_M - LEFT_M, FRONT_M - BACK_M
    x, z = (LEFT_M + RIGHT_M) / 2, (FRONT_M + BACK_M) / 2
    white, cream = plain(0.80, 0.79, 0.76), plain(0.78, 0.73, 0.64)
    green, dark = plain(0.36, 0.44, 0.38), plain(0.09, 0.08, 0.08)
    oak = wood(0.75, 0.09)
    solids = [
        box((x, -0.2, z), (width, 0.2, depth), wood(1.0, 0.15, across=True)),
        box((0.2, 0.0, -4.6), (3.4, 0.012, 2.3), rug),
        box((x, HIGH_M, z), (width, 0.2, depth), white),
        box((x, 0, BACK_M - 0.1), (width, HIGH_M, 0.2), green),
        box((x, 0, FRONT_M + 0.1), (width, HIGH_M, 0.2), cream),
        box((RIGHT_M + 0.1, 0, z), (0.2, HIGH_M, depth), cream),
        box((x, 0, BACK_M + 0.01), (width, 0.12, 0.03), white),
        box((RIGHT_M - 0.01, 0, z), (0.03, 0.12, depth), white),
        box((LEFT_M - 0.15, 0, z), (0.3, 0.55, depth), cream),
        box((LEFT_M - 0.15, 2.75, z), (0.3, 0.45, depth), cream),
    ]
    solids += _windows(white, cream)
    solids += _hung_pictures(dark)
    # An entrance, a bookcase, a low cupboard with a plant, and a table in front of them.
    solids.append(box((2.25, 0, BACK_M + 0.03), (1.06, 2.16, 0.06), white))
    solids.append(box((2.25, 0, BACK_M + 0.05), (0.90, 2.06, 0.06), wood(0.95, 0.45)))
    solids.append(box((2.60, 1.0, BACK_M + 0.12), (0.12, 0.02, 0.05), dark))
    solids += _bookcase(rng, oak)
    solids.append(box((-2.9, 0, BACK_M + 0.3), (0.9, 0.72, 0.45), oak))
    solids += _plant(rng, (-2.95, 0.72, BACK_M + 0.3), 0.8)
    solids += _plant(rng, (2.15, 0.0, -4.75), 1.2)
    for block in blocks:
        under = (block.middle[0], 0, block.middle[1])
        if block.is_seat:
            solids += _chair(block)
        else:
            solids.append(box(under, block.size, wood(0.9, 0.12), turn("y", block.yaw_deg)))
    solids += _table(2.15, -2.6, oak, dark)
    return solids


def _windows(frame: Material, wall: Material) -> list[Solid]:
    solids = []
    pane, pier = 1.75, 0.45
    for number in range(5):
        at = BACK_M + 0.25 + number * (pane + pier)
        solids.append(box((LEFT_M - 0.15, 0.55, at), (0.3, 2.2, pier + 0.1), wall))
        if number < 4:
            middle = at + (pane + pier) / 2
            bars = [middle + share * (pane - 0.1) for share in (-0.5, 0.0, 0.5)]
            solids += [box((LEFT_M - 0.2, 0.55, bar), (0.06, 2.2, 0.05), frame) for bar in bars]
            solids.append(box((LEFT_M - 0.2, 1.95, middle), (0.06, 0.05, pane), frame))
            solids.append(box((LEFT_M + 0.02, 0.53, middle), (0.3, 0.04, pane + 0.1), frame))
    return solids


def _hung_pictures(frame: Material) -> list[Solid]:
    solids = []
    photographs = {path.name: path for path in bundled_photographs()}
    for name, at, size in _PICTURES:
        photograph = read_photograph(photographs[name])
        low = 1.66 - size[1] / 2
        edge = (size[0] + 0.16, size[1] + 0.16, 0.04)
        solids.append(box((at, low - 0.08, BACK_M + 0.02), edge, frame))
        solids.append(box((at, low, BACK_M + 0.04), (*size, 0.02), print_of(photograph, size)))
    return solids


def _bookcase(rng: Rng, oak: Material) -> list[Solid]:
    case = RIGHT_M - 0.17
    solids = [box((case, 0, at), (0.34, 2.05, 0.03), oak) for at in (-7.4, -5.4)]
    for level in range(6):
        solids.append(box((case, 0.05 + 0.39 * level, -6.4), (0.34, 0.03, 2.0), oak))
        along = -7.35
        while level < 5 and along < -5.5:
            thick, tall = rng.uniform(0.03, 0.075), rng.uniform(0.2, 0.32)
            if rng.random() < 0.82:
                colour = plain(*rng.uniform(0.08, 0.6, 3) * (1.0, 0.85, 0.75))
                book = (rng.uniform(0.18, 0.24), tall, 1.8 * thick)
                middle = (case + 0.03, 0.08 + 0.39 * level, along + 0.9 * thick)
                solids.append(box(middle, book, colour))
            along += 1.8 * thick + 0.003
    return solids


def _plant(rng: Rng, where: tuple[float, float, float], size: float) -> list[Solid]:
    x, y, z = where
    pot = 0.28 * size
    solids = [box(where, (pot, pot, pot), plain(0.62, 0.36, 0.26), turn("y", 20))]
    for number in range(34):
        frame = turn("y", number * 137.5) @ turn("x", rng.uniform(5, 65))
        length, place = size * rng.uniform(0.2, 0.3), np.array([x, y + pot, z])
        green = plain(*(np.array([0.10, 0.25, 0.07]) * rng.uniform(0.5, 1.5)))
        for width in (0.012, 0.05, 0.055, 0.035):
            solids.append(box(place, (width * size, length, 0.005), green, frame))
            place = place + frame[:, 1] * length
            frame, length = frame @ turn("x", rng.uniform(8, 24)), length * 0.8
    return solids


def _chair(block: Block) -> list[Solid]:
    """A wooden chair whose seat is the block."""
    rotation, (width, high, deep) = turn("y", block.yaw_deg), block.size
    floor = np.array([block.middle[0], 0, block.middle[1]])
    made, cloth = wood(0.6, 0.3), plain(0.16, 0.25, 0.36)
    back, front = -deep / 2 + 0.02, deep / 2 - 0.04
    parts = [((0.0, high - 0.05, 0.0), (width, 0.05, deep), cloth)]
    parts += [((0, high + rise, back), (width, 0.09, 0.02), made) for rise in (0.2, 0.36)]
    for x in (0.025 - width / 2, width / 2 - 0.025):
        parts.append(((x, 0, back), (0.04, high + 0.46, 0.04), made))
        parts.append(((x, 0, front), (0.04, high - 0.05, 0.04), made))
    return [box(floor + rotation @ at, size, material, rotation) for at, size, material in parts]


def _table(x: float, z: float, top: Material, leg: Material) -> list[Solid]:
    """A table with two books and a cup."""
    legs = [(x + 0.68 * a, 0, z + 0.29 * b) for a in (-1, 1) for b in (-1, 1)]
    red, blue, white = plain(0.55, 0.20, 0.16), plain(0.15, 0.28, 0.36), plain(0.82, 0.80, 0.76)
    return [
        box((x, 0.70, z), (1.5, 0.04, 0.7), top),
        *(box(at, (0.05, 0.7, 0.05), leg) for at in legs),
        box((x - 0.35, 0.74, z + 0.05), (0.24, 0.03, 0.32), red, turn("y", 25)),
        box((x - 0.33, 0.77, z + 0.05), (0.2, 0.025, 0.28), blue, turn("y", 12)),
        box((x + 0.12, 0.74, z + 0.1), (0.075, 0.1, 0.075), white, turn("y", 40)),
    ]

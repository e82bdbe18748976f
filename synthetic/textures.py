"""Small square textures that repeat (cloth, walls, floors, objects): RGB reflectance, 0 to 1."""

import colorsys
from collections.abc import Callable
from functools import cache
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32

SIDE: Final = 64
"""Side of a texture, pixels; a power of two."""
Texture = Float32[np.ndarray, "64 64 3"]
Colour = Float[np.ndarray, "3"]
Rng = np.random.Generator
Vectors = Float[np.ndarray, "N 3"]
Material = Callable[[Vectors], Vectors]
"""Function from points (in the frame of a box, metres from its lowest corner) to RGB
reflectance."""

_NEUTRALS: Final = (
    (0.05, 0.05, 0.06), (0.12, 0.12, 0.14), (0.30, 0.30, 0.31), (0.62, 0.62, 0.62),
    (0.92, 0.92, 0.90), (0.10, 0.14, 0.26), (0.22, 0.30, 0.46), (0.36, 0.45, 0.60),
    (0.70, 0.62, 0.48), (0.45, 0.35, 0.24), (0.30, 0.32, 0.20), (0.42, 0.10, 0.12),
)  # fmt: skip


def draw_colour(rng: Rng, neutral: float = 0.5) -> Colour:
    """A random colour, with probability `neutral` a common colour of clothes and furniture."""
    if rng.random() < neutral:
        base = np.array(_NEUTRALS[rng.integers(len(_NEUTRALS))])
        return np.clip(base * rng.uniform(0.8, 1.2) + rng.normal(0, 0.02, 3), 0.02, 0.97)
    saturation, value = rng.beta(1.6, 2.0), rng.uniform(0.2, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


@cache
def noise_bank() -> Float32[np.ndarray, "8 64 64"]:
    """Seamless noise textures of mean 0 and standard deviation 1, from coarse to fine."""
    rng = np.random.default_rng(0)
    bank: list[np.ndarray] = []
    for sigma in (14.0, 8.0, 5.0, 3.0, 2.0, 1.2, 0.7, 0.0):
        noise: np.ndarray = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
        if sigma:
            tiled = np.tile(noise, (3, 3))
            noise = cv2.GaussianBlur(tiled, (0, 0), sigma)[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
        bank.append((noise - noise.mean()) / noise.std())
    return np.array(bank, np.float32)


def draw_noise(rng: Rng, coarse: int = 0, fine: int = 8) -> np.ndarray:
    """A noise texture from the range `coarse` to `fine` of the bank, transposed or flipped."""
    noise = noise_bank()[rng.integers(coarse, fine)]
    return noise.T if rng.random() < 0.5 else noise[::-1]


_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE


def _waves(rng: Rng, coordinate: np.ndarray) -> np.ndarray:
    """Stripes along a coordinate, 0 or 1 with soft edges."""
    count, share = int(rng.integers(1, 9)), rng.uniform(0.2, 0.8)
    phase = (coordinate * count + rng.random()) % 1
    width = 0.04 * count
    return np.clip(0.5 + (share - np.abs(2 * phase - 1)) / width, 0, 1)


def _stripes(rng: Rng) -> np.ndarray:
    return _waves(rng, (_X, _Y, _X + _Y)[rng.choice(3, p=(0.25, 0.6, 0.15))])


def _checks(rng: Rng) -> np.ndarray:
    return (_waves(rng, _X) + _waves(rng, _Y)) / 2


def _dots(rng: Rng) -> np.ndarray:
    count, radius = int(rng.integers(2, 8)), rng.uniform(0.15, 0.42)
    u, v = (_X * count) % 1 - 0.5, (_Y * count) % 1 - 0.5
    return np.clip(0.5 + (radius - np.hypot(u, v)) * SIDE / count / 1.5, 0, 1)


def _blotches(rng: Rng) -> np.ndarray:
    return np.clip(0.5 + draw_noise(rng, 1, 6) * rng.uniform(0.5, 4) + rng.normal(0, 0.3), 0, 1)


_PATTERNS: Final[dict[Callable[[Rng], np.ndarray], int]] = {
    _stripes: 100,
    _checks: 64,
    _dots: 40,
    _blotches: 60,
}
"""Generators of patterns, and their numbers in the bank."""


@cache
def pattern_bank() -> Float32[np.ndarray, "264 64 64"]:
    """Patterns: the weight of a second colour, 0 to 1."""
    rng = np.random.default_rng(1)
    bank = [pattern(rng) for pattern, count in _PATTERNS.items() for _ in range(count)]
    return np.array(bank, np.float32)


def draw_texture(rng: Rng, colour: Colour, patterned: float) -> Texture:
    """A plain texture with some noise, or with probability `patterned` one with a pattern."""
    base = colour.astype(np.float32)
    grain = 1 + noise_bank()[rng.integers(2, 8)] * np.float32(rng.uniform(0.0, 0.08))
    texture = grain[..., None] * base
    if rng.random() < patterned:
        for _ in range(1 if rng.random() < 0.75 else 2):
            pattern = pattern_bank()[rng.integers(len(pattern_bank()))]
            other = draw_colour(rng)
            if rng.random() < 0.5:
                other = colour * rng.uniform(0.4, 1.8)
            texture += pattern[..., None] * (other.astype(np.float32) - base)
        np.clip(texture, 0.01, 1, out=texture)
    return texture


def plain(red: float, green: float, blue: float) -> Material:
    """One colour with slight noise."""
    colour = np.array([red, green, blue], np.float32)
    return lambda place: colour * (1 + 0.03 * _noise(place, 1.3, 2))


def _noise(place: Vectors, per_m: float, number: int) -> Float[np.ndarray, "N 1"]:
    u = (place[:, 0] + 0.37 * place[:, 1]) * per_m * SIDE / 4
    v = (place[:, 2] + 0.61 * place[:, 1]) * per_m * SIDE / 4
    cells = np.floor(np.stack([u, v])).astype(np.int64) % SIDE
    return noise_bank()[number, cells[1], cells[0]][:, None]


def wood(tone: float, board_m: float, *, across: bool = False) -> Material:
    """Wooden boards along x (with `across`, along z), with grain and varying shades."""
    base = np.array([0.56, 0.37, 0.21], np.float32) * tone

    def colour(place: Vectors) -> Vectors:
        x, z = place[:, 2 if across else 0], place[:, 0 if across else 2]
        board = np.floor(z / board_m)
        piece = np.floor((x + board * 0.77) / 1.7)
        shade = np.sin(board * 12.9898 + piece * 78.233) * 43758.5453
        shade = 0.82 + 0.3 * (shade - np.floor(shade))
        grain = np.stack([x * 0.35 + board * 3.1, place[:, 1], z * 3.0], axis=1)
        gap = np.minimum(z / board_m % 1, 1 - z / board_m % 1) * board_m < 0.003
        shade = shade * (1 - 0.45 * gap)
        return base * (shade[:, None] + 0.07 * _noise(grain, 2.0, 4) + 0.04 * _noise(grain, 5.0, 6))

    return colour


def rug(place: Vectors) -> Vectors:
    """A woven rug with a border."""
    ground = np.array([0.50, 0.16, 0.12], np.float32)
    light, blue = np.array([0.72, 0.62, 0.46]), np.array([0.13, 0.19, 0.31])
    size = place.max(axis=0)
    edge = np.minimum(place, size - place)[:, [0, 2]].min(axis=1)
    lozenge = np.abs(place[:, 0] * 2.2 % 1 - 0.5) + np.abs(place[:, 2] * 2.2 % 1 - 0.5)
    colour = np.where((np.abs(lozenge - 0.36) < 0.06)[:, None], light, ground)
    colour = np.where((lozenge < 0.17)[:, None], blue, colour)
    colour = np.where((edge < 0.2)[:, None], blue, colour)
    colour = np.where(((edge > 0.11) & (edge < 0.16))[:, None], light, colour)
    return (colour * (1 + 0.09 * _noise(place, 7.0, 7))).astype(np.float32)


def print_of(photograph: np.ndarray, size: tuple[float, float]) -> Material:
    """A photograph on the side that faces z."""

    def colour(place: Vectors) -> Vectors:
        height, width = photograph.shape[:2]
        column = np.clip(place[:, 0] / size[0] * width, 0, width - 1).astype(int)
        row = np.clip((1 - place[:, 1] / size[1]) * height, 0, height - 1).astype(int)
        return (photograph[row, column] / 255.0).astype(np.float32) ** 1.6 * 0.9

    return colour

"""Small square textures that repeat: cloth, walls, floors, things. RGB reflectance, 0 to 1."""

import colorsys
from collections.abc import Callable
from functools import cache
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32

SIDE: Final = 64
"""Pixels of a texture's side, a power of two."""
Texture = Float32[np.ndarray, "64 64 3"]
Colour = Float[np.ndarray, "3"]
Rng = np.random.Generator

_NEUTRALS: Final = (
    (0.05, 0.05, 0.06), (0.12, 0.12, 0.14), (0.30, 0.30, 0.31), (0.62, 0.62, 0.62),
    (0.92, 0.92, 0.90), (0.10, 0.14, 0.26), (0.22, 0.30, 0.46), (0.36, 0.45, 0.60),
    (0.70, 0.62, 0.48), (0.45, 0.35, 0.24), (0.30, 0.32, 0.20), (0.42, 0.10, 0.12),
)  # fmt: skip


def draw_colour(rng: Rng, neutral: float = 0.5) -> Colour:
    """A colour as of everyday things: with probability `neutral` one of the common ones."""
    if rng.random() < neutral:
        base = np.array(_NEUTRALS[rng.integers(len(_NEUTRALS))])
        return np.clip(base * rng.uniform(0.8, 1.2) + rng.normal(0, 0.02, 3), 0.02, 0.97)
    saturation, value = rng.beta(1.6, 2.0), rng.uniform(0.2, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


@cache
def noise_bank() -> Float32[np.ndarray, "8 64 64"]:
    """Noises of mean 0 and spread 1, coarse to fine, that repeat without a seam."""
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
    """One noise of the bank, turned or flipped."""
    noise = noise_bank()[rng.integers(coarse, fine)]
    return noise.T if rng.random() < 0.5 else noise[::-1]


_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE


def _waves(rng: Rng, coordinate: np.ndarray) -> np.ndarray:
    """Parallel stripes of one width, 0 or 1 with soft borders."""
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
"""And how many of each there are."""


@cache
def pattern_bank() -> Float32[np.ndarray, "264 64 64"]:
    """Shares of a second colour, 0 to 1."""
    rng = np.random.default_rng(1)
    bank = [pattern(rng) for pattern, count in _PATTERNS.items() for _ in range(count)]
    return np.array(bank, np.float32)


def draw_texture(rng: Rng, colour: Colour, patterned: float) -> Texture:
    """Plain with some unevenness, or (with probability `patterned`) with a pattern."""
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

"""From a drawn picture to one as a camera takes it: soft edges, blur, exposure, noise, JPEG."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from datasets.synthetic.textures import SIDE, noise_bank

_STEPS: Final = 180
"""Of light up to white; what is left of a byte is for brighter light."""


def soften_edges(
    image: Float32[np.ndarray, "H W 3"], owner: Int32[np.ndarray, "H W"]
) -> Float32[np.ndarray, "H W 3"]:
    """Blur over a pixel where one thing ends and another begins."""
    labels = (owner + 1).astype(np.uint8)
    edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    left, top, width, height = cv2.boundingRect(edge)
    if width and height:
        part = slice(top, top + height), slice(left, left + width)
        smooth = cv2.GaussianBlur(image[part], (3, 3), 0.7)
        np.copyto(image[part], smooth, where=edge[part][..., None] > 0)
    return image


def take(
    rng: np.random.Generator, image: Float32[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """RGB bytes of an RGB picture of 0 to 1, with what cameras do to it."""
    if rng.random() < 0.35:
        sigma = rng.uniform(0.35, 0.0045 * min(image.shape[0], 400) + 0.35)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.06:
        image = _motion_blur(rng, image)
    taken = develop(image, draw_response(rng))
    strength = rng.gamma(1.2, 0.009)
    return taken if strength < 0.004 else add_noise(rng, taken, 255 * strength)


def develop(
    image: Float32[np.ndarray, "H W 3"], response: UInt8[np.ndarray, "256 1 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Bytes of a picture, by the response of a camera."""
    return cv2.LUT(cv2.convertScaleAbs(np.maximum(image, 0), alpha=_STEPS), response)


def draw_response(rng: np.random.Generator) -> UInt8[np.ndarray, "256 1 3"]:
    """What becomes of light: exposure, white balance, a shoulder for what is bright, contrast."""
    light = np.arange(256)[:, None, None] / _STEPS
    light = light * np.clip(rng.normal(1, 0.045, 3), 0.8, 1.2) * np.exp(rng.normal(0.02, 0.22))
    if rng.random() < 0.7:
        light = np.minimum(light, 0.8 + (light - 0.8) * 0.35)
    if rng.random() < 0.5:
        light = (light - 0.45) * rng.uniform(0.75, 1.2) + 0.45
    return np.clip(255 * light, 0, 255).astype(np.uint8)


def add_noise(
    rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"], spread: float
) -> UInt8[np.ndarray, "H W 3"]:
    """With fine noise from the bank, shifted so that no two pictures have the same."""
    height, width = image.shape[:2]
    coloured = rng.random() < 0.6
    channels = []
    for _ in range(3 if coloured else 1):
        tile = np.roll(noise_bank()[rng.integers(6, 8)], rng.integers(0, SIDE, 2), axis=(0, 1))
        channels.append(np.clip(128 + spread * tile, 0, 255).astype(np.uint8))
    tile = np.stack(channels if coloured else channels * 3, axis=2)
    noise = np.tile(tile, (height // SIDE + 1, width // SIDE + 1, 1))[:height, :width]
    return cv2.addWeighted(image, 1, np.ascontiguousarray(noise), 1, -128)


def _motion_blur(
    rng: np.random.Generator, image: Float32[np.ndarray, "H W 3"]
) -> Float32[np.ndarray, "H W 3"]:
    length, angle = rng.uniform(2, 0.02 * image.shape[0] + 3), rng.uniform(0, np.pi)
    side = int(length) | 1
    kernel = np.zeros((side + 2, side + 2), np.float32)
    middle, reach = side // 2 + 1, length / 2
    ends = [
        (round(middle + sign * reach * np.cos(angle)), round(middle + sign * reach * np.sin(angle)))
        for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def encode(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A JPEG of drawn quality."""
    quality = int(rng.integers(72, 97)) if rng.random() < 0.85 else int(rng.integers(35, 72))
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done
    return data.tobytes()

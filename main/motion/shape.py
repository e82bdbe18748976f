"""One shape per person: the betas of all frames, fused by how far each frame can be trusted."""

from typing import Final

import numpy as np
from jaxtyping import Float

_FULL_SIZE_PX: Final = 256
"""Height of a box from which a larger one shows no more: that of the network's input."""
_HUBER: Final = 1.345
_PASSES: Final = 5


def confidence(
    score: Float[np.ndarray, " T"],
    box_xywh: Float[np.ndarray, "T 4"],
    truncation: Float[np.ndarray, " T"],
) -> Float[np.ndarray, " T"]:
    """How far a frame's shape can be trusted: score x size x share of the body in the image.

    Interpolated frames have the score 0, so they are not trusted at all.
    """
    size = np.clip(box_xywh[:, 3] / _FULL_SIZE_PX, 0.05, 1)
    return np.asarray(score * size * (1 - 0.95 * truncation), np.float64)


def fuse_shape(
    betas: Float[np.ndarray, "T C"], weights: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    """The weighted mean that outliers do not move: Huber's, begun at the weighted median.

    Each component is fused by itself. A single row is its own result.
    """
    weights = np.maximum(weights, 1e-9).astype(np.float64)
    values = betas.astype(np.float64)
    centre = _weighted_median(values, weights)
    scale = 1.4826 * _weighted_median(np.abs(values - centre), weights)
    for _ in range(_PASSES):
        distance = np.abs(values - centre) / np.maximum(scale, 1e-9)
        trust = weights[:, None] * np.minimum(1, _HUBER / np.maximum(distance, 1e-9))
        centre = (trust * values).sum(axis=0) / trust.sum(axis=0)
    return centre.astype(betas.dtype)


def _weighted_median(
    values: Float[np.ndarray, "T C"], weights: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    order = np.argsort(values, axis=0)
    cumulated = np.cumsum(weights[order], axis=0)
    middle = (cumulated >= cumulated[-1] / 2).argmax(axis=0)
    columns = np.arange(values.shape[1])
    return values[order[middle, columns], columns]

"""Principal components of posed adults: SMPL-X's betas."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

SHAPE_COMPONENTS: Final = 10
MIRROR_X: Final = np.array([-1.0, 1.0, 1.0])


class ShapeSpace(NamedTuple):
    """Mean and directions (metres for one standard deviation)."""

    mean: Float64[np.ndarray, "N 3"]
    directions: Float64[np.ndarray, "N 3 10"]


def symmetric(
    vertices: Float64[np.ndarray, "n N 3"], mirror: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, "n N 3"]:
    """Average with the mirror image, which makes left and right equal to the last bit."""
    return 0.5 * (vertices + vertices[:, mirror] * MIRROR_X)


def shape_space(
    vertices: Float64[np.ndarray, "n N 3"], mirror: Int64[np.ndarray, " N"], body_count: int
) -> ShapeSpace:
    """Principal components of the first `body_count` vertices; the others follow their scores.

    The scores are eigenvectors of the small (n, n) Gram matrix. Scores of different components
    are uncorrelated and have unit variance, so that a direction is the covariance of vertices and
    score, for the body as for whatever follows it.
    """
    mean = vertices.mean(axis=0)
    deviations = (vertices - mean).reshape(len(vertices), -1)
    body = deviations[:, : 3 * body_count]
    _, eigenvectors = np.linalg.eigh(body @ body.T)
    scores = eigenvectors[:, : -SHAPE_COMPONENTS - 1 : -1] * np.sqrt(len(vertices) - 1)
    directions = (deviations.T @ scores / (len(vertices) - 1)).reshape(*mean.shape, -1)
    directions = np.moveaxis(symmetric(np.moveaxis(directions, -1, 0), mirror), 0, -1)
    return ShapeSpace(mean, directions * _signs(mean[:body_count], directions[:body_count]))


def _signs(
    mean: Float64[np.ndarray, "B 3"], directions: Float64[np.ndarray, "B 3 10"]
) -> Float64[np.ndarray, " 10"]:
    """Signs that make the first component taller and the others wider."""
    lowest, highest = np.argmin(mean[:, 1]), np.argmax(mean[:, 1])
    wider = (directions[:, 0] * np.sign(mean[:, :1])).sum(axis=0)
    wider[0] = directions[highest, 1, 0] - directions[lowest, 1, 0]
    return np.where(wider < 0, -1.0, 1.0)

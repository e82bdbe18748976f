"""Least-squares alignment of point sets: rotation, scale and translation (Umeyama 1991)."""

import torch
from jaxtyping import Float
from torch import Tensor


def align_similarity(
    source: Float[Tensor, "B N 3"], target: Float[Tensor, "B N 3"]
) -> Float[Tensor, "B N 3"]:
    """Each source moved onto its target by the rotation, scale and translation that fit best.

    Both in the same unit and frame, points in the same order; the result has the source's dtype.
    Never mirrors. A source whose points all coincide lands on the target's centroid.

    Raises ValueError where a point is not a finite number.
    """
    moved, wanted = centred(source.double().mT), target.double().mT
    moved = similarity_of_centred(moved, centred(wanted)) @ moved
    return (moved + wanted.mean(2, keepdim=True)).mT.to(source.dtype)


def centred(points: Float[Tensor, "B 3 N"]) -> Float[Tensor, "B 3 N"]:
    """Points relative to their centroid."""
    return points - points.mean(2, keepdim=True)


def similarity_of_centred(
    source: Float[Tensor, "B 3 N"], target: Float[Tensor, "B 3 N"]
) -> Float[Tensor, "B 3 3"]:
    """Scaled rotations that bring each source closest to its target.

    Points are relative to their own centroids, coordinates first, in float64, which automatic
    mixed precision leaves alone.

    Raises ValueError where a point is not a finite number.
    """
    covariance = source @ target.mT
    variance = source.square().sum((1, 2))
    if not (covariance.isfinite().all() and variance.isfinite().all()):
        raise ValueError("points to align must be finite numbers")

    U, singular_values, Vt = torch.linalg.svd(covariance)
    # Where the best fit mirrors, the best rotation turns the weakest axis around.
    signs = torch.ones_like(singular_values)
    signs[:, 2] = torch.linalg.det(U @ Vt).sign()
    rotation = Vt.mT @ (signs[:, :, None] * U.mT)
    # Of a source without extent every scale makes the same point.
    scale = (signs * singular_values).sum(1) / variance.where(variance > 0, 1.0)
    return scale[:, None, None] * rotation

"""Distances between corresponding points after alignment: by one point, or by least squares.

Points are in batches, N points a sample, in one unit and frame and in the same order. Where many
are compared, coordinates come first: sums over points then run along the memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class CentredPoints(NamedTuple):
    """Points about their centroid, where float32 holds what a metre away from it would lose."""

    points: Float[Tensor, "B 3 N"]
    """float32, relative to the centroid."""
    centroid: Float[Tensor, "B 3 1"]
    """float64."""


def centred_in_place(points: Float[Tensor, "B 3 N"]) -> CentredPoints:
    """Takes over the memory of the points. Raises ValueError where one is not a finite number."""
    centroid = points.mean(2, keepdim=True)
    if not centroid.isfinite().all():
        raise ValueError("points to compare must be finite numbers")
    return CentredPoints(points.sub_(centroid).float(), centroid.double())


def rooted_distances(
    predicted: CentredPoints,
    true: CentredPoints,
    roots: tuple[Float[Tensor, "B 3 1"], Float[Tensor, "B 3 1"]],
) -> Float[Tensor, "B N"]:
    """When both are relative to their roots (predicted and true, float64)."""
    offset = (predicted.centroid - roots[0]) - (true.centroid - roots[1])
    return _lengths((predicted.points - true.points).add_(offset.float()))


def aligned_distances(predicted: CentredPoints, true: CentredPoints) -> Float[Tensor, "B N"]:
    """After the similarity that brings the prediction closest to the truth."""
    similarity = similarity_of_centred(predicted.points, true.points)
    return _lengths(torch.baddbmm(true.points, similarity, predicted.points, beta=-1))


def _lengths(vectors: Float[Tensor, "B 3 N"]) -> Float[Tensor, "B N"]:
    x, y, z = vectors.unbind(1)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def align_similarity(
    source: Float[Tensor, "B N 3"], target: Float[Tensor, "B N 3"]
) -> Float[Tensor, "B N 3"]:
    """Each source moved onto its target by the rotation, scale and translation that fit best.

    The result has the source's dtype. Never mirrors. A source whose points all coincide lands on
    the target's centroid.

    Raises ValueError where a point is not a finite number.
    """
    moved, wanted = source.double().mT, target.double().mT
    centroid = wanted.mean(2, keepdim=True)
    moved = moved - moved.mean(2, keepdim=True)
    moved = similarity_of_centred(moved, wanted - centroid) @ moved
    return (moved + centroid).mT.to(source.dtype)


def similarity_of_centred(
    source: Float[Tensor, "B 3 N"], target: Float[Tensor, "B 3 N"]
) -> Float[Tensor, "B 3 3"]:
    """Scaled rotations that bring each source closest to its target (Umeyama 1991).

    Points are relative to their own centroids. Sums over points are in their precision (float32
    needs `exact_products`), what follows is in float64.

    Raises ValueError where a point is not a finite number.
    """
    covariance = (source @ target.mT).double()
    variance = torch.linalg.vector_norm(source, dim=(1, 2)).double().square()
    if not (covariance.isfinite().all() and variance.isfinite().all()):
        raise ValueError("points to align must be finite numbers")

    U, singular_values, Vt = torch.linalg.svd(covariance)
    # Where the best fit mirrors, the best rotation turns the weakest axis around.
    signs = torch.ones_like(singular_values)
    signs[:, 2] = torch.linalg.det(U @ Vt).sign()
    rotation = Vt.mT @ (signs[:, :, None] * U.mT)
    # Of a source without extent every scale makes the same point.
    scale = (signs * singular_values).sum(1) / variance.where(variance > 0, 1.0)
    return (scale[:, None, None] * rotation).to(source.dtype)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Inside, products of float32 matrices are float32's, whatever mixed precision is on."""
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(outside)

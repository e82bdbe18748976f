"""SMPL-X's eyeballs of 546 vertices, made from MakeHuman's of 72."""

from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

_RINGS: Final = 17
_SEGMENTS: Final = 32
EYEBALL_VERTICES: Final = _RINGS * _SEGMENTS + 2
# Shares are multiples of this, so that rows sum to exactly 1 and the frozen file stays small.
_SHARE_STEP: Final = 2.0**-20


def sphere() -> tuple[Float64[np.ndarray, "546 3"], Int64[np.ndarray, "1088 3"]]:
    """Directions and outward faces of a sphere whose first vertex is the pole at +z (the gaze)."""
    polar = np.pi * np.arange(1, _RINGS + 1)[:, None] / (_RINGS + 1)
    azimuth = 2 * np.pi * np.arange(_SEGMENTS) / _SEGMENTS
    x, y = np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth)
    z = np.broadcast_to(np.cos(polar), x.shape)
    rings = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    directions = np.concatenate([[[0, 0, 1]], rings, [[0, 0, -1]]])

    here = np.arange(_SEGMENTS)
    after = (here + 1) % _SEGMENTS
    front = np.stack([np.zeros_like(here), 1 + here, 1 + after], axis=1)
    last_ring = 1 + (_RINGS - 1) * _SEGMENTS
    back_pole = np.full_like(here, EYEBALL_VERTICES - 1)
    back = np.stack([last_ring + after, last_ring + here, back_pole], axis=1)
    starts = 1 + _SEGMENTS * np.arange(_RINGS - 1)[:, None]
    a, b = (starts + here).ravel(), (starts + after).ravel()
    next_a, next_b = a + _SEGMENTS, b + _SEGMENTS
    bands = [np.stack([a, next_a, next_b], axis=1), np.stack([a, next_b, b], axis=1)]
    return directions, np.concatenate([front, *bands, back])


def sphere_uv(directions: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
    """Texture coordinates on a disc around the pole, distance = angle."""
    radius = np.hypot(directions[:, 0], directions[:, 1])
    angle = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    return 0.5 + 0.5 * directions[:, :2] * (angle / np.maximum(radius, 1e-9))[:, None]


def sphere_shares(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> Float64[np.ndarray, "546 v"]:
    """Rows (sum 1) that place the sphere's vertices as mixtures of a coarse eyeball's.

    Each direction from the centroid meets one coarse triangle; the point there is pushed outwards
    to the radius interpolated between its corners, which rounds the facets off.
    """
    centre = vertices.mean(axis=0)
    corners = vertices[faces] - centre
    radii = np.linalg.norm(vertices - centre, axis=1)
    inverses = np.linalg.inv(np.swapaxes(corners, 1, 2))
    directions, _ = sphere()
    shares = np.empty((len(directions), len(vertices)))
    for row, direction in enumerate(directions):
        coordinates = inverses @ direction
        hit = np.flatnonzero((coordinates > -1e-7).all(axis=1))[0]
        barycentric = coordinates[hit] / coordinates[hit].sum()
        radius = barycentric @ radii[faces[hit]]
        scale = radius / np.linalg.norm(barycentric @ corners[hit])
        shares[row] = (1 - scale) / len(vertices)
        shares[row, faces[hit]] += barycentric * scale
    shares = np.round(shares / _SHARE_STEP) * _SHARE_STEP
    largest = np.argmax(shares, axis=1)
    shares[np.arange(len(shares)), largest] += 1 - shares.sum(axis=1)
    return shares

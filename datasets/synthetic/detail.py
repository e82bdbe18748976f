"""Coarser faces of the body for people who are small in the picture.

Vertices that are near each other, move with the same joint and lie in the same region are
represented by one of them, so that coarse faces use vertices of the fine mesh.
"""

from typing import Final

import numpy as np
from jaxtyping import Int, Shaped

from human_models.files import BodyData

_CELL_M: Final = 0.011


def coarse_faces(
    body: BodyData, faces: Int[np.ndarray, "F 3"], region: Shaped[np.ndarray, " V"]
) -> Int[np.ndarray, "f 3"]:
    """Faces between representatives; those that collapse are left out.

    Lips stay apart since only the lower one moves with the jaw, fingers since each has joints.
    """
    cells = np.floor(body.template / _CELL_M).astype(np.int64)
    _, region_number = np.unique(region, return_inverse=True)
    key = np.column_stack([cells, body.weights.argmax(axis=1), region_number])
    is_trunk = region == "body"  # coarse as it is
    key[is_trunk] = 0
    key[is_trunk, 0] = -np.arange(1, is_trunk.sum() + 1) * 1000
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    a, b, c = first[group.ravel()][faces].T
    kept = (a != b) & (b != c) & (c != a)
    return np.stack([a, b, c], axis=1)[kept]

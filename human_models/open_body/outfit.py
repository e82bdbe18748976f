"""Clothes that follow the body: MakeHuman's CC0 body suit ("tights") and skirt.

They go through the same adults, T-pose and bone map as the body, so the body's own betas and
joints shape and pose them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy import sparse

from human_models.open_body.assets import BaseMesh
from human_models.open_body.shape_space import ShapeSpace
from human_models.open_body.storage import rounded_lengths

_PARTS: Final = {"tights": "helper-tights", "skirt": "helper-skirt"}
_SMALLEST_WEIGHT: Final = 1e-3


@dataclass(frozen=True)
class Clothes:
    """E vertices of the base mesh that are clothes; faces by part, indexing these."""

    selection: sparse.csr_matrix
    part: Shaped[np.ndarray, " E"]
    mirror: Int64[np.ndarray, " E"]
    faces: dict[str, Int64[np.ndarray, "f 3"]]

    def __len__(self) -> int:
        return len(self.part)


def read_clothes(mesh: BaseMesh) -> Clothes:
    vertices = {part: mesh.groups[group].vertices for part, group in _PARTS.items()}
    used = np.concatenate(list(vertices.values()))
    count = len(used)
    place = np.full(len(mesh.vertices), -1)
    place[used] = np.arange(count)
    entries = (np.ones(count), (np.arange(count), used))
    return Clothes(
        selection=sparse.csr_matrix(entries, shape=(count, len(mesh.vertices))),
        part=np.repeat(list(vertices), [len(ids) for ids in vertices.values()]),
        mirror=place[mesh.mirror[used]],
        faces={part: place[_halves(mesh.groups[_PARTS[part]].quads)] for part in _PARTS},
    )


def _halves(quads: Int64[np.ndarray, "Q 4"]) -> Int64[np.ndarray, "f 3"]:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def clothes_weights(
    bone_weights: Float64[np.ndarray, "E bones"], shares: Float64[np.ndarray, "bones 55"]
) -> Float64[np.ndarray, "E 55"]:
    """Skinning weights over the joints; rows sum to 1."""
    weights = bone_weights @ shares
    weights[weights < _SMALLEST_WEIGHT] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def outfit_arrays(
    clothes: Clothes, weights: Float64[np.ndarray, "E 55"], shape: ShapeSpace
) -> dict[str, np.ndarray]:
    """Content of OUTFIT_*.npz; `shape` holds the rows of the clothes alone."""
    return {
        "v_template": rounded_lengths(shape.mean),
        "shapedirs": rounded_lengths(shape.directions),
        "weights": weights.astype(np.float32),
        "part": clothes.part,
        "mirror": clothes.mirror.astype(np.int32),
        **{f"f_{part}": faces.astype(np.uint32) for part, faces in clothes.faces.items()},
    }

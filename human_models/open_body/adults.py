"""Adults in SMPL-X's T-pose: the vertices and joints of phenotypes."""

from typing import Final

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from human_models.open_body import assets, bones, tpose
from human_models.open_body.phenotypes import Phenotypes, target_weights

# Where the T-pose keeps its pelvis: published cameras and translations assume it about 0.35 m
# below the origin.
PELVIS_ORIGIN_M: Final = np.array([0.0, -0.35, 0.01])

# MakeHuman's height 0..1 spans 1.2 to 2.4 m; the blend is linear, so it may run a little over.
_HEIGHT_LIMITS: Final = (-0.25, 1.25)


class AdultModel:
    """Phenotypes -> posed vertices, for the rows of `selection` over MakeHuman's base mesh.

    The first `body_count` rows are the body, from which stature is measured; further rows
    (clothes) follow along. `rigid_rows` maps a bone to the rows that follow it alone.
    """

    def __init__(
        self,
        selection: sparse.csr_matrix,
        body_count: int,
        mesh: assets.BaseMesh,
        rig: assets.Rig,
        macro: assets.MacroTargets,
        rigid_rows: dict[str, Int64[np.ndarray, " r"]],
    ) -> None:
        rows = sparse.vstack([selection, rig.heads, rig.tails]).tocsr()
        self.rig = rig
        self._sizes = np.cumsum([selection.shape[0], len(rig.names)])
        self._body_count = body_count
        self._levels = macro.levels
        self._rest = rows @ mesh.vertices
        self._macro = np.stack([rows @ offsets.astype(np.float64) for offsets in macro.offsets])
        local = assets.read_local_targets(len(mesh.vertices)).astype(np.float64)
        self._local = np.stack([[rows @ offsets for offsets in pair] for pair in local])
        self.bone_weights = _bone_weights(selection, rig, rigid_rows)

    def posed(
        self, phenotypes: Phenotypes
    ) -> tuple[Float64[np.ndarray, "n N 3"], Float64[np.ndarray, "n 55 3"]]:
        """Vertices and joints in the T-pose, metres, pelvis at PELVIS_ORIGIN_M."""
        vertices, heads, tails = np.split(self._unposed(phenotypes), self._sizes, axis=1)
        rotations = tpose.tpose_rotations(heads, tails, self.rig)
        new_heads = tpose.posed_heads(heads, rotations, self.rig)
        joints = bones.joint_positions(new_heads, self.rig)
        subjects = zip(vertices, heads, rotations, new_heads, strict=True)
        for i, (body, *bone_ends) in enumerate(subjects):
            vertices[i] = tpose.skin(body, self.bone_weights, *bone_ends)
        to_origin = PELVIS_ORIGIN_M - joints[:, :1]
        return vertices + to_origin, joints + to_origin

    def _unposed(self, phenotypes: Phenotypes) -> Float64[np.ndarray, "n rows 3"]:
        """Vertices and ends of bones in MakeHuman's rest pose, at the wanted stature."""
        offsets = self._local_offsets(phenotypes.local)
        shortest, tallest = (
            target_weights(phenotypes, self._levels, np.full(len(phenotypes), height))
            for height in (0.0, 1.0)
        )
        low, high = (self._stature(weights, offsets) for weights in (shortest, tallest))
        wanted = np.where(np.isnan(phenotypes.stature_m), (low + high) / 2, phenotypes.stature_m)
        height = np.clip((wanted - low) / (high - low), *_HEIGHT_LIMITS)
        weights = target_weights(phenotypes, self._levels, height)
        return self._rest + np.tensordot(weights, self._macro, 1) + offsets

    def _local_offsets(self, local: Float64[np.ndarray, "n L"]) -> Float64[np.ndarray, "n rows 3"]:
        decreased, increased = np.maximum(-local, 0), np.maximum(local, 0)
        return np.tensordot(decreased, self._local[:, 0], 1) + np.tensordot(
            increased, self._local[:, 1], 1
        )

    def _stature(
        self, weights: Float64[np.ndarray, "n T"], offsets: Float64[np.ndarray, "n rows 3"]
    ) -> Float64[np.ndarray, " n"]:
        body = np.s_[: self._body_count, 1]
        heights = self._rest[body] + weights @ self._macro[:, *body] + offsets[:, *body]
        return np.ptp(heights, axis=1)


def _bone_weights(
    selection: sparse.csr_matrix, rig: assets.Rig, rigid_rows: dict[str, Int64[np.ndarray, " r"]]
) -> Float64[np.ndarray, "N bones"]:
    weights = np.maximum(selection @ rig.weights, 0)
    for bone, rows in rigid_rows.items():
        weights[rows] = 0
        weights[rows, rig.index(bone)] = 1
    return weights / weights.sum(axis=1, keepdims=True)

"""Random adults in SMPL-X's T-pose, and the principal components of their shapes (betas).

An adult is drawn as values of traits, which give the weights of MakeHuman's morph targets.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from open_body import assets, skeleton

_LEVELS_OF: Final = {
    "gender": assets.GENDERS,
    "age": assets.AGES,
    "muscle": assets.MUSCLES,
    "weight": assets.WEIGHTS,
    "proportions": assets.PROPORTIONS,
    "cup_size": assets.CUP_SIZES,
    "firmness": assets.FIRMNESSES,
}

# Normal distributions (mean, standard deviation) of the traits, on MakeHuman's scale 0..1.
_TRAITS: Final = {
    "muscle": (0.50, 0.17),
    "weight": (0.48, 0.20),
    "proportions": (0.50, 0.20),
    "cup_size": (0.45, 0.20),
    "firmness": (0.60, 0.15),
}
_AGE_BETA: Final = (1.2, 2.5)  # beta distribution of the age from "young" (0) to "old" (1)
_MALE_STATURE_M: Final = 1.765
_FEMALE_STATURE_DROP_M: Final = 0.13
_STATURE_SPREAD_M: Final = 0.068
_LOCAL_SPREAD: Final = 0.22
_LOCAL_LIMIT: Final = 0.8
_ANCESTRY_CONCENTRATION: Final = (1.5, 1.5, 1.5)
# Neutral bodies are drawn near both ends, like a mixture of men and women.
_NEUTRAL_GENDERS: Final = (0.1, 0.9)


@dataclass(frozen=True)
class Phenotypes:
    """Traits of n adults: gender (0 male, 1 female), age and _TRAITS, on the scale 0..1."""

    traits: dict[str, Float64[np.ndarray, " n"]]
    ancestry: Float64[np.ndarray, "n 3"]
    stature_m: Float64[np.ndarray, " n"]
    local: Float64[np.ndarray, "n L"]

    def __len__(self) -> int:
        return len(self.stature_m)

    def level_weights(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Weights of the levels of all traits but height, linear between adjacent levels."""
        weights = dict(zip(assets.ANCESTRIES, self.ancestry.T, strict=True))
        for trait, levels in _LEVELS_OF.items():
            position = self.traits[trait] * (len(levels) - 1)
            for k, level in enumerate(levels):
                weights[level] = np.clip(1 - np.abs(position - k), 0, 1)
        return weights


def random_adults(gender: str, count: int, rng: np.random.Generator) -> Phenotypes:
    """Random adults of a gender ("neutral", "male", "female")."""
    match gender:
        case "male":
            genders = np.zeros(count)
        case "female":
            genders = np.ones(count)
        case _:
            genders = rng.choice(_NEUTRAL_GENDERS, count)
    traits = {"gender": genders, "age": rng.beta(*_AGE_BETA, count)}
    for trait, (mean, spread) in _TRAITS.items():
        traits[trait] = rng.normal(mean, spread, count).clip(0, 1)
    stature = _MALE_STATURE_M - _FEMALE_STATURE_DROP_M * genders
    stature = stature + rng.normal(0, _STATURE_SPREAD_M, count)
    local = rng.normal(0, _LOCAL_SPREAD, (count, len(assets.LOCAL_TARGETS)))
    return Phenotypes(
        traits,
        rng.dirichlet(_ANCESTRY_CONCENTRATION, count),
        stature,
        local.clip(-_LOCAL_LIMIT, _LOCAL_LIMIT),
    )


def target_weights(
    phenotypes: Phenotypes, levels: list[tuple[str, ...]], height: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n T"]:
    """Weights of macro targets: products of the weights of the levels in a target's name.

    `height` is 0 to 1 between MakeHuman's extremes; values outside extrapolate linearly.
    """
    of_level = phenotypes.level_weights()
    of_level |= dict(zip(assets.HEIGHTS, (1 - height, height), strict=True))
    return np.stack([np.prod([of_level[k] for k in names], axis=0) for names in levels], axis=1)


# From phenotypes to vertices and joints.

# Pelvis of the T-pose; published cameras and translations assume it about 0.35 m below the origin.
PELVIS_ORIGIN_M: Final = np.array([0.0, -0.35, 0.01])

# MakeHuman's height 0..1 spans 1.2 to 2.4 m; the blend is linear, so slight extrapolation is valid.
_HEIGHT_LIMITS: Final = (-0.25, 1.25)


class AdultModel:
    """Vertices and joints in the T-pose from phenotypes.

    Vertices are the rows of `selection` applied to MakeHuman's base mesh. The first `body_count`
    rows are the body, from which stature is measured; the others are clothes. `rigid_rows` maps a
    bone to the rows that follow only this bone.
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
        """Vertices and joints in the T-pose, metres, with the pelvis at PELVIS_ORIGIN_M."""
        vertices, heads, tails = np.split(self._unposed(phenotypes), self._sizes, axis=1)
        rotations = skeleton.tpose_rotations(heads, tails, self.rig)
        new_heads = skeleton.posed_heads(heads, rotations, self.rig)
        joints = skeleton.joint_positions(new_heads, self.rig)
        subjects = zip(vertices, heads, rotations, new_heads, strict=True)
        for i, (body, *bone_ends) in enumerate(subjects):
            vertices[i] = skeleton.skin(body, self.bone_weights, *bone_ends)
        to_origin = PELVIS_ORIGIN_M - joints[:, :1]
        return vertices + to_origin, joints + to_origin

    def _unposed(self, phenotypes: Phenotypes) -> Float64[np.ndarray, "n rows 3"]:
        """Vertices and ends of bones in MakeHuman's rest pose, with the given statures."""
        offsets = self._local_offsets(phenotypes.local)
        shortest, tallest = (
            target_weights(phenotypes, self._levels, np.full(len(phenotypes), height))
            for height in (0.0, 1.0)
        )
        low, high = (self._stature(weights, offsets) for weights in (shortest, tallest))
        height = np.clip((phenotypes.stature_m - low) / (high - low), *_HEIGHT_LIMITS)
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


# Principal components.

_SHAPE_COMPONENTS: Final = 10
MIRROR_X: Final = np.array([-1.0, 1.0, 1.0])


class ShapeSpace(NamedTuple):
    """Mean, and directions in metres per standard deviation."""

    mean: Float64[np.ndarray, "N 3"]
    directions: Float64[np.ndarray, "N 3 10"]


def symmetric(
    vertices: Float64[np.ndarray, "n N 3"], mirror: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, "n N 3"]:
    """Average with the mirror image, so that left and right are equal bit for bit."""
    return 0.5 * (vertices + vertices[:, mirror] * MIRROR_X)


def shape_space(
    vertices: Float64[np.ndarray, "n N 3"], mirror: Int64[np.ndarray, " N"], body_count: int
) -> ShapeSpace:
    """Principal components of the first `body_count` vertices, extended to the other vertices.

    The scores are eigenvectors of the (n, n) Gram matrix of the body. They are uncorrelated with
    unit variance, so that the covariance of vertices and scores gives the directions of the body
    and of the clothes.
    """
    mean = vertices.mean(axis=0)
    deviations = (vertices - mean).reshape(len(vertices), -1)
    body = deviations[:, : 3 * body_count]
    _, eigenvectors = np.linalg.eigh(body @ body.T)
    scores = eigenvectors[:, : -_SHAPE_COMPONENTS - 1 : -1] * np.sqrt(len(vertices) - 1)
    directions = (deviations.T @ scores / (len(vertices) - 1)).reshape(*mean.shape, -1)
    directions = np.moveaxis(symmetric(np.moveaxis(directions, -1, 0), mirror), 0, -1)
    return ShapeSpace(mean, directions * _signs(mean[:body_count], directions[:body_count]))


def _signs(
    mean: Float64[np.ndarray, "B 3"], directions: Float64[np.ndarray, "B 3 10"]
) -> Float64[np.ndarray, " 10"]:
    """Signs with which the first component makes bodies taller and the others wider."""
    lowest, highest = np.argmin(mean[:, 1]), np.argmax(mean[:, 1])
    wider = (directions[:, 0] * np.sign(mean[:, :1])).sum(axis=0)
    wider[0] = directions[highest, 1, 0] - directions[lowest, 1, 0]
    return np.where(wider < 0, -1.0, 1.0)

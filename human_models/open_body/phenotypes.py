"""Random adults as numbers: phenotype levels and the weights that they give to the targets."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from human_models.open_body import assets

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
_AGE_BETA: Final = (1.2, 2.5)  # of "young" 0 .. "old" 1: mostly young, a long tail
_MALE_STATURE_M: Final = 1.765
_FEMALE_STATURE_DROP_M: Final = 0.13
_STATURE_SPREAD_M: Final = 0.068
_LOCAL_SPREAD: Final = 0.22
_LOCAL_LIMIT: Final = 0.8
_ANCESTRY_CONCENTRATION: Final = (1.5, 1.5, 1.5)
# Neutral bodies lie near either end, not between: a crowd of men and women has few in the middle.
_NEUTRAL_GENDERS: Final = (0.1, 0.9)


@dataclass(frozen=True)
class Phenotypes:
    """n adults. `traits` hold gender (0 male, 1 female), age and _TRAITS on the scale 0..1."""

    traits: dict[str, Float64[np.ndarray, " n"]]
    ancestry: Float64[np.ndarray, "n 3"]
    stature_m: Float64[np.ndarray, " n"]
    local: Float64[np.ndarray, "n L"]

    def __len__(self) -> int:
        return len(self.stature_m)

    def level_weights(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Weight of every level of every trait but height: linear between neighbouring levels."""
        weights = dict(zip(assets.ANCESTRIES, self.ancestry.T, strict=True))
        for trait, levels in _LEVELS_OF.items():
            position = self.traits[trait] * (len(levels) - 1)
            for k, level in enumerate(levels):
                weights[level] = np.clip(1 - np.abs(position - k), 0, 1)
        return weights


def target_weights(
    phenotypes: Phenotypes,
    levels: list[tuple[str, ...]],
    height: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, "n T"]:
    """Weights of macro targets: the product of the weights of the levels in a target's name.

    `height` (0..1 between MakeHuman's extremes) may lie outside 0..1: the blend is linear in it.
    """
    of_level = phenotypes.level_weights()
    of_level |= dict(zip(assets.HEIGHTS, (1 - height, height), strict=True))
    return np.stack([np.prod([of_level[k] for k in names], axis=0) for names in levels], axis=1)


def average_adult() -> Phenotypes:
    """One adult in the middle of every trait; stature nan, as it follows from MakeHuman's mean."""
    traits = {trait: np.array([0.5]) for trait in _LEVELS_OF}
    traits["age"] = np.array([0.0])
    local = np.zeros((1, len(assets.LOCAL_TARGETS)))
    return Phenotypes(traits, np.full((1, 3), 1 / 3), np.array([np.nan]), local)


def random_adults(gender: str, count: int, rng: np.random.Generator) -> Phenotypes:
    """Adults of `gender` ("neutral", "male", "female")."""
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

"""Random adults, the weights of their morph targets, and principal components of shapes."""

import numpy as np
import pytest

from human_models.open_body import assets
from human_models.open_body.adults import (
    average_adult,
    random_adults,
    shape_space,
    symmetric,
    target_weights,
)


def test_phenotypes_weigh_levels_as_shares():
    adults = random_adults("neutral", 20, np.random.default_rng(0))
    weights = adults.level_weights()
    for levels in (assets.GENDERS, assets.MUSCLES, assets.CUP_SIZES, assets.ANCESTRIES):
        np.testing.assert_allclose(sum(weights[level] for level in levels), 1)
    assert set(np.round(weights["female"], 6)) == {0.1, 0.9}


def test_targets_blend_linearly_in_height():
    levels = [("male", "minheight"), ("male", "maxheight"), ("averagemuscle",)]
    low, middle, high = (
        target_weights(average_adult(), levels, np.array([height])) for height in (0.0, 0.25, 1.5)
    )
    np.testing.assert_allclose(low, [[0.5, 0, 1]])
    np.testing.assert_allclose(middle, [[0.375, 0.125, 1]])
    np.testing.assert_allclose(high, [[-0.25, 0.75, 1]])


def test_sexes_differ_in_stature():
    rng = np.random.default_rng(0)
    men, women = (random_adults(gender, 2000, rng).stature_m for gender in ("male", "female"))
    assert men.mean() - women.mean() == pytest.approx(0.13, abs=0.01)


def test_shape_space_recovers_known_directions():
    rng = np.random.default_rng(1)
    mirror = np.array([1, 0, 3, 2, 4, 6, 5, 7])
    template = symmetric(rng.normal(size=(1, 8, 3)), mirror)[0]
    true = symmetric(rng.normal(size=(10, 8, 3)), mirror)
    vertices = template + np.tensordot(rng.normal(size=(60, 10)), true, 1)
    space = shape_space(vertices, mirror, body_count=6)
    scores = np.linalg.lstsq(
        space.directions.reshape(24, 10), (vertices - space.mean).reshape(60, 24).T, rcond=None
    )[0]
    rebuilt = space.mean + np.tensordot(scores.T, np.moveaxis(space.directions, -1, 0), 1)
    np.testing.assert_allclose(rebuilt, vertices, atol=1e-8)
    np.testing.assert_allclose(scores.std(axis=1, ddof=1), 1, atol=1e-6)

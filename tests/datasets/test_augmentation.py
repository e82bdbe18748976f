"""What augmentations are drawn, and that they are always the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.sample import NO_AUGMENTATION, draw_augmentation


def test_augmentations_are_as_told():
    drawn = [draw_augmentation(7, 1, index) for index in range(4000)]
    scale, rotation, flip = (np.array([a[k] for a in drawn]) for k in range(3))
    colour = np.array([a.colour for a in drawn])
    assert scale.min() == 0.75
    assert scale.max() == 1.25
    assert np.mean((scale == 0.75) | (scale == 1.25)) == pytest.approx(0.317, abs=0.03)
    assert np.abs(rotation).max() == 60
    assert np.mean(rotation == 0) == pytest.approx(0.4, abs=0.03)
    assert rotation[rotation != 0].std() == pytest.approx(28.8, abs=1.5)
    assert np.mean(flip) == pytest.approx(0.5, abs=0.03)
    assert colour.min() >= 0.8
    assert colour.max() <= 1.2
    assert colour.mean(axis=0) == pytest.approx(1, abs=0.01)
    assert np.abs(np.corrcoef(colour.T) - np.eye(3)).max() < 0.06
    assert len({*drawn, draw_augmentation(7, 2, 0), draw_augmentation(8, 1, 0)}) == 4002
    assert draw_augmentation(7, 1, 0, off=True) == NO_AUGMENTATION


def test_strength_weakens_turns_and_sizes_and_nothing_else():
    for index in range(20):
        whole, half = (draw_augmentation(7, 1, index, strength=k) for k in (1, 0.5))
        assert half.rotation_deg == pytest.approx(whole.rotation_deg / 2)
        assert half.scale - 1 == pytest.approx((whole.scale - 1) / 2)
        assert half[2:] == whole[2:]


def test_augmentations_are_the_same_in_another_process():
    code = (
        "from datasets.sample import draw_augmentation as draw\n"
        "import sys; sys.stdout.write(repr([tuple(draw(3, 2, i)) for i in (5, 0)]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == repr([tuple(draw_augmentation(3, 2, index)) for index in (5, 0)])

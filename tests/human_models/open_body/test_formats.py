"""Same content, same bytes; the hands' pose components."""

import pickletools
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from human_models.open_body.formats import (
    LENGTH_STEP_M,
    hands_components,
    rounded_lengths,
    write_npz,
    write_pickle,
)


def test_npz_is_reproducible_and_plain(tmp_path: Path):
    arrays = {"a": np.arange(5), "name": np.array("word"), "f": np.eye(3, dtype=np.float32)}
    write_npz(tmp_path / "one.npz", arrays)
    write_npz(tmp_path / "two.npz", arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as read:
        assert set(read) == set(arrays)
        for name in arrays:
            np.testing.assert_array_equal(read[name], arrays[name])


def test_pickles_call_nothing_but_constructors(tmp_path: Path):
    write_pickle(tmp_path / "x.pkl", {"matrix": sparse.csr_matrix(np.eye(3)), "a": np.arange(3)})
    operations = pickletools.genops((tmp_path / "x.pkl").read_bytes())
    used = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert used == {
        "numpy._core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "scipy.sparse._csr csr_matrix",
    }


def test_lengths_are_rounded_to_a_micrometre():
    lengths = np.array([0.1234567891, -1e-9, 1.7])
    rounded = rounded_lengths(lengths)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, lengths, atol=LENGTH_STEP_M / 2)
    assert not np.signbit(rounded[1])
    np.testing.assert_array_equal(rounded_lengths(rounded), rounded)
    np.testing.assert_array_equal(rounded_lengths(-lengths), -rounded)


@pytest.mark.parametrize("side", ["left", "right"])
def test_hand_components_are_orthonormal_and_start_with_the_curl(side: str):
    components = hands_components(side)
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-12)
    curl = components[0].reshape(15, 3)
    sign = -1 if side == "left" else 1
    assert (sign * curl[:12, 2] > 0.2).all()
    assert not curl[12:].any()

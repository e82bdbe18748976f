"""Same content, same bytes."""

import pickletools
from pathlib import Path

import numpy as np
from scipy import sparse

from human_models.open_body.storage import (
    LENGTH_STEP_M,
    rounded_lengths,
    write_npz,
    write_pickle,
)
from human_models.open_body.topology import FROZEN, read_topology, write_topology


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


def test_frozen_topology_reads_and_writes_back(tmp_path: Path):
    topology = read_topology()
    assert len(topology) == 10475
    np.testing.assert_array_equal(topology.selection.sum(axis=1), 1)
    write_topology(tmp_path / "topology.npz", topology)
    with np.load(tmp_path / "topology.npz") as again, np.load(FROZEN) as frozen:
        assert set(again) == set(frozen)
        for name in frozen:
            np.testing.assert_array_equal(again[name], frozen[name])
            assert again[name].dtype == frozen[name].dtype

"""Eyeballs, vertex numbering and the stored topology."""

from pathlib import Path

import numpy as np

from human_models.open_body.formats import write_npz
from human_models.open_body.topology import (
    TOPOLOGY_FILE,
    fill_order,
    inverse,
    read_topology,
    sphere,
    sphere_weights,
    topology_arrays,
)


def test_fine_eyeball_lies_on_the_coarse_one():
    coarse = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = np.array([[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)])
    flipped = np.linalg.det(coarse[faces]) < 0
    faces[flipped] = faces[flipped][:, ::-1]
    weights = sphere_weights(coarse, faces)
    directions, sphere_faces = sphere()
    np.testing.assert_array_equal(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights @ coarse, directions, atol=1e-5)
    a, b, c = np.moveaxis(directions[sphere_faces], 1, 0)
    assert ((a + b + c) * np.cross(b - a, c - a)).sum(axis=1).min() > 0


def test_fixed_vertices_come_first_in_an_order():
    order = fill_order(5, {2: 4, 0: 1}, [([0, 1, 2], [0, 1, 4]), ([3, 4], [2, 3])])
    assert order.tolist() == [1, 0, 4, 2, 3]
    assert order[inverse(order)].tolist() == list(range(5))


def test_stored_topology_reads_and_writes_back(tmp_path: Path):
    topology = read_topology()
    assert len(topology) == 10475
    np.testing.assert_array_equal(topology.selection.sum(axis=1), 1)
    write_npz(tmp_path / "topology.npz", topology_arrays(topology))
    with np.load(tmp_path / "topology.npz") as again, np.load(TOPOLOGY_FILE) as stored:
        assert set(again) == set(stored)
        for name in stored:
            np.testing.assert_array_equal(again[name], stored[name])
            assert again[name].dtype == stored[name].dtype

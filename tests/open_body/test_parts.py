"""What the open body is built from: rig, topology, points of the face, shapes, files."""

import pickletools
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from open_body import assets
from open_body.adults import Phenotypes, random_adults, shape_space, symmetric, target_weights
from open_body.assets import Rig
from open_body.face import Surface
from open_body.formats import (
    LENGTH_STEP_M,
    hands_components,
    rounded_lengths,
    write_npz,
    write_pickle,
)
from open_body.skeleton import axis_rotations, posed_heads, skin
from open_body.topology import FLAME_REGIONS, HAND_IDS, read_topology


def test_axis_rotations_follow_the_right_hand():
    quarter = axis_rotations(np.array([[0, 0, 2.0], [0, 3.0, 0]]), np.full(2, np.pi / 2))
    np.testing.assert_allclose(quarter[0] @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(quarter[1] @ [0, 0, 1], [1, 0, 0], atol=1e-15)


def test_a_turned_bone_carries_its_child_and_its_skin():
    empty = sparse.csr_matrix((2, 3))
    rig = Rig(["upper", "lower"], [-1, 0], empty, empty, np.eye(3, 2))
    heads = np.array([[1.0, 0, 0], [2.0, 0, 0]])
    rotations = axis_rotations(np.array([[0, 0, 1.0]] * 2), np.array([np.pi / 2, 0]))
    new_heads = posed_heads(heads[None], rotations[None], rig)[0]
    np.testing.assert_allclose(new_heads, [[1, 0, 0], [1, 1, 0]], atol=1e-15)

    vertices = np.array([[1.5, 0, 0], [3.0, 0, 0], [2.0, 0, 0]])
    weights = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    posed = skin(vertices, weights, heads, rotations, new_heads)
    np.testing.assert_allclose(posed, [[1, 0.5, 0], [2, 1, 0], [1, 1, 0]], atol=1e-15)


def test_stored_topology_is_whole():
    topology = read_topology()
    assert len(topology) == 10475
    np.testing.assert_array_equal(topology.selection.sum(axis=1), 1)
    everyone = np.arange(10475)
    np.testing.assert_array_equal(topology.mirror[topology.mirror], everyone)
    for faces, count in ((topology.faces, 10475), (topology.smpl_faces, 6890)):
        np.testing.assert_array_equal(np.unique(faces), np.arange(count))
    assert len(topology.in_regions(*FLAME_REGIONS)) == 5023
    for hand, ids in HAND_IDS.items():
        assert topology.in_regions(hand).tolist() == list(ids)


def test_surface_finds_and_mirrors_points():
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4]])
    surface = Surface(vertices, faces, np.array([1, 0, 2, 3, 4]))
    point = surface.from_front(np.array([0.2, 0.3]), np.arange(4))
    np.testing.assert_allclose(surface.position(point), [0.2, 0.3, 0.5])
    twin = surface.mirrored(point)
    np.testing.assert_allclose(surface.position(twin), [-0.2, 0.3, 0.5])
    missed = surface.from_front(np.array([2.0, 0.1]), np.arange(4))
    np.testing.assert_allclose(surface.position(missed), [1, 0, 0])
    foremost = surface.nearest_vertex(np.array([0.1, 0.0]), vertices[:, 2] > 0.5)
    np.testing.assert_allclose(surface.position(foremost), [0, 0, 1])


def test_phenotypes_weigh_levels_as_shares():
    adults = random_adults("neutral", 20, np.random.default_rng(0))
    weights = adults.level_weights()
    for levels in (assets.GENDERS, assets.MUSCLES, assets.CUP_SIZES, assets.ANCESTRIES):
        np.testing.assert_allclose(sum(weights[level] for level in levels), 1)
    assert set(np.round(weights["female"], 6)) == {0.1, 0.9}


def test_targets_blend_linearly_in_height():
    levels = [("male", "minheight"), ("male", "maxheight"), ("averagemuscle",)]
    traits = dict.fromkeys(
        random_adults("male", 1, np.random.default_rng(0)).traits, np.full(1, 0.5)
    )
    average = Phenotypes(traits, np.full((1, 3), 1 / 3), np.ones(1), np.zeros((1, 0)))
    low, middle, high = (
        target_weights(average, levels, np.array([height])) for height in (0.0, 0.25, 1.5)
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

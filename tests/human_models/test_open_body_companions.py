"""The committed files beside the open body: regressors, vertex ids, clothes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from human_models.joints import (
    RIG_JOINTS,
    SIDES,
    SMPL_SURFACE_VERTICES,
    SMPLX_SURFACE_VERTICES,
)

STAND_IN = Path(__file__).parents[2] / "human_models/stand_in"
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
Arrays = dict[str, np.ndarray]


def load(name: str) -> Arrays:
    with np.load(STAND_IN / name) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def body() -> Arrays:
    return load("smplx/SMPLX_NEUTRAL.npz")


@pytest.fixture(scope="module")
def joints(body: Arrays) -> np.ndarray:
    return body["J_regressor"] @ body["v_template"]


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything but arrays and sparse matrices."""

    _ALLOWED = {  # noqa: RUF012
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("scipy.sparse._csr", "csr_matrix"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def load_plain(name: str) -> Any:
    with (STAND_IN / "smplx" / name).open("rb") as file:
        return PlainUnpickler(file).load()


def test_smplx2smpl_selects_the_same_points_of_the_body(body: Arrays, joints: np.ndarray):
    smpl = load("smpl/SMPL_NEUTRAL.npz")
    matrix = load_plain("smplx2smpl.pkl")["matrix"]
    assert matrix.shape == (6890, 10475)
    np.testing.assert_array_equal(matrix.sum(axis=1), 1)
    moved = matrix @ body["v_template"]
    regressed = smpl["J_regressor"][:22] @ moved
    np.testing.assert_allclose(regressed, joints[:22], atol=2e-3)
    for name, vertex in SMPL_SURFACE_VERTICES.items():
        if not name.endswith("_eye"):  # SMPL has lids there
            point = body["v_template"][SMPLX_SURFACE_VERTICES[name]]
            np.testing.assert_allclose(moved[vertex], point, atol=1e-6)


def test_joints14_are_those_of_the_rig(body: Arrays, joints: np.ndarray):
    regressor = load_plain("SMPLX_to_J14.pkl")
    assert regressor.shape == (14, 10475)
    assert regressor.dtype == np.float32
    points = regressor @ body["v_template"]
    for row, name in ((0, "right_ankle"), (5, "left_ankle"), (8, "right_shoulder"), (12, "neck")):
        np.testing.assert_allclose(points[row], joints[RIG_JOINTS.index(name)], atol=1e-5)
    assert points[13, 1] > body["v_template"][:, 1].max() - 0.005


def test_part_ids_are_whole_and_distinct():
    hands = load_plain("MANO_SMPLX_vertex_ids.pkl")
    flame = np.load(STAND_IN / "smplx/SMPL-X__FLAME_vertex_ids.npy")
    parts = [hands["left_hand"], hands["right_hand"], flame]
    assert [len(part) for part in parts] == [778, 778, 5023]
    everything = np.concatenate(parts)
    assert len(np.unique(everything)) == 778 * 2 + 5023
    for side in SIDES:
        tips = [SMPLX_SURFACE_VERTICES[f"{side}_{finger}4"] for finger in FINGERS]
        assert hands[f"{side}_hand"][[744, 320, 443, 554, 671]].tolist() == tips
    head = [vertex for name, vertex in SMPLX_SURFACE_VERTICES.items() if "ear" in name]
    assert np.isin([9120, *head], flame).all()


@pytest.mark.parametrize("gender", ["NEUTRAL", "MALE", "FEMALE"])
def test_outfit_encloses_the_body(gender: str):
    outfit, body = load(f"outfit/OUTFIT_{gender}.npz"), load(f"smplx/SMPLX_{gender}.npz")
    count = len(outfit["v_template"])
    assert outfit["shapedirs"].shape == (count, 3, 10)
    np.testing.assert_allclose(outfit["weights"].sum(axis=1), 1, atol=2e-6)
    mirrored = outfit["v_template"][outfit["mirror"]] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, outfit["v_template"], atol=2e-6)
    parts = [np.unique(outfit[f"f_{part}"]) for part in ("tights", "skirt")]
    assert set(outfit["part"][parts[0]]) == {"tights"}
    assert set(outfit["part"][parts[1]]) == {"skirt"}
    thigh = (body["v_template"][:, 1] < -0.6) & (body["v_template"][:, 1] > -0.7)
    skin = body["v_template"][thigh]
    tights = outfit["v_template"][parts[0]]
    tights = tights[(tights[:, 1] < -0.6) & (tights[:, 1] > -0.7)]
    assert np.abs(tights[:, 0]).max() > np.abs(skin[:, 0]).max() - 0.002
    assert np.abs(tights[:, 0]).max() < np.abs(skin[:, 0]).max() + 0.02

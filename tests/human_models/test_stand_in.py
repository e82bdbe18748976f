"""The committed files of the open body: format, mesh, anatomy, regressors, vertex ids, clothes."""

import pickle
from typing import Any

import numpy as np
import pytest

from human_models.files import STAND_IN
from human_models.joints import (
    HANDS_MEAN,
    RIG_JOINTS,
    RIG_PARENTS,
    SIDES,
    SMPL_PARENTS,
    SMPL_SURFACE_VERTICES,
    SMPLX_SURFACE_VERTICES,
)

GENDERS = ("NEUTRAL", "MALE", "FEMALE")
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
Arrays = dict[str, np.ndarray]


def load(name: str) -> Arrays:
    with np.load(STAND_IN / name) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def bodies() -> dict[str, Arrays]:
    return {gender: load(f"smplx/SMPLX_{gender}.npz") for gender in GENDERS}


@pytest.fixture(scope="module")
def smpl() -> dict[str, Arrays]:
    return {gender: load(f"smpl/SMPL_{gender}.npz") for gender in GENDERS}


@pytest.fixture(scope="module", params=GENDERS)
def body(request: pytest.FixtureRequest, bodies: dict[str, Arrays]) -> Arrays:
    return bodies[request.param]


def joints(body: Arrays) -> dict[str, np.ndarray]:
    positions = body["J_regressor"] @ body["v_template"]
    return dict(zip(RIG_JOINTS, positions, strict=True))


def surface_points(body: Arrays) -> dict[str, np.ndarray]:
    return {name: body["v_template"][vertex] for name, vertex in SMPLX_SURFACE_VERTICES.items()}


def follows(body: Arrays, *names: str) -> np.ndarray:
    columns = [RIG_JOINTS.index(name) for name in names]
    return body["weights"][:, columns].sum(axis=1) > 0.5


def assert_closed(faces: np.ndarray) -> None:
    """Every directed edge once, and its opposite once: closed and consistently oriented."""
    count = int(faces.max()) + 1
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2).astype(np.int64)
    forth, back = edges @ [count, 1], edges @ [1, count]
    assert len(np.unique(forth)) == len(forth)
    assert (np.sort(forth) == np.sort(back)).all()


def volume_m3(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def test_everything_is_small_enough_for_the_repository():
    size = sum(path.stat().st_size for path in STAND_IN.rglob("*") if path.is_file())
    assert size <= 12e6


def test_smplx_files_have_the_shapes_and_types_of_the_format(body: Arrays):
    shapes = {
        "v_template": (10475, 3),
        "shapedirs": (10475, 3, 20),
        "posedirs": (10475, 3, 486),
        "J_regressor": (55, 10475),
        "weights": (10475, 55),
        "kintree_table": (2, 55),
        "hands_meanl": (45,),
        "hands_componentsr": (45, 45),
        "lmk_faces_idx": (51,),
        "lmk_bary_coords": (51, 3),
        "dynamic_lmk_faces_idx": (79, 17),
        "dynamic_lmk_bary_coords": (79, 17, 3),
    }
    assert {name: body[name].shape for name in shapes} == shapes
    for name, array in body.items():
        assert array.dtype.kind in "iuU" or array.dtype == np.float32, name
        assert array.dtype.kind != "f" or np.isfinite(array).all(), name
    assert tuple(body["kintree_table"][0]) == RIG_PARENTS
    assert "not SMPL-X" in str(body["license"])


def test_mesh_is_closed_and_faces_outwards(body: Arrays):
    assert_closed(body["f"])
    assert len(np.unique(body["f"])) == 10475
    assert 0.045 < volume_m3(body["v_template"], body["f"]) < 0.090
    for eye in (slice(9383, 9929), slice(9929, 10475)):
        inside = np.isin(body["f"], np.arange(eye.start, eye.stop)).all(axis=1)
        assert 4e-6 < volume_m3(body["v_template"], body["f"][inside]) < 2e-5


def test_template_and_weights_are_mirror_symmetric(body: Arrays):
    mirror = body["mirror"]
    assert (mirror[mirror] == np.arange(10475)).all()
    np.testing.assert_allclose(
        body["v_template"][mirror] * [-1, 1, 1], body["v_template"], atol=2e-6
    )
    faces = {frozenset(face) for face in body["f"].tolist()}
    assert {frozenset(face) for face in mirror[body["f"]].tolist()} == faces


def test_weights_and_regressor_are_shares(body: Arrays):
    for shares in (body["weights"], body["J_regressor"]):
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=2e-6)
    assert (body["weights"] > 0).sum(axis=1).max() <= 12


def test_hands_mean_is_the_published_one(body: Arrays):
    for side in SIDES:
        np.testing.assert_allclose(
            body[f"hands_mean{side[0]}"], np.ravel(HANDS_MEAN[side]), atol=1e-7
        )
        components = body[f"hands_components{side[0]}"]
        np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-5)


def test_statures_are_those_of_adults(bodies: dict[str, Arrays]):
    statures = {gender: float(np.ptp(b["v_template"][:, 1])) for gender, b in bodies.items()}
    assert 1.72 < statures["MALE"] < 1.82
    assert 1.58 < statures["FEMALE"] < 1.69
    assert statures["FEMALE"] < statures["NEUTRAL"] < statures["MALE"]


def test_first_beta_makes_taller(body: Arrays):
    heights = [
        np.ptp(body["v_template"][:, 1] + beta * body["shapedirs"][:, 1, 0])
        for beta in (-2, -1, 0, 1, 2)
    ]
    assert (np.diff(heights) > 0.02).all()


def test_joints_lie_inside_the_mesh(body: Arrays):
    """Winding numbers: how often the surface goes round a point (van Oosterom and Strackee)."""
    corners = body["v_template"][body["f"]].astype(np.float64)
    for name, joint in joints(body).items():
        a, b, c = np.moveaxis(corners - joint, 1, 0)
        la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
        volume = (a * np.cross(b, c)).sum(axis=1)
        base = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        winding = np.arctan2(volume, base).sum() / (2 * np.pi)
        assert winding > 0.5, name


def test_pelvis_is_where_published_cameras_expect_it(body: Arrays):
    np.testing.assert_allclose(joints(body)["pelvis"], [0, -0.35, 0.01], atol=2e-5)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("finger", FINGERS)
def test_fingertips_end_their_fingers(body: Arrays, side: str, finger: str):
    skin = body["v_template"][follows(body, f"{side}_{finger}3")]
    last = joints(body)[f"{side}_{finger}3"]
    direction = skin.mean(axis=0) - last
    direction /= np.linalg.norm(direction)
    tip = surface_points(body)[f"{side}_{finger}4"]
    assert (skin @ direction).max() - tip @ direction < 1.5e-3
    assert 0.012 < np.linalg.norm(tip - last) < 0.045


@pytest.mark.parametrize("side", SIDES)
def test_template_hand_is_flat_with_straight_fingers(body: Arrays, side: str):
    J, tips = joints(body), surface_points(body)
    for finger in FINGERS[1:]:
        chain = [*(J[f"{side}_{finger}{k}"] for k in (1, 2, 3)), tips[f"{side}_{finger}4"]]
        bones = np.diff(chain, axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        assert np.degrees(np.arccos(bones[0] @ bones[1])) < 8
        assert np.degrees(np.arccos(bones[1] @ bones[2])) < 16
        assert abs(bones[0, 0]) > 0.95  # along the arm, palm down


@pytest.mark.parametrize("side", SIDES)
def test_feet_and_ears_have_their_points_at_the_ends(body: Arrays, side: str):
    sign = 1 if side == "left" else -1
    vertices, points = body["v_template"], surface_points(body)
    foot = vertices[follows(body, f"{side}_ankle", f"{side}_foot")]
    big, small = points[f"{side}_big_toe"], points[f"{side}_small_toe"]
    assert foot[:, 2].max() - big[2] < 3e-3
    assert sign * (small[0] - big[0]) > 0.04
    farther_out = sign * (foot[:, 0] - small[0]) > 0.002
    assert foot[farther_out, 2].max() - small[2] < 4e-3
    sole = foot[foot[:, 1] < foot[:, 1].min() + 0.03]
    assert points[f"{side}_heel"][2] - sole[:, 2].min() < 3e-3

    head = vertices[body["region"] == "head"]
    ear = points[f"{side}_ear"]
    near = np.linalg.norm(head[:, 1:] - ear[1:], axis=1) < 0.01
    assert (sign * head[near, 0]).max() - sign * ear[0] < 3e-3
    skull = head[head[:, 1] > points["nose"][1]]
    assert sign * ear[0] > 0.9 * (sign * skull[:, 0]).max()


def test_nose_and_eyes_are_foremost(body: Arrays):
    vertices, points = body["v_template"], surface_points(body)
    head = vertices[body["region"] == "head"]
    assert head[:, 2].max() - points["nose"][2] < 1e-3
    assert points["nose"][0] == 0
    for side, ids in (("left", slice(9383, 9929)), ("right", slice(9929, 10475))):
        ball, pole = vertices[ids], points[f"{side}_eye"]
        assert pole[2] == ball[:, 2].max()
        np.testing.assert_allclose(pole[:2], ball.mean(axis=0)[:2], atol=2e-3)
        assert pole[1] > points["nose"][1] + 0.02
        np.testing.assert_allclose(joints(body)[f"{side}_eye_smplhf"], ball.mean(axis=0), atol=1e-4)


def test_smpl_files_have_smpls_format(smpl: dict[str, Arrays]):
    for body in smpl.values():
        assert body["v_template"].shape == (6890, 3)
        assert body["f"].shape == (13776, 3)
        assert body["shapedirs"].shape == (6890, 3, 10)
        assert body["posedirs"].shape == (6890, 3, 207)
        assert tuple(body["kintree_table"][0]) == SMPL_PARENTS
        assert_closed(body["f"])
        for shares in (body["weights"], body["J_regressor"]):
            np.testing.assert_allclose(shares.sum(axis=1), 1, atol=2e-6)


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


def test_smplx2smpl_selects_the_same_points_of_the_body(
    bodies: dict[str, Arrays], smpl: dict[str, Arrays]
):
    body = bodies["NEUTRAL"]
    matrix = load_plain("smplx2smpl.pkl")["matrix"]
    assert matrix.shape == (6890, 10475)
    np.testing.assert_array_equal(matrix.sum(axis=1), 1)
    moved = matrix @ body["v_template"]
    regressed = smpl["NEUTRAL"]["J_regressor"][:22] @ moved
    np.testing.assert_allclose(regressed, list(joints(body).values())[:22], atol=2e-3)
    for name, vertex in SMPL_SURFACE_VERTICES.items():
        if not name.endswith("_eye"):  # SMPL has lids there
            point = body["v_template"][SMPLX_SURFACE_VERTICES[name]]
            np.testing.assert_allclose(moved[vertex], point, atol=1e-6)


def test_joints14_are_those_of_the_rig(bodies: dict[str, Arrays]):
    body = bodies["NEUTRAL"]
    regressor = load_plain("SMPLX_to_J14.pkl").toarray()
    assert regressor.shape == (14, 10475)
    assert regressor.dtype == np.float32
    points = regressor @ body["v_template"]
    for row, name in ((0, "right_ankle"), (5, "left_ankle"), (8, "right_shoulder"), (12, "neck")):
        np.testing.assert_allclose(points[row], joints(body)[name], atol=1e-5)
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


@pytest.mark.parametrize("gender", GENDERS)
def test_outfit_encloses_the_body(gender: str, bodies: dict[str, Arrays]):
    outfit, body = load(f"outfit/OUTFIT_{gender}.npz"), bodies[gender]
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

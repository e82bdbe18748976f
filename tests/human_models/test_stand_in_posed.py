"""The committed open body in the smplx package: it loads unchanged, poses and marks its face."""

import contextlib
import io
from collections.abc import Callable

import numpy as np
import pytest
import smplx
import torch

from human_models.files import STAND_IN
from human_models.joints import MODEL_JOINTS, RIG_JOINTS, SIDES, mirror_permutation

MIRROR_X = np.array([-1.0, 1.0, 1.0])
MIRROR_ROTATION = np.array([1.0, -1.0, -1.0])
Posed = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def model() -> smplx.SMPLX:
    with contextlib.redirect_stdout(io.StringIO()):  # it warns of its 10 components
        return smplx.create(
            str(STAND_IN), "smplx", gender="neutral", use_pca=False, use_face_contour=True
        )


@pytest.fixture(scope="module")
def posed(model: smplx.SMPLX) -> Callable[..., Posed]:
    """Vertices and joints for a rig pose (55, 3) and other parameters."""

    def run(pose: np.ndarray | None = None, **others: np.ndarray) -> Posed:
        pose = np.zeros((55, 3)) if pose is None else pose
        parts = {
            "global_orient": pose[0],
            "body_pose": pose[1:22],
            "jaw_pose": pose[22],
            "leye_pose": pose[23],
            "reye_pose": pose[24],
            "left_hand_pose": pose[25:40],
            "right_hand_pose": pose[40:55],
            **others,
        }
        tensors = {
            name: torch.tensor(np.ravel(value), dtype=torch.float32)[None]
            for name, value in parts.items()
        }
        with torch.no_grad():
            output = model(**tensors)
        return output.vertices[0].numpy(), output.joints[0].numpy()

    return run


def test_rest_pose_has_144_finite_joints(posed: Callable[..., Posed]):
    vertices, joints = posed()
    assert vertices.shape == (10475, 3)
    assert joints.shape == (len(MODEL_JOINTS), 3)
    assert np.isfinite(vertices).all()
    assert np.isfinite(joints).all()


@pytest.mark.parametrize("gender", ["male", "female"])
def test_other_genders_load(gender: str):
    with contextlib.redirect_stdout(io.StringIO()):
        model = smplx.create(str(STAND_IN), "smplx", gender=gender, use_pca=True, num_pca_comps=12)
    assert torch.isfinite(model().vertices).all()


def test_mirrored_pose_gives_the_mirrored_mesh(posed: Callable[..., Posed]):
    with np.load(STAND_IN / "smplx/SMPLX_NEUTRAL.npz") as arrays:
        mirror = arrays["mirror"]
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.3, (55, 3)), rng.normal(0, 1.5, 10)
    twin = pose[list(mirror_permutation(RIG_JOINTS))] * MIRROR_ROTATION
    vertices, joints = posed(pose, betas=betas)
    mirrored_vertices, mirrored_joints = posed(twin, betas=betas)
    np.testing.assert_allclose(vertices[mirror] * MIRROR_X, mirrored_vertices, atol=5e-6)
    rig = list(mirror_permutation(RIG_JOINTS))
    np.testing.assert_allclose(joints[rig] * MIRROR_X, mirrored_joints[:55], atol=1e-5)


def test_all_joints_and_landmarks_are_symmetric_at_rest(posed: Callable[..., Posed]):
    _, joints = posed()
    swapped = joints[list(mirror_permutation(MODEL_JOINTS))] * MIRROR_X
    np.testing.assert_allclose(swapped, joints, atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_mean_hand_bends_its_fingers_towards_the_palm(posed: Callable[..., Posed], side: str):
    _, mean = posed()
    hands_mean = dict(zip(SIDES, _hands_means(), strict=True))
    flat_pose = np.zeros((55, 3))
    flat_pose[25:40], flat_pose[40:55] = -hands_mean["left"], -hands_mean["right"]
    _, flat = posed(flat_pose)
    wrist = MODEL_JOINTS.index(f"{side}_wrist")
    for finger in ("index", "middle", "ring", "pinky"):
        tip = MODEL_JOINTS.index(f"{side}_{finger}4")
        assert mean[tip, 1] < flat[tip, 1] - 0.02  # palm down: towards the palm is down
        reach_mean, reach_flat = (np.linalg.norm(pose[tip] - pose[wrist]) for pose in (mean, flat))
        assert 0.6 < reach_mean / reach_flat < 0.97
    thumb, index = (MODEL_JOINTS.index(f"{side}_{finger}4") for finger in ("thumb", "index"))
    opened, relaxed = (np.linalg.norm(pose[thumb] - pose[index]) for pose in (flat, mean))
    assert 0.01 < relaxed < 0.7 * opened


def _hands_means() -> tuple[np.ndarray, np.ndarray]:
    with np.load(STAND_IN / "smplx/SMPLX_NEUTRAL.npz") as arrays:
        return arrays["hands_meanl"].reshape(15, 3), arrays["hands_meanr"].reshape(15, 3)


def test_face_landmarks_have_their_places(posed: Callable[..., Posed]):
    _, joints = posed()
    fixed, contour = joints[76:127], joints[127:]
    x, y, z = fixed.T
    brows, nose_ridge, nostrils = slice(0, 10), slice(10, 14), slice(14, 19)
    right_eye, left_eye = slice(19, 25), slice(25, 31)
    assert (np.diff(x[brows]) > 0).all()  # from the subject's right to the left
    assert (np.diff(x[nostrils]) > 0).all()
    assert (np.diff(y[nose_ridge]) < 0).all()
    assert np.argmax(z) == 13  # the nose's tip
    assert y[brows].min() > max(y[right_eye].max(), y[left_eye].max())
    assert x[right_eye].max() < 0 < x[left_eye].min()
    for upper, lower in ((20, 24), (21, 23), (26, 30), (27, 29)):  # lids
        assert y[upper] > y[lower] + 0.003
    for upper, lower in ((32, 42), (33, 41), (34, 40), (35, 39), (36, 38)):  # outer lips
        assert y[upper] > y[lower] + 0.005
    for upper, lower in ((44, 50), (45, 49), (46, 48)):  # closed lips meet
        assert y[upper] >= y[lower]
    assert (np.diff(contour[:, 0]) > -2e-3).all()
    assert np.argmin(contour[:, 1]) == 8
    assert contour[8, 1] < y.min()


def test_open_jaw_parts_the_inner_lips(posed: Callable[..., Posed]):
    pose = np.zeros((55, 3))
    _, closed = posed(pose)
    pose[22, 0] = 0.3
    _, opened = posed(pose)
    for upper, lower in ((44, 50), (45, 49), (46, 48)):
        gap = opened[76 + upper, 1] - opened[76 + lower, 1]
        assert gap > closed[76 + upper, 1] - closed[76 + lower, 1] + 0.008


def test_landmarks_lie_on_the_skin_of_the_head():
    with np.load(STAND_IN / "smplx/SMPLX_NEUTRAL.npz") as arrays:
        regions, faces = arrays["region"], arrays["f"]
        for kind in ("lmk", "dynamic_lmk"):
            corners = faces[arrays[f"{kind}_faces_idx"]]
            coordinates = arrays[f"{kind}_bary_coords"]
            assert (coordinates >= 0).all()
            np.testing.assert_allclose(coordinates.sum(axis=-1), 1, atol=1e-6)
            touched = regions[corners][coordinates > 0]
            assert set(touched) <= {"head"}


@pytest.mark.parametrize("yaw_deg", [-35, -15, 15, 35])
def test_contour_moves_to_the_silhouette(posed: Callable[..., Posed], yaw_deg: int):
    """Where the cheek turns away, points reach farther from the face's centre than stuck ones."""
    _, rest = posed()
    pose = np.zeros((55, 3))
    pose[0, 1] = np.radians(yaw_deg)
    _, turned = posed(pose)
    cosine, sine = np.cos(pose[0, 1]), np.sin(pose[0, 1])
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    stuck = (rest - rest[0]) @ rotation.T + turned[0]
    eye = rest[MODEL_JOINTS.index("left_eye")]
    centre = [0, eye[1] - 0.04, eye[2] - 0.12]
    centre = (centre - rest[0]) @ rotation.T + turned[0]
    near, far = (slice(127, 135), slice(136, 144))[:: 1 if yaw_deg > 0 else -1]
    reach, stuck_reach = (
        np.linalg.norm((points[far] - centre)[:, :2], axis=1) for points in (turned, stuck)
    )
    assert (reach - stuck_reach).min() > -1e-3
    assert (reach - stuck_reach).max() > (0.01 if abs(yaw_deg) > 30 else 0.002)
    np.testing.assert_allclose(turned[near], stuck[near], atol=1e-4)


def test_expressions_move_only_the_face_and_leave_the_joints(posed: Callable[..., Posed]):
    vertices, joints = posed()
    for component in np.eye(10):
        moved, moved_joints = posed(expression=2 * component)
        distance = np.linalg.norm(moved - vertices, axis=1)
        assert 0.002 < distance.max() < 0.04
        assert np.flatnonzero(distance > 1e-3).size < 4000
        np.testing.assert_allclose(moved_joints[:55], joints[:55], atol=3e-4)


def test_correctives_keep_the_forearm_from_collapsing(posed: Callable[..., Posed]):
    """A wrist turned by 80 degrees must not wring the forearm's end out."""
    pose = np.zeros((55, 3))
    rest, joints = posed()
    pose[RIG_JOINTS.index("left_wrist"), 0] = np.radians(80)
    turned, _ = posed(pose)
    wrist, elbow = (joints[RIG_JOINTS.index(f"left_{name}")] for name in ("wrist", "elbow"))
    place = (rest - elbow) @ (wrist - elbow) / ((wrist - elbow) @ (wrist - elbow))
    ring = (place > 0.93) & (place < 1.0) & (rest[:, 0] > 0)

    def thickness(vertices: np.ndarray) -> float:
        return float(np.linalg.norm(vertices[ring, 1:] - wrist[1:], axis=1).mean())

    assert thickness(turned) > 0.93 * thickness(rest)

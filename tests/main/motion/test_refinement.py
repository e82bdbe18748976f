"""Bodies moved onto keypoints: people with known truth, estimated with the errors of a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import (
    COCO_KEYPOINTS,
    JOINT_PARTS,
    JOINTS,
    JOINTS_FROM_MODEL,
    RIG_JOINTS,
    joint_places,
    mirror_permutation,
)
from main.motion.camera import PELVIS, Clip, ClipCamera
from main.motion.kinematics import (
    DEPTH_JOINTS,
    POSITION,
    ROTATED,
    ROTATED_NAMES,
    ROTATIONS,
    SHAPE,
    VARIABLES,
    NetworkErrors,
    Observed,
    Skeleton,
    error_vector,
)
from main.motion.neighbours import combine_frames, correct_keypoints, find_overlaps
from main.motion.refinement import Refinement, keypoint_errors, observed
from main.motion.rows import RAW_ROW, KeypointSource, RawRows
from main.pipeline.pipeline import network_errors
from utils.errors import UserError

CAMERA = ClipCamera((900.0, 900.0), (320.0, 240.0), "test")
CLIP = Clip(CAMERA, (640, 480), 30.0)
BODY = JOINT_PARTS["body"]
LEFT, RIGHT = JOINT_PARTS["left_hand"], JOINT_PARTS["right_hand"]


@pytest.fixture(scope="module")
def body():
    return BodyLibrary(find_model_folder(Path("absent"))).smplx()


@pytest.fixture(scope="module")
def errors():
    return network_errors("smplest_x_demo", 1.0)


@pytest.fixture(scope="module")
def people(body, errors):
    """Rows of 24 people as the network errs, with exact keypoints, and their true joints."""
    rng = np.random.default_rng(5)
    count = 24
    rows = np.zeros(count, RAW_ROW)
    rows["track"], rows["score"] = np.arange(count), 1
    rows["frame_index"] = 100 * np.arange(count)  # nobody has neighbours, in space or time
    upright = Rotation.from_rotvec([np.pi, 0, 0])
    turned = Rotation.from_rotvec(np.outer(rng.uniform(-3, 3, count), [0, 1, 0]))
    rows["placed_orient"] = (turned * upright).as_rotvec()
    rows["body_pose"] = 0.15 * rng.standard_normal((count, 63))
    rows["placed_pelvis_m"] = np.array([0, 0, 5]) + rng.uniform(-0.5, 0.5, (count, 3))
    rows["box_xywh"] = [200, 80, 120, 340]
    seen = observed(rows, body, CLIP.image_size)
    shares = torch.from_numpy(rng.standard_normal((count, errors.basis.shape[1])))
    vectors = 0.7 * shares.float() @ errors.basis.T
    truth = Skeleton(body).pose(seen, vectors, CAMERA)
    rows["keypoints_px"] = CAMERA.project(truth.joints_m.numpy())
    rows["keypoint_score"], rows["keypoint_source"] = 1, KeypointSource.FILE
    return rows, truth


def refined(rows, body, errors, folder, person=None, workers=1):
    raw, result = RawRows(folder), RawRows(folder)
    raw.append(rows)
    people = np.arange(len(rows)) if person is None else person
    moved = Refinement(body, errors, CLIP, workers).refine(raw, people, result)
    return result.take(np.arange(len(rows))), moved


def joints_of(rows, body):
    seen = observed(rows, body, CLIP.image_size)
    pose = Skeleton(body).pose(seen, torch.zeros(len(rows), VARIABLES), CAMERA)
    return pose.joints_m.numpy()


def image_error(rows, body, part=BODY):
    pixels = CAMERA.project(joints_of(rows, body))
    return np.linalg.norm(pixels - rows["keypoints_px"], axis=-1)[:, part].mean()


def pose_error(rows, body, truth):
    ours, true = joints_of(rows, body), truth.joints_m.numpy()
    ours, true = (joints - joints[:, PELVIS, None] for joints in (ours, true))
    return np.linalg.norm(ours - true, axis=-1)[:, BODY].mean()


def test_bodies_come_nearer_to_keypoints_and_to_the_truth(people, body, errors, tmp_path):
    rows, truth = people
    after, moved = refined(rows, body, errors, tmp_path)
    assert moved == len(rows)
    assert image_error(after, body) < 0.2 * image_error(rows, body)
    assert pose_error(after, body, truth) < 0.7 * pose_error(rows, body, truth)
    for hand in (LEFT, RIGHT):
        assert image_error(after, body, hand) < 0.3 * image_error(rows, body, hand)


def test_several_threads_give_what_one_gives(people, body, errors, tmp_path, monkeypatch):
    monkeypatch.setattr("main.motion.refinement._BATCH", 3)
    rows, person = people[0][:10].copy(), np.zeros(10, int)
    rows["frame_index"] = np.arange(10)  # neighbours, so that the variances' order matters, too
    one, several = (refined(rows, body, errors, tmp_path, person, workers) for workers in (1, 3))
    assert one[1] == several[1] == len(rows)
    for name in ("body_pose", "placed_pelvis_m", "joints_2d_px"):
        np.testing.assert_allclose(several[0][name], one[0][name], atol=1e-3)


def test_few_keypoints_do_not_turn_bodies_in_depth(people, body, errors, tmp_path):
    rows, truth = people
    rows = rows.copy()
    names = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    unknown = [not joint.endswith(names) for joint in JOINTS]
    rows["keypoint_score"][:, unknown] = 0
    after, _ = refined(rows, body, errors, tmp_path)
    assert image_error(after, body) < image_error(rows, body)
    assert pose_error(after, body, truth) < pose_error(rows, body, truth)


def test_a_mouth_opens(people, body, errors, tmp_path):
    rows = people[0][:1].copy()
    rows["body_pose"] = 0
    rows["placed_orient"] = [np.pi, 0, 0]
    still = observed(rows, body, CLIP.image_size)
    opened = torch.zeros(1, VARIABLES)
    opened[0, 3 * ROTATED_NAMES.index("jaw")] = 0.3
    joints = Skeleton(body).pose(still, opened, CAMERA).joints_m.numpy()
    rows["keypoints_px"] = CAMERA.project(joints)
    after, _ = refined(rows, body, errors, tmp_path)
    assert after["jaw_pose"][0, 0] > 0.03


def test_without_keypoints_nothing_changes(people, body, errors, tmp_path):
    rows = people[0].copy()
    rows["keypoint_score"] = 0
    after, moved = refined(rows, body, errors, tmp_path)
    assert moved == 0
    assert after.tobytes() == rows.tobytes()


def test_of_several_people_only_those_with_keypoints_change(people, body, errors, tmp_path):
    rows = people[0][:4].copy()
    rows["keypoint_score"][2] = 0
    after, moved = refined(rows, body, errors, tmp_path)
    assert moved == 3
    assert after[2].tobytes() == rows[2].tobytes()
    assert (after["body_pose"][[0, 1, 3]] != rows["body_pose"][[0, 1, 3]]).any(axis=1).all()


def test_frames_of_a_person_share_a_shape(people, body, errors, tmp_path):
    rows = people[0][:6].copy()
    rows["keypoint_score"][5] = 0
    after, _ = refined(rows, body, errors, tmp_path, person=np.array([1, 1, 1, 2, 2, 1]))
    assert (after["betas"][[0, 1, 2, 5]] == after["betas"][0]).all()
    assert (after["betas"][3] == after["betas"][4]).all()
    assert (after["betas"][3] != after["betas"][0]).any()
    assert (after["body_pose"][5] == rows["body_pose"][5]).all()


@pytest.mark.parametrize("kind", ["one point", "random", "huge"])
def test_absurd_keypoints_leave_the_body_where_it_is(kind, people, body, errors, tmp_path):
    rows, rng = people[0].copy(), np.random.default_rng(1)
    shape = rows["keypoints_px"].shape
    rows["keypoints_px"] = {
        "one point": np.full(shape, 5.0),
        "random": rng.uniform(0, 640, shape),
        "huge": np.full(shape, 1e9),
    }[kind]
    after, _ = refined(rows, body, errors, tmp_path)
    assert np.isfinite(joints_of(after, body)).all()
    distance = np.linalg.norm(joints_of(after, body) - joints_of(rows, body), axis=-1)
    assert np.median(distance[:, BODY]) < 0.15


def test_another_hand_is_refused(people, body, errors, tmp_path):
    rows = people[0].copy()
    swapped = rows.copy()
    swapped["keypoints_px"][:, LEFT] = rows["keypoints_px"][:, RIGHT]
    apart = np.linalg.norm(
        rows["keypoints_px"][:, LEFT].mean(axis=1) - rows["keypoints_px"][:, RIGHT].mean(axis=1),
        axis=-1,
    )
    clear = apart > 60
    assert clear.sum() > 5
    sigmas, _ = keypoint_errors(swapped)
    assert np.isinf(sigmas[clear][:, LEFT]).all()
    assert np.isfinite(sigmas[:, RIGHT]).mean() > 0.9
    without = rows.copy()
    without["keypoint_score"][:, LEFT] = 0
    after, _ = refined(swapped[clear], body, errors, tmp_path)
    expected, _ = refined(without[clear], body, errors, tmp_path)
    np.testing.assert_allclose(after["left_hand_pose"], expected["left_hand_pose"], atol=1e-3)


@pytest.fixture
def found(people, body):
    """The same people with keypoints of the body and hands, 2 pixels from the network's joints."""
    rows, rng = people[0].copy(), np.random.default_rng(6)
    rows["joints_2d_px"] = CAMERA.project(joints_of(rows, body))
    rows["keypoints_px"] = rows["joints_2d_px"] + 2 * rng.standard_normal((len(rows), 137, 2))
    limbs = [*joint_places(COCO_KEYPOINTS), *range(*LEFT.indices(137)), *range(*RIGHT.indices(137))]
    rows["keypoint_source"] = KeypointSource.BODY
    rows["keypoint_source"][:, LEFT] = rows["keypoint_source"][:, RIGHT] = KeypointSource.HAND
    rows["keypoint_score"] = 0
    rows["keypoint_score"][:, limbs] = 0.8
    low, high = (fit(rows["joints_2d_px"][:, limbs], axis=1) for fit in (np.min, np.max))
    rows["box_xywh"] = np.concatenate([low, high - low], axis=1)
    return rows


def side_by_side(rows):
    """People whose left and right side are clearly apart in the image."""
    joints = rows["joints_2d_px"]
    hips = [JOINTS.index(f"{side}_hip") for side in ("left", "right")]
    apart = np.linalg.norm(joints[:, hips[0]] - joints[:, hips[1]], axis=-1)
    return apart > 0.09 * rows["box_xywh"][:, 2:].max(axis=1)


def test_exchanged_sides_are_noticed(found, body, errors, tmp_path):
    rows = found[side_by_side(found)]
    assert len(rows) > 4
    exchanged, is_known = rows.copy(), rows["keypoint_score"][0] > 0
    exchanged["keypoints_px"] = rows["keypoints_px"][:, list(mirror_permutation(JOINTS))]
    for kind in (rows, exchanged):
        own = correct_keypoints(kind, CLIP.image_size)
        np.testing.assert_array_equal(
            own["keypoints_px"][:, is_known], rows["keypoints_px"][:, is_known]
        )
        np.testing.assert_array_equal(own["keypoint_score"], rows["keypoint_score"])
    after, _ = refined(exchanged, body, errors, tmp_path)
    expected, _ = refined(rows, body, errors, tmp_path)
    np.testing.assert_allclose(after["body_pose"], expected["body_pose"], atol=1e-5)


@pytest.mark.parametrize("reason", ["both networks agree", "keypoints of a file"])
def test_exchanged_sides_are_believed(reason, found):
    rows = found[side_by_side(found)]
    rows["keypoints_px"] = rows["keypoints_px"][:, list(mirror_permutation(JOINTS))]
    if reason == "both networks agree":
        rows["keypoint_depth_m"][:, DEPTH_JOINTS] = 0.1
    else:
        rows["keypoint_source"] = KeypointSource.FILE
    own = correct_keypoints(rows, CLIP.image_size)
    np.testing.assert_array_equal(own["keypoints_px"], rows["keypoints_px"])
    np.testing.assert_array_equal(own["keypoint_score"], rows["keypoint_score"])


@pytest.mark.parametrize("who_is_beside", ["keypoints", "network", "keypoints of a file"])
def test_keypoints_that_fit_the_box_worse_than_the_network_are_anothers(
    who_is_beside, found, body, errors, tmp_path
):
    rows = found.copy()
    beside = "joints_2d_px" if who_is_beside == "network" else "keypoints_px"
    rows[beside][..., 0] += 90
    rows["keypoint_depth_m"][:, DEPTH_JOINTS] = 0.1  # BlazePose finds the same person
    if who_is_beside == "keypoints of a file":
        rows["keypoint_source"] = KeypointSource.FILE
    own = correct_keypoints(rows, CLIP.image_size)
    is_known = own["keypoint_score"] > 0
    if who_is_beside == "keypoints":
        assert not is_known.any()
        assert not own["keypoint_depth_m"].any()
        after, moved = refined(rows, body, errors, tmp_path)
        assert moved == 0
        np.testing.assert_array_equal(after["body_pose"], rows["body_pose"])
    else:
        np.testing.assert_array_equal(is_known, rows["keypoint_score"] > 0)


def test_keypoints_of_faces_err_by_the_size_of_the_face(people):
    rows = people[0].copy()
    face = JOINT_PARTS["face"]
    rows["keypoint_source"][:, BODY], rows["keypoint_source"][:, face] = (
        KeypointSource.BODY,
        KeypointSource.FACE,
    )
    rows["keypoint_score"][0, face] = 0
    sigmas, _ = keypoint_errors(rows)
    rows["box_xywh"][:, 2:] *= 2
    wider, _ = keypoint_errors(rows)
    assert np.isinf(sigmas[0, face]).all()
    extents = np.ptp(rows["keypoints_px"][1:, face], axis=1).max(axis=1)
    np.testing.assert_allclose(sigmas[1:, face], 0.2 * extents[:, None] + 0 * sigmas[1:, face])
    np.testing.assert_array_equal(wider[1:, face], sigmas[1:, face])
    np.testing.assert_allclose(wider[:, BODY], 2 * sigmas[:, BODY])


def test_knees_do_not_bend_backwards(people, body, errors, tmp_path):
    rows = people[0].copy()
    rows["body_pose"][:, [9, 12]] = -0.6
    after, _ = refined(rows, body, errors, tmp_path)
    assert (after["body_pose"][:, [9, 12]] > -0.3).mean() > 0.9


@pytest.mark.parametrize("source", [KeypointSource.BODY, KeypointSource.FILE])
def test_joints_may_be_beyond_the_edge_at_which_their_keypoints_are(
    source, people, body, errors, tmp_path
):
    rows = people[0][:1].copy()
    rows["body_pose"], rows["placed_orient"], rows["betas"] = 0, [np.pi, 0, 0], 0
    rows["placed_pelvis_m"] = [0, 1.3, 5]  # the hips are below the image
    hips, others = (
        [JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in joints]
        for joints in (("hip",), ("shoulder", "eye"))
    )
    true_px = CAMERA.project(joints_of(rows, body))
    assert (true_px[:, hips, 1] > CLIP.image_size[1] + 10).all()
    rows["keypoints_px"], rows["keypoint_source"] = true_px, source
    rows["keypoints_px"][:, hips, 1] = CLIP.image_size[1] - 5  # as a network finds them
    rows["keypoint_score"] = 0
    rows["keypoint_score"][:, hips + others] = 1
    after, _ = refined(rows, body, errors, tmp_path)
    rise = (true_px - CAMERA.project(joints_of(after, body)))[:, hips, 1].mean()
    assert rise < 2 if source == KeypointSource.BODY else rise > 8


def test_who_looks_upright_stands_if_the_depth_of_joints_says_so(people, body, errors, tmp_path):
    rows = people[0][:2].copy()
    rows["body_pose"], rows["betas"], rows["placed_orient"] = 0, 0, [np.pi, 0, 0]
    rows["placed_pelvis_m"] = [0, 0, 5]
    upright = joints_of(rows, body)
    rows["placed_orient"] = (
        Rotation.from_rotvec([0.4, 0, 0]) * Rotation.from_rotvec([np.pi, 0, 0])
    ).as_rotvec()
    rows["keypoints_px"], rows["keypoint_source"] = CAMERA.project(upright), KeypointSource.BODY
    rows["keypoint_score"] = 0
    rows["keypoint_score"][:, list(range(*BODY.indices(137)))] = 0.6
    rows["keypoint_depth_m"][1, DEPTH_JOINTS] = (upright[1, :, 2] - upright[1, PELVIS, 2])[
        DEPTH_JOINTS
    ]
    after, _ = refined(rows, body, errors, tmp_path)
    neck = JOINTS.index("neck")
    lean = [abs(joints[neck, 2] - joints[PELVIS, 2]) for joints in joints_of(after, body)]
    assert lean[1] < 0.9 * lean[0]


def walk(people, body, count=40):
    """Rows of two people over time: the first stands still behind where the second passes."""
    rows, _ = people
    still, other = rows[[0]], rows[[1]]
    both = np.concatenate([still, other])
    both["placed_pelvis_m"] = [[0, 0, 6], [0.6, 0, 4]]
    both["placed_orient"] = [np.pi, 0, 0]
    both["body_pose"] = 0.1 * np.random.default_rng(2).standard_normal((2, 63))
    both["joints_2d_px"] = both["keypoints_px"] = CAMERA.project(joints_of(both, body))
    low, high = (both["joints_2d_px"].min(axis=1), both["joints_2d_px"].max(axis=1))
    both["box_xywh"] = np.concatenate([low, high - low], axis=1)
    clip = np.concatenate([both] * count)
    clip["frame_index"] = np.repeat(np.arange(count), 2)
    return clip, np.tile([1, 2], count)


def test_somebody_covered_stays_when_the_keypoints_are_of_the_person_in_front(
    people, body, errors, tmp_path
):
    clip, who = walk(people, body)
    truth = joints_of(clip[:2], body)
    behind = np.flatnonzero((who == 1) & (clip["frame_index"] >= 15) & (clip["frame_index"] < 25))
    front = behind + 1
    # In the crossing the network sees nearly the one in front in both boxes, turned away.
    for name in ("joints_2d_px", "keypoints_px", "box_xywh"):
        clip[name][behind] = clip[name][front]
    clip["joints_2d_px"][behind] += 12
    clip["placed_orient"][behind] = (
        Rotation.from_rotvec([0, 2.5, 0]) * Rotation.from_rotvec([np.pi, 0, 0])
    ).as_rotvec()
    raw = RawRows(tmp_path)
    raw.append(clip)
    judged = find_overlaps(raw)
    assert set(np.flatnonzero(judged.has_foreign_keypoints)) == set(behind)
    assert (judged.covered[behind] > 0.5).all()
    after, moved = refined(clip, body, errors, tmp_path, person=who)
    assert moved == len(clip) - len(behind)
    ours = joints_of(after[behind], body)
    ours, true = ours - ours[:, PELVIS, None], truth[0] - truth[0, PELVIS]
    assert np.linalg.norm(ours - true, axis=-1)[:, BODY].mean() < 0.06
    seen = joints_of(after[front], body) - truth[1]
    assert np.linalg.norm(seen, axis=-1)[:, BODY].mean() < 0.06


def test_blocks_of_a_long_video_join_without_a_seam(people, tmp_path, monkeypatch):
    rng, count = np.random.default_rng(4), 300
    rows = np.repeat(people[0][:1], count)
    rows["frame_index"] = np.arange(count)
    rows["body_pose"] += 0.1 * rng.standard_normal((count, 63))
    variances = rng.uniform(0.001, 0.01, (count, len(ROTATED) + 3))

    def joined():
        raw = RawRows(tmp_path)
        raw.append(rows)
        for part, values in combine_frames(raw, np.arange(count), variances, 30.0):
            raw.put(part, values)
        return raw.take(np.arange(count))

    whole = joined()
    monkeypatch.setattr("main.motion.neighbours._BLOCK", 50)
    monkeypatch.setattr("main.motion.neighbours.MARGIN", 40)
    parts = joined()
    np.testing.assert_allclose(parts["body_pose"], whole["body_pose"], atol=2e-3)
    steps = [np.abs(np.diff(one["body_pose"], axis=0)).mean() for one in (rows, whole)]
    assert steps[1] < 0.8 * steps[0]


@pytest.fixture(scope="module")
def exact(body):
    """Bodies in double precision, at error vectors that are not zero."""
    torch.set_default_dtype(torch.float64)
    try:
        precise = BodyLibrary(find_model_folder(Path("absent"))).smplx("female").double()
        generator = torch.Generator().manual_seed(3)
        random = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
        count = 2
        seen = Observed(
            rotations=torch.linalg.qr(random(count, len(RIG_JOINTS), 3, 3))[0],
            shape=random(count, 20),
            pelvis_m=torch.tensor([[0.2, 0.1, 4.0], [-0.3, 0.2, 6.0]]),
            size_px=torch.tensor([300.0, 200.0]),
            keypoints_px=torch.zeros(count, 137, 2),
            sigma_px=torch.ones(count, 137),
            wrong=torch.zeros(count, 137),
            outward=torch.zeros(count, 137, 2),
            depth_m=torch.zeros(count, len(DEPTH_JOINTS)),
        )
        flipped = torch.linalg.det(seen.rotations) < 0
        seen.rotations[flipped] *= -1
        yield Skeleton(precise), seen, 0.2 * random(count, VARIABLES), random(count, 137, 2, 3)
    finally:
        torch.set_default_dtype(torch.float32)


def test_derivatives_are_those_of_differences(exact):
    skeleton, seen, vectors, rays = exact
    posed = skeleton.pose(seen, vectors, CAMERA)
    units = seen.size_px[:, None] / torch.tensor(CAMERA.focal) * posed.pelvis_m[:, 2:]
    points = torch.arange(137).repeat_interleave(2)
    slopes = skeleton.derivatives(posed, rays.flatten(1, 2), points, units)
    slopes = slopes.unflatten(1, (137, 2))
    step = 1e-5
    for entry in range(VARIABLES):
        change = torch.zeros(VARIABLES)
        change[entry] = step
        ends = [skeleton.pose(seen, vectors + way * change, CAMERA).joints_m for way in (1, -1)]
        moved = (ends[0] - ends[1]) / (2 * step)
        difference = slopes[..., entry] - (rays @ moved[..., None])[..., 0]
        rig = [number < len(RIG_JOINTS) for number in JOINTS_FROM_MODEL]
        assert difference[:, rig].abs().max() < 1e-6
        # Points on the surface also move with corrections of the pose, a few millimetres.
        limit = {True: 0.08, False: 0.02}[entry < ROTATIONS.stop]
        assert difference.abs().max() < limit


def test_an_error_vector_leads_to_the_truth(exact):
    skeleton, seen, vectors, _ = exact
    posed = skeleton.pose(seen, vectors, CAMERA)
    found = error_vector(seen, posed.rotations, posed.shape, posed.pelvis_m, CAMERA)
    for part in (ROTATIONS, SHAPE, POSITION):
        torch.testing.assert_close(found[:, part], vectors[:, part], atol=1e-6, rtol=0)
    assert len(ROTATED) == ROTATIONS.stop // 3


def test_errors_are_measured_written_and_read(tmp_path):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((VARIABLES, 12))
    measured = NetworkErrors.measured(rng.standard_normal((5000, 12)) @ mixing.T, 0.9999)
    covariance = (measured.basis @ measured.basis.T).numpy()
    np.testing.assert_allclose(covariance, mixing @ mixing.T, atol=2)
    measured.write(tmp_path / "errors.npz")
    double = NetworkErrors.read(tmp_path / "errors.npz", 2.0)
    np.testing.assert_allclose(double.basis, 2 * measured.basis, atol=0.02)


@pytest.mark.parametrize("content", [b"", b"PK nothing", None])
def test_a_bad_file_of_errors_is_named(content, tmp_path):
    path = tmp_path / "errors.npz"
    if content is None:
        np.savez(path, basis=np.full((3, 3), np.nan))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"errors\.npz"):
        NetworkErrors.read(path)


def test_other_models_have_half_of_the_demo_networks_errors(tmp_path):
    weights = tmp_path / "mine" / "mine.safetensors"
    weights.parent.mkdir()
    weights.touch()
    (weights.parent / "config_base.py").touch()
    own, default = network_errors("smplest_x_demo", 1.0), network_errors(str(weights.parent), 3.0)
    torch.testing.assert_close(default.basis, 1.5 * own.basis)

"""People who are joints alone: the same for the same seed, and what their targets say."""

import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyModel
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from human_models.joints import JOINTS, JOINTS_FROM_MODEL, POSE_PARTS, mirror_permutation
from synthetic.lifting import Draw, People, draw_poses, simulate_detections

MODEL = load_config("configs/config_smplest_x_demo.py").model
_, GRID_HEIGHT, GRID_WIDTH = MODEL.output_hm_shape
PELVIS, NOSE = JOINTS.index("pelvis"), JOINTS.index("nose")


@pytest.fixture(scope="module")
def body():
    return BodyModel(read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx", "neutral"))


@pytest.fixture(scope="module")
def poses(body):
    return draw_poses(body.rest_joints(torch.zeros(1, 10))[0].numpy(), seed=1, count=40)


@pytest.fixture(scope="module")
def batch(poses, body):
    return People(poses, body, MODEL).batch(400, seed=7)


def places_of(batch):
    return batch["target_joint_img"][..., :2] / torch.tensor([GRID_WIDTH, GRID_HEIGHT])


def test_a_batch_is_a_function_of_its_seed(poses, body, batch):
    people = People(poses, body, MODEL)
    other = people.batch(400, seed=8)
    again = people.batch(400, seed=7)
    for name, values in batch.items():
        assert torch.equal(again[name], values), name
    assert not torch.equal(other["keypoints"], batch["keypoints"])


def test_joints_are_those_of_the_parameters(batch, body):
    pose = batch["target_smplx_pose"].unflatten(1, (-1, 3))
    part = {name: pose[:, joints].flatten(1) for name, joints in POSE_PARTS.items()}
    joints = body(
        global_orient=part["body"][:, :3],
        body_pose=part["body"][:, 3:],
        left_hand_pose=part["left_hand"],
        right_hand_pose=part["right_hand"],
        jaw_pose=part["face"],
        betas=batch["target_smplx_shape"],
        expression=batch["target_smplx_expr"],
        want_vertices=False,
    ).joints[:, JOINTS_FROM_MODEL]
    expected = joints - joints[:, PELVIS, None]
    torch.testing.assert_close(batch["target_joint_cam"], expected, atol=1e-5, rtol=0)


def test_crops_frame_people(batch):
    """Nearly all joints are within; of whole people, the box fills the crop in one direction."""
    places = places_of(batch)
    inside = ((places > 0) & (places < 1)).all(2)
    assert inside.float().mean() > 0.9
    whole = inside.all(1)
    assert 0.6 < whole.float().mean() < 0.95
    extent = (places.amax(1) - places.amin(1))[whole].amax(1)
    assert extent.median() == pytest.approx(0.8, abs=0.07)


def test_people_stand_in_all_directions(batch):
    """Heads are mostly above pelvises; noses are before and behind necks, left and right."""
    joints = batch["target_joint_cam"]
    assert (joints[:, NOSE, 1] < 0).float().mean() > 0.8  # y points down
    forward = joints[:, NOSE] - joints[:, JOINTS.index("face2")]
    for axis in (0, 2):
        share = (forward[:, axis] > 0).float().mean()
        assert 0.2 < share < 0.8, axis


def test_mirrored_pools_give_either_side(batch):
    """What left limbs do, right ones do as often."""
    depth = batch["target_joint_cam"].std(0)
    mirrored = depth[list(mirror_permutation(JOINTS))]
    assert ((depth - mirrored).abs() < 0.25 * depth.clamp(min=0.05)).all()


@pytest.fixture
def seen(monkeypatch):
    """Joints of people who stand in the middle of the crop, left and right 0.2 apart, all given."""
    monkeypatch.setattr("synthetic.lifting._SUBSET", 0)
    monkeypatch.setattr("synthetic.lifting._MOST_MISSING", 1e-9)
    places = torch.full((2000, len(JOINTS), 2), 0.5)
    places[:, [k for k, name in enumerate(JOINTS) if name.startswith("left")], 0] = 0.7
    places[:, [k for k, name in enumerate(JOINTS) if name.startswith("right")], 0] = 0.3
    draw = Draw(torch.device("cpu"))
    draw.restart(3)
    inside = torch.ones(places.shape[:2], dtype=torch.bool)
    keypoints = simulate_detections(places, torch.full(inside.shape, 0.3), inside, draw)
    away = (keypoints[..., :2] + 0.5 - places) * torch.tensor([0.75, 1.0])
    return keypoints, away.norm(dim=2)


def test_expected_errors_are_made(seen):
    """Where little is expected little is wrong, and more where more is."""
    keypoints, away = seen
    expected = keypoints[..., 3]
    for low, high, least, most in ((0, 0.01, 0.01, 0.03), (0.05, 0.08, 0.05, 0.15)):
        errors = away[(expected >= low) & (expected < high)]
        assert len(errors) > 1000
        assert least < errors.mean() < most
    head, knee = JOINTS.index("nose"), JOINTS.index("left_knee")
    assert expected[:, head].median() < 0.4 * expected[:, knee].median()


def test_joints_of_a_hand_go_wrong_together(seen):
    keypoints, _ = seen
    off = keypoints[..., 1]
    index, pinky, other = (
        JOINTS.index(name) for name in ("left_index2", "left_pinky2", "right_index2")
    )
    alike = torch.corrcoef(off[:, [index, pinky, other]].T)
    assert alike[0, 1] > 0.45
    assert abs(alike[0, 2]) < 0.3


def test_left_is_now_and_then_taken_for_right(seen):
    keypoints, _ = seen
    wrist = JOINTS.index("left_wrist")
    share = (keypoints[:, wrist, 0] < 0).float().mean()
    assert 0.04 < share < 0.25


def test_depths_are_drawn_towards_the_pelvis(seen):
    keypoints, _ = seen
    assert 0.05 < keypoints[..., 2].mean() < 0.25


def test_some_joints_are_missing(poses, body):
    keypoints = People(poses, body, MODEL).batch(500, seed=3)["keypoints"]
    missing = keypoints[..., 3].isinf()
    nose, toe = JOINTS.index("nose"), JOINTS.index("left_big_toe")
    assert missing[:, nose].float().mean() < 0.1
    other = missing.float().mean(1) > 0.4
    assert 0.08 < other.float().mean() < 0.25
    assert (keypoints[other][..., 2] == 0).all()  # such networks give no depths
    assert missing[other][:, toe].any()
    assert not missing[other][:, toe].all()

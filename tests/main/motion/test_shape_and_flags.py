"""One shape per person, and the flags of frames."""

import numpy as np
import pytest

from human_models.joints import BODY_JOINTS
from main.motion.camera import truncation
from main.motion.trajectories import confidence, fuse_shape, occlusion, out_of_range


def test_shape_is_that_of_most_frames():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=10)
    betas = truth + 0.1 * rng.normal(size=(200, 10))
    betas[:40] += 5  # somebody else's, or a failure
    weights = rng.uniform(0.5, 1, 200)
    np.testing.assert_allclose(fuse_shape(betas, weights), truth, atol=0.1)


def test_frames_of_little_weight_hardly_count():
    betas = np.concatenate([np.zeros((90, 10)), np.ones((10, 10))])
    weights = np.concatenate([np.full(90, 1e-4), np.ones(10)])
    np.testing.assert_allclose(fuse_shape(betas, weights), 1.0, atol=0.02)


def test_shape_of_one_frame_is_its_own():
    betas = np.random.default_rng(1).normal(size=(1, 10)).astype(np.float32)
    np.testing.assert_array_equal(fuse_shape(betas, np.zeros(1)), betas[0])


def test_confidence_falls_with_score_size_and_truncation():
    columns = {
        "score": np.array([0.9, 0.5, 0.9, 0.9, 0.0], np.float32),
        "box_xywh": np.array([[0, 0, 90, 300]] * 2 + [[0, 0, 9, 30]] + [[0, 0, 90, 300.0]] * 2),
        "truncation": np.array([0, 0, 0, 0.8, 0]),
    }
    best, *others, absent = confidence(**columns)
    assert all(0 < one < best for one in others)
    assert absent == 0


def pose(**angles):
    """A body pose (63,) by joints' axis-angle vectors in degrees."""
    result = np.zeros((21, 3))
    for joint, vector in angles.items():
        result[BODY_JOINTS.index(joint) - 1] = np.radians(vector)
    return result.reshape(-1)


@pytest.mark.parametrize(
    ("angles", "beyond"),
    [
        ({}, False),
        ({"left_knee": (120, 0, 0), "right_knee": (130, 5, 0)}, False),
        ({"left_knee": (-45, 0, 0)}, True),
        ({"left_elbow": (0, -140, 0), "right_elbow": (0, 140, 0)}, False),
        ({"left_elbow": (0, 60, 0)}, True),
        ({"right_elbow": (0, -60, 0)}, True),
        ({"neck": (0, 50, 0), "spine2": (30, 0, 0)}, False),
        ({"neck": (0, 120, 0)}, True),
        ({"spine1": (-100, 0, 0)}, True),
    ],
)
def test_out_of_range(angles, beyond):
    assert out_of_range(pose(**angles)[None], np.zeros((1, 3))).tolist() == [beyond]


def test_jaw_out_of_range():
    jaws = np.radians([[20.0, 0, 0], [80, 0, 0]])
    assert out_of_range(np.zeros((2, 63)), jaws).tolist() == [False, True]


def test_occlusion_is_by_whoever_is_nearer():
    joints = np.zeros((3, 25, 2))
    joints[0, :, 0] = np.linspace(0, 100, 25)  # half of it inside the second one's box
    joints[1, :, 0], joints[2, :, 0] = 75, 500
    boxes = np.array([[0, -5, 100, 10], [51, -5, 60, 10], [480, -5, 40, 10.0]])
    assert occlusion(joints, boxes, np.array([5.0, 3, 4])) == pytest.approx([12 / 25, 0, 0])
    assert occlusion(joints, boxes, np.array([3.0, 5, 4])) == pytest.approx([0, 1, 0])


def test_truncation_is_the_share_of_body_joints_outside():
    joints = np.full((2, 137, 2), 50.0)
    joints[0, :5] = [-20, 50]
    joints[0, 30:] = [-20, 50]  # hands and face do not count
    joints[1, :25] = [50, 120]
    np.testing.assert_allclose(truncation(joints, (100, 100)), [0.2, 1])

"""Auxiliary heads of training: joints on the feature map, joints of tokens."""

import pytest
import torch

from configs.reader import load_config
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS
from models.losses import (
    TokenJointHead,
    keypoint_loss,
    places_in_crop,
    token_joint_loss,
)
from models.smplest_x import KeypointHead, found_keypoints

CONFIG = load_config("configs/config_smplest_x_demo.py").model
HEIGHT, WIDTH = (
    side // CONFIG.encoder_config.patch_size for side in CONFIG.encoder_config.img_size
)
_, GRID_HEIGHT, GRID_WIDTH = CONFIG.output_hm_shape


@pytest.fixture
def targets():
    """Two people, every joint somewhere in the crop."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(2, len(JOINTS), 3, generator=generator)
    return {
        "target_joint_img": places * torch.tensor([GRID_WIDTH, GRID_HEIGHT, 16]),
        "target_joint_cam": torch.randn(2, len(JOINTS), 3, generator=generator),
        "meta_joint_valid": torch.ones(2, len(JOINTS), 1),
        "meta_is_3D": torch.tensor([1.0, 0.0]),
    }


def perfect(targets):
    """Scores, offsets and depths that say exactly where the joints are."""
    cells = targets["target_joint_img"][..., :2] * torch.tensor(
        [WIDTH / GRID_WIDTH, HEIGHT / GRID_HEIGHT]
    )
    predicted = torch.zeros(2, len(JOINTS), 4, HEIGHT, WIDTH)
    for person in range(2):
        for joint in range(len(JOINTS)):
            x, y = cells[person, joint]
            column, row = int(x), int(y)
            predicted[person, joint, 0, row, column] = 50
            predicted[person, joint, 1, row, column] = x - column - 0.5
            predicted[person, joint, 2, row, column] = y - row - 0.5
            depth = targets["target_joint_cam"][person, joint, 2]
            predicted[person, joint, 3, row, column] = 2 * depth
    return predicted


def test_exact_keypoints_cost_nothing_and_are_found(targets):
    predicted = perfect(targets)
    assert keypoint_loss(predicted, targets, CONFIG).abs().max() < 1e-5
    height, width = CONFIG.input_body_shape
    places, known = places_in_crop(targets, CONFIG)
    assert known.all()
    expected = places * torch.tensor([width, height])
    torch.testing.assert_close(found_keypoints(predicted, CONFIG), expected, atol=1e-4, rtol=0)


def test_parts_count_alike_however_many_joints_they_have(targets):
    predicted = perfect(targets)
    predicted[0, JOINT_PARTS["body"], 1] += 0.2  # x of every offset
    predicted[1, JOINT_PARTS["face"], 1] += 0.2
    losses = keypoint_loss(predicted, targets, CONFIG)
    torch.testing.assert_close(losses, torch.full((2,), 0.1 / len(JOINT_PARTS)))


def test_depths_count_where_there_are_3d_joints(targets):
    predicted = perfect(targets)
    predicted[:, JOINT_PARTS["body"], 3] += 0.2
    losses = keypoint_loss(predicted, targets, CONFIG)
    torch.testing.assert_close(losses, torch.tensor([0.2 / len(JOINT_PARTS), 0.0]))


def test_joints_outside_or_unknown_do_not_count(targets):
    predicted = perfect(targets)
    predicted[0, 5, 1] += 9
    predicted[1, 7, 1] += 9
    targets["target_joint_img"][0, 5, 0] = -0.5
    targets["meta_joint_valid"][1, 7] = 0
    assert keypoint_loss(predicted, targets, CONFIG).abs().max() < 1e-5
    targets["meta_joint_valid"][:] = 0
    assert keypoint_loss(predicted, targets, CONFIG).eq(0).all()


def test_tokens_say_where_their_joints_are(targets):
    head = TokenJointHead(4)
    with torch.no_grad():
        head.place.weight.zero_()
        head.place.weight[0, 0] = 1
        head.place.bias.zero_()
    tokens = torch.zeros(2, 80, 4)
    tokens[:, :, 0] = torch.arange(80.0)
    order = head(tokens)[0, :, 0].tolist()
    # Body root and pose, then both hands behind shape, camera and hand roots, then the jaw.
    assert order == [*range(22), *range(35, 65), 78]
    assert len(order) == len(POSE_JOINTS)


def test_token_joints_are_places_and_depths(targets):
    predicted = torch.zeros(2, len(POSE_JOINTS), 3)
    places, _ = places_in_crop(targets, CONFIG)
    for token, name in enumerate(POSE_JOINTS):
        if name in JOINTS:
            joint = JOINTS.index(name)
            predicted[:, token, :2] = places[:, joint] - 0.5
            predicted[0, token, 2] = targets["target_joint_cam"][0, joint, 2]
    assert token_joint_loss(predicted, targets, CONFIG).abs().max() < 1e-6
    predicted[1, :, 2] += 5  # no 3D joints: nothing known of depths
    assert token_joint_loss(predicted, targets, CONFIG).abs().max() < 1e-6
    predicted[0, :, 2] += 5
    assert token_joint_loss(predicted, targets, CONFIG)[0] > 1


def test_head_has_a_cell_for_every_patch():
    head = KeypointHead(8)
    assert head(torch.zeros(2, 8, HEIGHT, WIDTH)).shape == (2, len(JOINTS), 4, HEIGHT, WIDTH)

"""From scores on the feature map to keypoints, and from those to tokens."""

import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyModel
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from human_models.joints import JOINTS
from models.initialise import initial_network
from models.smplest_x import Lifter, SMPLestX, observed_keypoints

LIFTER = 'model.lifter_config={"width": 32, "depth": 1, "token_rank": 4}'
CONFIG = load_config("configs/config_debug.py", [LIFTER]).model
HEIGHT, WIDTH = 16, 12


@pytest.fixture(scope="module")
def body():
    return BodyModel(read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx", "neutral"))


@pytest.fixture
def lifter():
    torch.manual_seed(0)
    return Lifter(CONFIG.lifter_config, 8, 6)


def test_place_depth_and_error_are_read_from_scores():
    predicted = torch.zeros(1, len(JOINTS), 4, HEIGHT, WIDTH)
    predicted[..., 0, :, :] = -100
    predicted[:, :, 0, 4, 3] = 0
    predicted[:, :, 1:, 4, 3] = torch.tensor([0.2, -0.3, 0.5])
    predicted[:, 1, 0, 12, 3] = -1e-4  # a second place, as likely
    keypoints = observed_keypoints(predicted)[0]
    there = torch.tensor([3.7 / WIDTH - 0.5, 4.2 / HEIGHT - 0.5, 0.25, 0])
    torch.testing.assert_close(keypoints[0], there, atol=1e-6, rtol=0)
    torch.testing.assert_close(keypoints[2:], there.expand(len(JOINTS) - 2, 4), atol=1e-6, rtol=0)
    # Between both places, and as far from each; pixels are square.
    away = ((12.5 - 4.2) ** 2 + 0.2**2) ** 0.5 / HEIGHT
    between = torch.tensor([3.6 / WIDTH - 0.5, 8.35 / HEIGHT - 0.5, 0.125, away / 2])
    torch.testing.assert_close(keypoints[1], between, atol=1e-3, rtol=0)


def test_keypoints_have_gradients_everywhere():
    predicted = torch.randn(2, len(JOINTS), 4, HEIGHT, WIDTH, requires_grad=True)
    observed_keypoints(predicted).square().sum().backward()
    assert predicted.grad.isfinite().all()
    assert predicted.grad.abs().sum((0, 1, 3, 4)).min() > 0


def test_what_is_not_known_does_not_count(lifter):
    keypoints = torch.randn(2, len(JOINTS), 4).abs()
    keypoints[:, ::2, 3] = torch.inf
    other = keypoints.clone()
    other[:, ::2, :3] = 7
    for one, same in zip(lifter(keypoints), lifter(other), strict=True):
        assert torch.equal(one, same)
        assert one.isfinite().all()
    other[:, 1, 0] += 0.1
    assert not torch.equal(lifter(other)[0], lifter(keypoints)[0])


def test_network_begins_with_what_its_joints_mean(body):
    """The decoder adds nothing yet."""
    network = initial_network(CONFIG, body).eval()
    with torch.inference_mode():
        images = torch.rand(2, 3, *CONFIG.input_body_shape)
        keypoints = observed_keypoints(network.tokens(images).keypoints)
        for whole, lifted in zip(network(images), network.lift(keypoints), strict=True):
            torch.testing.assert_close(whole, lifted)
        network.decoder.token_projection.weight.normal_()
        assert not torch.allclose(network(images).body_pose, network.lift(keypoints).body_pose)


def test_half_precision_keeps_lifter_and_heads(body):
    network = initial_network(CONFIG, body).eval()
    images = torch.rand(2, 3, *CONFIG.input_body_shape)
    with torch.inference_mode():
        expected = network(images)
        found = network.to_precision(torch.bfloat16)(images)
    assert network.lifter.embed.weight.dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


def test_published_networks_have_no_such_part():
    network = SMPLestX(load_config("configs/config_debug.py").model)
    assert network.lifter is None
    assert not [key for key in network.state_dict() if "lifter" in key or "keypoint" in key]

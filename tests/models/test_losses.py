"""Training losses against the published code's own values, and what must hold for any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from human_models.joints import JOINT_PARTS, JOINTS, PART_ROOTS
from models.checkpoint import load_network, to_published
from models.losses import training_losses
from models.smplest_x import (
    HEADS,
    HeadOutputs,
    body_parameters,
    part_relative,
    pose_body,
    root_relative,
)
from utils.geometry import rotation_6d_to_axis_angle

PARITY = Path(__file__).parents[1] / "parity"
IDENTITY = torch.tensor([1.0, 0, 0, 1, 0, 0])  # two columns, row by row
HALF_TURN = torch.tensor([1.0, 0, 0, -1, 0, 0])


def read_config(*overrides):
    return load_config(PARITY / "config_base.py", [f"train.{override}" for override in overrides])


CONFIG = read_config("hand_loss=True")


@pytest.fixture(scope="module")
def published():
    return {key: torch.from_numpy(v) for key, v in np.load(PARITY / "losses.npz").items()}


@pytest.fixture(scope="module")
def body():
    return BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME)).smplx()


@pytest.fixture
def targets(published):
    """Samples 0 and 3 have a body, 1 has no pelvis in the crop, 2 has no 3D joints."""
    return {key: value.clone() for key, value in published.items() if "expected" not in key}


@pytest.fixture
def heads():
    """Four people, roughly upright."""
    generator = torch.Generator().manual_seed(1)
    outputs = {head.name: torch.randn(4, head.outputs, generator=generator) for head in HEADS}
    outputs["body_cam"] *= 0.1
    return HeadOutputs(*(outputs[head.name].requires_grad_() for head in HEADS))


def posed_by(heads, body):
    return pose_body(body_parameters(heads, CONFIG.model), body, CONFIG.model, want_vertices=False)


def losses(heads, body, targets, config=CONFIG, protocol="correct"):
    return training_losses(heads, posed_by(heads, body), targets, config, protocol)


def rows(values, which):
    if isinstance(values, HeadOutputs):
        return HeadOutputs(*(value[which].detach() for value in values))
    return {key: value[which] for key, value in values.items()}


def gradients(term, heads):
    return dict(
        zip(
            HeadOutputs._fields,
            torch.autograd.grad(term, heads, materialize_grads=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("hand_loss", [False, True])
def test_published_values_and_gradients(published, targets, random_body_folder, hand_loss):
    config = read_config(f"hand_loss={hand_loss}")
    network = load_network(config.model, PARITY / "snapshot_fp16.pth.tar")
    random_body = BodyLibrary(ModelFolder(random_body_folder, "random")).smplx()
    images = torch.from_numpy(np.load(PARITY / "forward.npz")["img_uint8"]).float() / 255
    terms = losses(network(images), random_body, targets, config, "published")
    total = torch.stack(list(terms.values())).mean(1).sum()
    total.backward()

    prefix = f"expected_hand_loss_{hand_loss}/"
    expected = {k.removeprefix(prefix): v.item() for k, v in published.items() if prefix in k}
    found = {name: term.mean().item() for name, term in terms.items()} | {"total": total.item()}
    for name, parameter in to_published(dict(network.named_parameters())).items():
        if f"gradnorm/{name}" in expected:
            found[f"gradnorm/{name}"] = parameter.grad.norm().item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_chain_on_request(heads, body, targets):
    names = set(losses(heads, body, targets))
    assert "hand_root_chain" in names
    config = read_config("hand_loss=True", "no_chain_hand_loss=True")
    assert set(losses(heads, body, targets, config)) == names - {"hand_root_chain"}


@pytest.mark.parametrize(
    ("weight", "weighed"),
    [
        ("smplx_orient_weight", {"smplx_orient"}),
        ("smplx_pose_weight", {"smplx_pose"}),
        ("smplx_shape_weight", {"smplx_shape"}),
        ("smplx_kps_3d_weight", {"joint_cam", "smplx_joint_cam"}),
        ("smplx_kps_2d_weight", {"joint_proj"}),
        ("smplx_hand_kps_3d_weight", {"hand_align", "hand_pose"}),
        ("hand_root_weight", {"hand_root", "hand_root_chain"}),
    ],
)
def test_weights(heads, body, targets, weight, weighed):
    config = read_config("hand_loss=True", f"{weight}=0.0")
    weightless = {k for k, term in losses(heads, body, targets, config).items() if not term.any()}
    assert weightless == weighed


def test_samples_do_not_depend_on_the_batch(heads, body, targets):
    batch = losses(heads, body, targets)
    for k in range(4):
        row = slice(k, k + 1)
        single = losses(rows(heads, row), body, rows(targets, row))
        for name, term in single.items():
            torch.testing.assert_close(batch[name][row], term, msg=name)


def test_what_is_predicted_exactly_costs_nothing(heads, body, targets):
    """Targets made of the prediction itself, one sample with a body and one with hands alone."""
    with torch.no_grad():
        posed, parameters = posed_by(heads, body), body_parameters(heads, CONFIG.model)
        pose = torch.cat(parameters[:5], dim=1)
        roots = rotation_6d_to_axis_angle(heads.hand_root_pose.unflatten(1, (2, 6)))
        grid = torch.tensor([12 / 192, 16 / 256])
        targets |= {
            "target_joint_img": torch.cat([posed.joints_2d * grid, torch.ones(4, 137, 1)], 2),
            "target_joint_cam": root_relative(posed.joints),
            "target_smplx_joint_cam": part_relative(posed.joints),
            "target_smplx_pose": pose,
            "target_smplx_shape": heads.body_shape,
            "target_smplx_expr": heads.face_expression,
            "target_lhand_root": roots[:, :1],
            "target_rhand_root": roots[:, 1:],
        }
    terms = losses(heads, body, targets)
    for name, term in terms.items():
        if name == "hand_root":
            assert term[1] < 1e-5  # hands alone
            assert term[0] > 0.1  # the head's hand is not where the body's is
        elif name == "hand_root_chain":
            assert term[1] > 0.1
            assert term[[0, 2, 3]].max() < 1e-5
        else:
            assert term.max() < 1e-4, name


def test_root_of_the_body_does_not_learn_from_the_hands(heads, body, targets):
    gradient = gradients(losses(heads, body, targets)["hand_root_chain"].sum(), heads)
    assert not gradient["body_root_pose"].any()
    assert gradient["body_pose"].any()


def test_samples_without_3d_joints_are_not_pulled_to_zero(heads, body, targets):
    without = targets["meta_is_3D"] == 0
    for name in ("joint_cam", "smplx_joint_cam", "hand_align", "hand_pose"):
        assert not losses(heads, body, targets)[name][without].any(), name
        pulled = losses(heads, body, targets, protocol="published")[name]
        assert pulled[without].all() == (name in {"smplx_joint_cam", "hand_pose"}), name


def test_rotations_of_hands_come_from_the_sample_itself(heads, body, targets):
    """A hand alone is compared with its own root, a body's with its chain."""
    before = losses(heads, body, targets)
    targets["target_lhand_root"] += 1
    targets["target_rhand_root"] += 1
    after = losses(heads, body, targets)
    for name in ("hand_root", "hand_root_chain"):
        assert (before[name] != after[name]).tolist() == [False, True, False, False], name


def test_hands_without_known_rotation_do_not_learn_one(heads, body, targets):
    targets["target_lhand_root"][:] = 0
    one_hand = losses(heads, body, targets)["hand_root"]
    targets["target_rhand_root"][:] = 0
    no_hand = losses(heads, body, targets)["hand_root"]
    assert (one_hand > 0).tolist() == [True, True, True, True]
    assert (no_hand > 0).tolist() == [True, False, True, True]


def test_unknown_samples_teach_nothing(heads, body, targets):
    for key in targets:
        if key.startswith("meta"):
            targets[key] = torch.zeros_like(targets[key])
    terms = losses(heads, body, targets)
    assert not torch.stack(list(terms.values())).any()
    for name, gradient in gradients(sum(terms.values()).sum(), heads).items():
        assert not gradient.any(), name


@pytest.mark.parametrize("rotation", [IDENTITY, HALF_TURN, torch.zeros(6)])
def test_gradients_are_finite_where_rotations_are_special(heads, body, targets, rotation):
    with torch.no_grad():
        for name in HeadOutputs._fields:
            if name.endswith("_pose"):
                output = getattr(heads, name)
                output.copy_(rotation.repeat(output.shape[1] // 6))
    targets["target_smplx_pose"][:, :30] = 0
    terms = losses(heads, body, targets)
    for name, gradient in gradients(sum(terms.values()).sum(), heads).items():
        assert gradient.isfinite().all(), name


def test_mixed_precision_changes_nothing(heads, body, targets):
    posed = posed_by(heads, body)
    expected = training_losses(heads, posed, targets, CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        found = training_losses(heads, posed, targets, CONFIG)
    for name, term in found.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, expected[name]), name


def test_joints_relative_to_their_parts(heads, body, targets):
    """A hand moved with its wrist costs `smplx_joint_cam` nothing more, but `joint_cam` does."""
    posed = posed_by(heads, body)
    moved = posed.joints.clone()
    moved[:, JOINT_PARTS["left_hand"]] += 0.3
    wrist = PART_ROOTS["left_hand"]
    moved[:, wrist] += 0.3
    targets["meta_joint_trunc"][:, wrist] = 0
    targets["meta_joint_trunc"][:, JOINTS.index("pelvis")] = 1
    before = training_losses(heads, posed, targets, CONFIG)
    after = training_losses(heads, posed._replace(joints=moved), targets, CONFIG)
    torch.testing.assert_close(after["smplx_joint_cam"], before["smplx_joint_cam"])
    has_3d = targets["meta_is_3D"] > 0
    assert ((after["joint_cam"] - before["joint_cam"]).abs() > 1e-3).tolist() == has_3d.tolist()

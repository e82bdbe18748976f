"""The network and the bodies that it poses, against the published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from models.checkpoint import from_published, load_network, to_published
from models.smplest_x import SMPLestX, body_parameters, part_relative, pose_body, root_relative

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "parity"
HALVES = ("hand_root_pose", "hand_pose", "hand_cam")  # left half, then right half


@pytest.fixture(scope="module")
def network():
    config = load_config(PARITY / "config_base.py")
    return load_network(config.model, PARITY / "snapshot_fp16.pth.tar")


@pytest.fixture(scope="module")
def expected():
    return {k: torch.from_numpy(v) for k, v in np.load(PARITY / "forward.npz").items()}


@pytest.fixture(scope="module")
def images(expected):
    return expected["img_uint8"].float() / 255


def close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_encoder(network, images, expected):
    with torch.inference_mode():
        tokens, features = network.encoder(images)
    close(tokens, expected["encoder_tokens"])
    close(features, expected["encoder_feat"])


def test_heads(network, images, expected):
    with torch.inference_mode():
        heads = network(images)._asdict()
    for name in HALVES:
        left, right = heads.pop(name).chunk(2, dim=1)
        close(left, expected[f"raw_l{name}"])
        close(right, expected[f"raw_r{name}"])
    for name, value in heads.items():
        close(value, expected[f"raw_{name.replace('body_shape', 'body_betas')}"])


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_rows_do_not_depend_on_the_batch(network, images, expected, batch):
    with torch.inference_mode():
        heads = network(images[:1].expand(batch, -1, -1, -1))
    close(heads.body_pose, expected["raw_body_pose"][:1].expand(batch, -1))


def test_bf16_stays_near_and_heads_stay_fp32(images, expected):
    config = load_config(PARITY / "config_base.py")
    network = load_network(config.model, PARITY / "snapshot_fp16.pth.tar", torch.bfloat16)
    assert network.precision == torch.bfloat16
    with torch.inference_mode():
        heads = network(images)
    assert heads.body_cam.dtype == torch.float32
    assert (heads.body_pose - expected["raw_body_pose"]).abs().max() < 0.15


def test_huge_config_has_the_published_keys_and_shapes():
    config = load_config(ROOT / "configs" / "config_smplest_x_h.py")
    with torch.device("meta"):
        network = SMPLestX(config.model)
    published = {k: list(v.shape) for k, v in to_published(network.state_dict()).items()}
    assert published == json.loads((PARITY / "network_h_manifest.json").read_text())
    assert len(published) == 519
    assert sum(p.numel() for p in network.parameters()) == 687_223_152


@pytest.mark.parametrize("size", ["l", "b", "s"])
def test_other_sizes_have_the_same_keys_but_for_depth(size):
    config = load_config(ROOT / "configs" / f"config_smplest_x_{size}.py")
    with torch.device("meta"):
        keys = set(to_published(SMPLestX(config.model).state_dict()))
    huge = set(json.loads((PARITY / "network_h_manifest.json").read_text()))
    assert keys <= huge
    assert all("blocks." in key for key in huge - keys)


def test_key_table_is_one_to_one():
    state = SMPLestX(load_config(ROOT / "configs" / "config_debug.py").model).state_dict()
    back = from_published(to_published(state))
    assert list(back) == list(state)


def test_older_names_are_understood():
    state = {
        "module.backbone.pos_embed": 1,
        "module.smplx_layer.faces": 2,
        "decoder.dec_body_cam.bias": 3,
    }
    assert from_published(state) == {"encoder.pos_embed": 1, "heads.body_cam.bias": 3}


def test_unused_layer_gets_no_gradient_and_others_do():
    network = SMPLestX(load_config(ROOT / "configs" / "config_debug.py").model)
    heads = network(torch.rand(2, 3, 256, 192))
    sum(output.square().sum() for output in heads).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {
        "decoder.to_token_embedding.weight",
        "decoder.to_token_embedding.bias",
    }


def test_stochastic_depth_only_while_training():
    config = load_config(
        ROOT / "configs" / "config_debug.py", ["model.encoder_config.drop_path_rate=0.9"]
    )
    torch.manual_seed(0)
    network = SMPLestX(config.model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.rand(8, 3, 256, 192)
    with torch.inference_mode():
        evaluated = [network.eval().encoder(images)[0] for _ in range(2)]
        trained = [network.train().encoder(images)[0] for _ in range(2)]
    assert torch.equal(*evaluated)
    assert not torch.allclose(*trained)


CONFIG = load_config(PARITY / "config_base.py").model
PARAMETERS = {
    "global_orient": "root_pose",
    "body_pose": "body_pose",
    "left_hand_pose": "lhand_pose",
    "right_hand_pose": "rhand_pose",
    "jaw_pose": "jaw_pose",
    "betas": "shape",
    "expression": "expr",
}


@pytest.fixture(scope="module")
def heads(expected):
    network = load_network(CONFIG, PARITY / "snapshot_fp16.pth.tar")
    with torch.inference_mode():
        return network(expected["img_uint8"].float() / 255)


@pytest.fixture(scope="module")
def body(random_body_folder):
    return BodyLibrary(find_model_folder(random_body_folder)).smplx()


def near(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


def test_parameters(heads, expected):
    parameters = body_parameters(heads, CONFIG)
    for ours, theirs in PARAMETERS.items():
        near(getattr(parameters, ours), expected[f"out_smplx_{theirs}"])
    near(parameters.transl, expected["out_cam_trans"])


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_posed_body(heads, body, expected, rows):
    few = type(heads)(*(output[:rows] for output in heads))
    posed = pose_body(body_parameters(few, CONFIG), body, CONFIG, want_vertices=True)
    assert posed.vertices is not None
    near(posed.vertices[:, ::25], expected["out_smplx_mesh_cam"][:rows])
    near(root_relative(posed.joints), expected["out_smplx_joint_cam"][:rows])
    _, height, width = CONFIG.output_hm_shape
    grid = torch.tensor([width / CONFIG.input_body_shape[1], height / CONFIG.input_body_shape[0]])
    near(posed.joints_2d * grid, expected["out_smplx_joint_proj"][:rows])


def test_joints_do_not_need_vertices(heads, body):
    parameters = body_parameters(heads, CONFIG)
    whole = pose_body(parameters, body, CONFIG, want_vertices=True)
    joints_only = pose_body(parameters, body, CONFIG, want_vertices=False)
    assert joints_only.vertices is None
    near(joints_only.joints, whole.joints)


def test_part_relative_keeps_the_parts_roots_at_zero(heads, body):
    joints = pose_body(body_parameters(heads, CONFIG), body, CONFIG, want_vertices=False).joints
    relative = part_relative(joints)
    assert relative.shape == joints.shape
    near(relative[:, 0], torch.zeros(len(joints), 3))
    near(relative[:, 25:45], joints[:, 25:45] - joints[:, 12:13])
    near(relative[:, 45:65], joints[:, 45:65] - joints[:, 13:14])
    near(relative[:, 65:], joints[:, 65:] - joints[:, 7:8])

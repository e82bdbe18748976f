"""From head outputs to posed bodies, against the published code's test-mode outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from models.checkpoint import load_network
from models.smplest_x import body_parameters, part_relative, pose_body, root_relative

PARITY = Path(__file__).parents[1] / "parity"
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
def expected():
    return {k: torch.from_numpy(v) for k, v in np.load(PARITY / "forward.npz").items()}


@pytest.fixture(scope="module")
def heads(expected):
    network = load_network(CONFIG, PARITY / "snapshot_fp16.pth.tar")
    with torch.inference_mode():
        return network(expected["img_uint8"].float() / 255)


@pytest.fixture(scope="module")
def body(random_body_folder):
    return BodyLibrary(find_model_folder(random_body_folder)).smplx()


def close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


def test_parameters(heads, expected):
    parameters = body_parameters(heads, CONFIG)
    for ours, theirs in PARAMETERS.items():
        close(getattr(parameters, ours), expected[f"out_smplx_{theirs}"])
    close(parameters.transl, expected["out_cam_trans"])


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_posed_body(heads, body, expected, rows):
    few = type(heads)(*(output[:rows] for output in heads))
    posed = pose_body(body_parameters(few, CONFIG), body, CONFIG, want_vertices=True)
    assert posed.vertices is not None
    close(posed.vertices[:, ::25], expected["out_smplx_mesh_cam"][:rows])
    close(root_relative(posed.joints), expected["out_smplx_joint_cam"][:rows])
    _, height, width = CONFIG.output_hm_shape
    grid = torch.tensor([width / CONFIG.input_body_shape[1], height / CONFIG.input_body_shape[0]])
    close(posed.joints_2d * grid, expected["out_smplx_joint_proj"][:rows])


def test_joints_do_not_need_vertices(heads, body):
    parameters = body_parameters(heads, CONFIG)
    whole = pose_body(parameters, body, CONFIG, want_vertices=True)
    joints_only = pose_body(parameters, body, CONFIG, want_vertices=False)
    assert joints_only.vertices is None
    close(joints_only.joints, whole.joints)


def test_part_relative_keeps_the_parts_roots_at_zero(heads, body):
    joints = pose_body(body_parameters(heads, CONFIG), body, CONFIG, want_vertices=False).joints
    relative = part_relative(joints)
    assert relative.shape == joints.shape
    close(relative[:, 0], torch.zeros(len(joints), 3))
    close(relative[:, 25:45], joints[:, 25:45] - joints[:, 12:13])
    close(relative[:, 45:65], joints[:, 45:65] - joints[:, 13:14])
    close(relative[:, 65:], joints[:, 65:] - joints[:, 7:8])

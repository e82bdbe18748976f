"""The estimator, against the published inference path and by its own rules."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.pipeline.estimator import Estimator
from models.checkpoint import load_network
from utils.errors import UserError
from utils.image import read_image

PARITY = Path(__file__).parents[2] / "parity"
SCENE = dict(np.load(PARITY / "scene.npz"))
NAMES = {
    "global_orient": "smplx_root_pose",
    "body_pose": "smplx_body_pose",
    "left_hand_pose": "smplx_lhand_pose",
    "right_hand_pose": "smplx_rhand_pose",
    "jaw_pose": "smplx_jaw_pose",
    "betas": "smplx_shape",
    "expression": "smplx_expr",
    "transl": "cam_trans",
    "focal": "focal",
    "princpt": "princpt",
}


@pytest.fixture(scope="module")
def estimator(random_body_folder):
    config = load_config(PARITY / "config_base.py")
    network = load_network(config.model, PARITY / "snapshot_fp16.pth.tar")
    bodies = BodyLibrary(find_model_folder(random_body_folder))
    return Estimator(config, network, bodies, torch.device("cpu"))


@pytest.fixture(scope="module")
def image():
    return read_image(PARITY / "scene.png")


@pytest.fixture(scope="module")
def people(estimator, image):
    return estimator(image, [tuple(box) for box in SCENE["boxes_xywh"]])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_cameras(people, name):
    close(np.stack([getattr(p, name) for p in people]), SCENE[NAMES[name]])


def test_vertices_and_their_pixels(people):
    vertices = np.stack([person.vertices_m[::25] for person in people])
    close(vertices, SCENE["vertices_every_25th"])
    focal = np.stack([person.focal for person in people])[:, None]
    princpt = np.stack([person.princpt for person in people])[:, None]
    pixels = vertices[..., :2] / vertices[..., 2:] * focal + princpt
    np.testing.assert_allclose(pixels, SCENE["pixels_every_25th"], atol=0.05)


def test_joints_project_to_their_pixels(people):
    for person in people:
        x, y, z = person.joints_3d_m.T
        pixels = np.stack([x, y]) / (z + 1e-4) * person.focal[:, None] + person.princpt[:, None]
        np.testing.assert_allclose(pixels.T, person.joints_2d_px, atol=1e-2)


@pytest.mark.parametrize("count", [1, 3])
def test_people_do_not_depend_on_their_company(estimator, image, people, count):
    few = estimator(image, [tuple(box) for box in SCENE["boxes_xywh"][:count]])
    for one, other in zip(few, people, strict=False):
        np.testing.assert_allclose(one.body_pose, other.body_pose, atol=1e-4)


def test_no_boxes_no_people(estimator, image):
    assert estimator(image, []) == []


def test_box_outside_is_told(estimator, image):
    with pytest.raises(ValueError, match="box 1 has no area"):
        estimator(image, [(0, 0, 50, 50), (10_000, 0, 50, 50)])


def test_vertices_only_when_wanted(estimator, image):
    (person,) = estimator(image, [(0, 0, 50, 50)], want_vertices=False)
    assert person.vertices_m is None


def test_load_names_the_body(caplog):
    estimator = Estimator.load(str(PARITY / "snapshot_fp16.pth.tar"), device="cpu")
    assert "open body (stand-in)" in caplog.text
    assert estimator.body_name == "open body (stand-in)"


def test_unknown_device_is_told():
    with pytest.raises(UserError, match=r"^tpu9: no such device") as caught:
        Estimator.load(str(PARITY / "snapshot_fp16.pth.tar"), device="tpu9")
    assert caught.value.setting == "device"


def test_cuda_graphs_need_cuda(untrained):
    with pytest.raises(UserError, match="needs a CUDA device, and this is cpu"):
        Estimator.load(str(untrained), device="cpu", backend="cuda-graphs")

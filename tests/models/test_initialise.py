"""An untrained network says an average person who stands in the crop, whatever its sizes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from models import initialise
from models.checkpoint import save_safetensors
from models.initialise import average_person, initial_network
from models.smplest_x import body_parameters, pose_body
from utils.errors import UserError
from utils.geometry import axis_angle_to_matrix

DEBUG = Path(__file__).parents[2] / "configs" / "config_debug.py"
SMALLER = (
    "model.encoder_config.img_size=(128, 96)",
    "model.input_body_shape=(128, 96)",
    "model.focal=(2500, 2500)",
    "model.princpt=(48, 64)",
)
NETWORKS = {
    "as it is": (),
    "smaller input": SMALLER,
    "smaller patches": (*SMALLER, "model.encoder_config.patch_size=8"),
    "deeper": ("model.encoder_config.depth=5", "model.decoder_config.depth=1"),
    "other camera": ("model.camera_3d_size=3.0", "model.focal=(3000, 4000)"),
}


@pytest.fixture(scope="module")
def body():
    return BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME)).smplx()


@pytest.mark.parametrize("name", NETWORKS)
def test_average_person_fills_the_crop(name, body):
    config = load_config(DEBUG, NETWORKS[name]).model
    torch.manual_seed(1)
    network = initial_network(config, body).eval()
    height, width = config.input_body_shape
    with torch.inference_mode():
        parameters = body_parameters(network(torch.rand(2, 3, height, width)), config)
        posed = pose_body(parameters, body, config, want_vertices=True)
    expected = average_person(body, config)
    for part, found in parameters._asdict().items():
        wanted = getattr(expected, part).expand_as(found)
        if part.endswith(("orient", "pose")):  # half a turn has two axis-angle vectors
            found, wanted = (
                axis_angle_to_matrix(rotations.unflatten(-1, (-1, 3)))
                for rotations in (found, wanted)
            )
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.1)
    x, y = posed.joints_2d[0].T / torch.tensor([[width], [height]])
    assert 0.05 < y.min() < 0.15
    assert 0.85 < y.max() < 0.95
    assert (x.min() + x.max()) / 2 == pytest.approx(0.5, abs=0.03)
    assert posed.joints_2d[0, 0, 1] < posed.joints_2d[0, 5, 1], "the pelvis is above the ankles"


def test_same_seed_same_weights_and_other_seed_others(body):
    config = load_config(DEBUG).model
    first, again, other = (
        (torch.manual_seed(seed), initial_network(config, body).encoder.pos_embed)[1]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_crop_too_wide_for_the_depth_range_is_refused(body):
    wide = (
        "model.encoder_config.img_size=(128, 256)",
        "model.input_body_shape=(128, 256)",
        "model.princpt=(128, 64)",
    )
    with pytest.raises(
        UserError, match=r"camera_3d_size = 2\.5: .*set it above (\d\.\d+)"
    ) as refused:
        initial_network(load_config(DEBUG, wide).model, body)
    larger = str(refused.value).rpartition(" ")[2]
    config = load_config(DEBUG, (*wide, f"model.camera_3d_size={float(larger) + 0.01}")).model
    for name, parameter in initial_network(config, body).named_parameters():
        assert parameter.isfinite().all(), name


def test_every_weight_is_set(body):
    network = initial_network(load_config(DEBUG).model, body)
    for name, parameter in network.named_parameters():
        assert parameter.isfinite().all(), name
        if name.endswith("weight"):
            assert parameter.abs().max() > 0, name


DEMO = Path(__file__).parents[2] / "configs" / "config_smplest_x_demo.py"
PEOPLE = Path(__file__).parents[2] / "pretrained_models" / "people"
SCENE = Path(__file__).parents[1] / "parity" / "scene.png"


def test_blazepose_stem_sees_what_the_shipped_keypoint_network_sees(body):
    """The shipped file has 8-bit weights, so features agree to some percent."""
    stem = initial_network(load_config(DEMO).model, body).encoder.patch_embed.eval()
    image = torch.from_numpy(np.array(Image.open(SCENE).convert("RGB"))).float() / 255
    square = F.interpolate(image.permute(2, 0, 1)[None], (256, 256), mode="bilinear")
    features = {}
    stem.stages[-1].register_forward_hook(lambda *args: features.update(ours=args[2]))
    with torch.inference_mode():
        stem(square)
    model = onnx.load(PEOPLE / "blazepose_full.onnx")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("model_1/model/add_8/add"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = {"input_1": square.permute(0, 2, 3, 1).numpy()}
    (theirs,) = session.run(["model_1/model/add_8/add"], given)
    ours = features["ours"].numpy()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98


def test_blazepose_convolutions_are_not_trained(body):
    stem = initial_network(load_config(DEMO).model, body).encoder.patch_embed
    trained = {name.split(".")[0] for name, p in stem.named_parameters() if p.requires_grad}
    assert trained == {"conv", "coarse", "fine"}


def test_missing_convolutions_are_one_line(body, monkeypatch, tmp_path):
    path = tmp_path / "other.safetensors"
    save_safetensors({"encoder.pos_embed": torch.zeros(1)}, path, {})
    monkeypatch.setattr(initialise, "_BUNDLED", path)
    with pytest.raises(UserError, match=r"lacks encoder.patch_embed.first.weight; restore it"):
        initial_network(load_config(DEMO).model, body)

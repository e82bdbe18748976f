"""The network in an ONNX file is the network.

Files are written in a process of its own: PyTorch cannot trace what the tests' type checks wrap.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx as onnx_package
import onnxruntime
import pytest
import torch
from PIL import Image

from configs.reader import load_config, save_config
from human_models.safe_pickle import load_npz
from main.inference import main as infer
from main.pipeline.estimator import Estimator
from models import deployment
from models.checkpoint import load_network, save_safetensors
from models.deployment import OnnxNetwork
from models.smplest_x import HeadOutputs, SMPLestX
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SHALLOW = ("model.encoder_config.depth=1", "model.decoder_config.depth=1")
"""Exporting takes as long as there are layers, and all blocks are alike."""
CONVERT = """
import sys
import models.deployment
from main.convert import main
whole, models.deployment.LARGEST_FILE = models.deployment.LARGEST_FILE, 0
status = main([sys.argv[1], "--onnx"])
sys.stderr.write("\\f")
models.deployment.LARGEST_FILE = whole
sys.exit(status or main([sys.argv[2], "--onnx"]))
"""
"""Runs the command for two models; weights of the first one have a file of their own."""


def random_model(folder, config_name, overrides):
    """A model folder whose network's outputs are of a trained one's size."""
    config = load_config(ROOT / "configs" / config_name, overrides)
    torch.manual_seed(0)
    network = SMPLestX(config.model)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    folder.mkdir()
    save_safetensors(network.state_dict(), folder / f"{folder.name}.safetensors", {})
    save_config(config, folder / "config_base.py")
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The debug and the demo model with their ONNX files, and what the command said of each."""
    folder = tmp_path_factory.mktemp("onnx")
    models = (
        random_model(folder / "debug", "config_debug.py", SHALLOW),
        random_model(
            folder / "demo",
            "config_smplest_x_demo.py",
            (*SHALLOW, "model.lifter_config.depth=1"),
        ),
    )
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *map(str, models)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(models, done.stderr.split("\f"), strict=True))


@pytest.fixture(scope="module")
def debug(converted):
    """The model whose weights are beside its ONNX file."""
    return next(folder for folder in converted if folder.name == "debug")


def check_same(folder):
    config = load_config(folder / "config_base.py").model
    network = load_network(config, folder / f"{folder.name}.safetensors")
    onnx_network = OnnxNetwork(folder / f"{folder.name}.onnx", CPU)
    for count in (1, 5):
        images = torch.rand(count, 3, *config.input_body_shape)
        with torch.inference_mode():
            expected = network(images)
        assert max(float(value.abs().max()) for value in expected) > 0.3
        for ours, theirs in zip(onnx_network(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_debug_network_for_any_batch_size_with_its_weights_beside_it(debug):
    names = {path.name for path in debug.iterdir()}
    assert {"debug.onnx", "debug.onnx.data"} <= names
    assert not [name for name in names if name.startswith(".partial")]
    weights, data = debug / "debug.safetensors", debug / "debug.onnx.data"
    assert data.stat().st_size == pytest.approx(weights.stat().st_size, rel=0.2)
    check_same(debug)
    session = onnxruntime.InferenceSession(debug / "debug.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 256, 192]
    assert [output.name for output in session.get_outputs()] == list(HeadOutputs._fields)


@pytest.mark.slow
def test_demo_network_for_any_batch_size_in_one_file(converted):
    folder, stderr = next(one for one in converted.items() if one[0].name == "demo")
    assert len(stderr.splitlines()) == 1
    assert "demo.onnx" in stderr
    assert len(list(folder.iterdir())) == 3
    check_same(folder)


class OfOtherWeights:
    """Stands in for what PyTorch exports: a file that is there already."""

    def __init__(self, path):
        self.path = path
        self.model = SimpleNamespace(graph=SimpleNamespace(inputs=[SimpleNamespace(shape=["s0"])]))

    def rename_axes(self, names):
        assert names == {"s0": "batch"}

    def save(self, path, *, external_data):
        assert not external_data
        path.write_bytes(self.path.read_bytes())
        data = self.path.with_name(f"{self.path.name}.data")
        path.with_name(data.name).write_bytes(data.read_bytes())


@pytest.mark.slow
def test_a_file_that_computes_otherwise_is_not_written(debug, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    written = OfOtherWeights(debug / "debug.onnx")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: written)
    network = SMPLestX(load_config(debug / "config_base.py").model).eval()
    with pytest.raises(UserError, match="differs from PyTorch by"):
        deployment.save_onnx(network, (256, 192), tmp_path / "debug.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_estimator_takes_either(debug, tmp_path):
    crops = torch.rand(3, 256, 192, 3) * 255
    by_torch = Estimator.load(str(debug), device="cpu").predict(crops, want_vertices=True)
    by_onnx = Estimator.load(str(debug), device="cpu", backend="onnx").predict(
        crops, want_vertices=True
    )
    torch.testing.assert_close(by_onnx[1].vertices, by_torch[1].vertices, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="fp32"):
        Estimator.load(str(debug), device="cpu", backend="onnx", precision="bf16")


@pytest.mark.slow
def test_the_inference_command_takes_either(debug, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "someone.png")
    arguments = [str(debug), str(tmp_path / "someone.png"), "--device=cpu", "--no-overlay"]
    found = {}
    for backend in ("torch", "onnx"):
        out = tmp_path / backend
        flags = [f"--backend={backend}", "--detector=whole-image", f"--output={out}"]
        assert infer(arguments + flags) == 0
        found[backend] = load_npz(out / "result_someone" / "person_001.npz")
    for name in ("body_pose", "betas", "transl"):
        np.testing.assert_allclose(found["onnx"][name], found["torch"][name], atol=1e-3)
    assert infer([*arguments, "--backend=onnx", "--precision=bf16"]) == 2


@pytest.mark.slow
def test_each_number_of_threads_has_a_session(debug):
    network = OnnxNetwork(debug / "debug.onnx", CPU)
    images = torch.rand(2, 3, 256, 192)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        other = network(images)
    finally:
        torch.set_num_threads(threads)
    assert set(network._sessions) == {threads, threads + 1}
    torch.testing.assert_close(other.body_pose, network(images).body_pose)


def test_a_missing_and_a_damaged_file_are_reported(tmp_path):
    with pytest.raises(
        UserError, match=r"no such file; make it with: .*main\.convert MODEL_DIR --onnx"
    ):
        OnnxNetwork(tmp_path / "no.onnx", CPU)
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08 no model")
    with pytest.raises(UserError, match="damaged"):
        OnnxNetwork(tmp_path / "bad.onnx", CPU)


def test_a_missing_package_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed.*requirements-onnx\.txt"):
        deployment.OnnxNetwork(tmp_path / "x.onnx", CPU)


def with_weights_in(path, place):
    """A network whose weights are said to lie in another file."""
    helper, kinds = onnx_package.helper, onnx_package.TensorProto
    weights = kinds(name="w", data_type=kinds.FLOAT, dims=[4], data_location=kinds.EXTERNAL)
    weights.external_data.add(key="location", value=place)
    ends = [helper.make_tensor_value_info(name, kinds.FLOAT, [4]) for name in ("images", "y")]
    node = helper.make_node("Add", ["images", "w"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    path.write_bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("place", ["../secret", "secret", "/etc/passwd", "/dev/zero"])
def test_weights_in_files_that_are_not_its_own_are_refused(tmp_path, place):
    (tmp_path / "secret").write_bytes(bytes(16))
    with_weights_in(tmp_path / "x.onnx", place)
    with pytest.raises(UserError, match=r"not in x\.onnx\.data; refused"):
        OnnxNetwork(tmp_path / "x.onnx", CPU)


def test_pipes_are_refused(tmp_path):
    with_weights_in(tmp_path / "x.onnx", "x.onnx.data")
    os.mkfifo(tmp_path / "x.onnx.data")
    os.mkfifo(tmp_path / "y.onnx")
    for name in ("x.onnx", "y.onnx"):
        with pytest.raises(UserError, match="named pipe"):
            OnnxNetwork(tmp_path / name, CPU)


def test_another_network_is_refused(tmp_path):
    with_weights_in(tmp_path / "x.onnx", "x.onnx.data")
    (tmp_path / "x.onnx.data").write_bytes(bytes(16))
    with pytest.raises(UserError, match="belongs to another network"):
        OnnxNetwork(tmp_path / "x.onnx", CPU)

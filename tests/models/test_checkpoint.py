"""Weights in every form they come in, and files that are refused."""

import os
from pathlib import Path

import pytest
import torch

from configs.reader import load_config
from models.checkpoint import load_network, read_network, save_safetensors
from models.checkpoint_keys import to_published
from models.smplest_x import SMPLestX
from utils.errors import UserError

CONFIG = load_config(Path(__file__).parents[2] / "configs" / "config_debug.py").model


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return SMPLestX(CONFIG).state_dict()


def write(path, state, prefix="module.", **more):
    network = {prefix + key: value for key, value in to_published(state).items()}
    torch.save({"epoch": 4, "network": network, **more}, path)
    return path


def assert_holds(network, state):
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_published_form(tmp_path, state):
    moments = {"state": {0: {"exp_avg": torch.zeros(1000)}}, "param_groups": []}
    path = write(tmp_path / "x.pth.tar", state, optimizer=moments)
    network = load_network(CONFIG, path)
    assert_holds(network, state)
    assert not network.training


def test_form_without_prefix_and_with_buffers_of_the_body(tmp_path, state):
    path = tmp_path / "x.pth.tar"
    network = {**to_published(state), "smplx_layer.faces_tensor": torch.zeros(3)}
    torch.save({"network": network}, path)
    assert_holds(load_network(CONFIG, path), state)


def test_form_from_before_zip_archives(tmp_path, state):
    path = tmp_path / "x.pth.tar"
    torch.save({"network": to_published(state)}, path, _use_new_zipfile_serialization=False)
    assert_holds(load_network(CONFIG, path), state)


def test_safetensors_carry_published_names(tmp_path, state):
    save_safetensors(state, tmp_path / "x.safetensors", {"source": "here"})
    assert_holds(load_network(CONFIG, tmp_path / "x.safetensors"), state)


def test_half_precision_file_loads_as_fp32(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", {k: v.half() for k, v in state.items()})
    network = load_network(CONFIG, path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_parameters_are_the_pages_of_the_file(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", state)
    network = load_network(CONFIG, path)
    address = network.encoder.pos_embed.data_ptr()
    mapped = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if "x.pth.tar" in line
    ]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert any(start <= address < end for start, end in ranges)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", state, optimizer=Payload(tmp_path / "ran"))
    with pytest.raises(UserError, match="more than weights"):
        read_network(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_file_is_one_line(tmp_path, state, name, keep):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_safetensors(state, path, {})
    else:
        write(path, state)
    size = int(keep * path.stat().st_size) if isinstance(keep, float) else keep
    os.truncate(path, size)
    with pytest.raises(UserError, match=r"damaged or no checkpoint|more than weights") as error:
        read_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"network": 3}])
def test_other_content_is_named(tmp_path, content):
    torch.save(content, tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match=r"no 'network'|no dictionary"):
        read_network(tmp_path / "x.pth.tar")


def test_missing_file(tmp_path):
    for name in ("x.pth.tar", "x.safetensors"):
        with pytest.raises(UserError, match="no such checkpoint"):
            read_network(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.pos_embed"), "1 missing .*pos_embed"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unknown .*extra"),
        (lambda s: s.update({"encoder.pos_embed": torch.zeros(1, 2, 3)}), "1 of another shape"),
    ],
)
def test_weights_of_another_config_are_refused(tmp_path, state, change, message):
    changed = dict(state)
    change(changed)
    path = write(tmp_path / "x.pth.tar", changed)
    with pytest.raises(UserError, match=message):
        load_network(CONFIG, path)

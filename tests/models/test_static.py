"""Batches of few sizes: the same results as from the network itself."""

import pytest
import torch

from configs.reader import load_config
from models.deployment import StaticNetwork, compiled
from models.smplest_x import SMPLestX
from utils.errors import UserError

CONFIG = load_config("configs/config_debug.py").model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)
    return SMPLestX(CONFIG).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(9, 3, *CONFIG.input_body_shape)


@torch.inference_mode()
def test_batches_are_filled_up_and_cut(network, images):
    made, seen = [], []

    def prepare(given, example):
        assert given is network
        made.append(len(example))

        def program(batch):
            seen.append(len(batch))
            return network(batch)

        return program

    static = StaticNetwork(network, prepare)
    for count in (1, 2, 3, 5, 8, 3):
        for ours, theirs in zip(static(images[:count]), network(images[:count]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert made == [1, 2, 4, 8]
    assert seen == [1, 2, 4, 8, 8, 4]


@torch.inference_mode()
def test_compiled_programs_have_one_size(network, images, monkeypatch):
    asked = []

    def compile_(given, **options):
        asked.append(options)
        return given

    monkeypatch.setattr(torch, "compile", compile_)
    outputs = compiled(network, images[:2])(images[:2])
    assert asked == [{"dynamic": False}]
    assert outputs.body_cam.equal(network(images[:2]).body_cam)


def test_a_compiler_that_fails_is_reported_in_one_line(network, images, monkeypatch):
    def failing(_):
        raise RuntimeError("no g++ here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    with pytest.raises(UserError, match=r"^compile: no g\+\+ here; leave it out$") as caught:
        compiled(network, images[:1])
    assert caught.value.setting == "backend"

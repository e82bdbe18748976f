"""Batches of few sizes: the same results as from the network itself."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from configs.reader import load_config
from models.deployment import StaticNetwork, captured, compiled
from models.smplest_x import HEADS, HeadOutputs, SMPLestX
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


class Cuda:
    """Stands for torch.cuda: knows which device is the current one, and whose its streams are."""

    def __init__(self):
        self.current, self.used = 0, []

    @contextmanager
    def device(self, device):
        before, self.current = self.current, device.index
        yield
        self.current = before

    def Stream(self):  # noqa: N802
        return SimpleNamespace(device=self.current, wait_stream=lambda other: None)

    current_stream = Stream

    @contextmanager
    def stream(self, stream):
        self.used.append(("stream", stream.device))
        yield

    def CUDAGraph(self):  # noqa: N802
        return SimpleNamespace(replay=lambda: self.used.append(("replay", self.current)))

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.used.append(("capture", stream.device))
        yield


class OnSecondGpu(torch.Tensor):
    """Images that say that they are on cuda:1."""

    device = torch.device("cuda:1")


def test_graphs_are_of_the_device_of_the_images(monkeypatch, network, images):
    cuda = Cuda()
    for name in ("device", "Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    outputs = HeadOutputs(
        *(torch.full((1, head.outputs), float(k)) for k, head in enumerate(HEADS))
    )
    monkeypatch.setattr(network, "forward", lambda images: outputs)
    program = captured(network, images[:2].as_subclass(OnSecondGpu))
    assert [output[0, 0].item() for output in program(images[:2])] == list(range(len(outputs)))
    assert cuda.used == [("stream", 1), ("capture", 1), ("replay", 1)]
    assert cuda.current == 0


def test_a_compiler_that_fails_is_reported_in_one_line(network, images, monkeypatch):
    def failing(_):
        raise RuntimeError("no g++ here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    with pytest.raises(UserError, match=r"^compile: no g\+\+ here; leave it out$") as caught:
        compiled(network, images[:1])
    assert caught.value.setting == "backend"

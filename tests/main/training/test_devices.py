"""A training step as on devices that this machine lacks; the device "meta" stands for them.

Its tensors have no values, so that whatever would wait for the device fails.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from main.training.recipes import KEYPOINTS, REGRESSION
from main.training.state import Progress, Run
from main.training.train_log import TrainLog
from models.smplest_x import SMPLestX
from models.supervision import KeypointNetwork, SupervisedSMPLestX
from models.vit import ViT
from tests.main.training.conftest import PARITY
from utils.devices import World

META = torch.device("meta")


class OnlyThere(TorchDispatchMode):
    """Refuses tensors of the CPU, whose copies a device waits for, and float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor):
                assert value.device == META or value.ndim == 0, f"{function}: on the CPU"
                assert value.dtype != torch.float64, f"{function}: float64"
        return result


class NothingOfTheHost(TorchFunctionMode):
    """Refuses numbers and lists of indices that become tensors on the CPU before they are copied.

    PyTorch makes those copies itself, where `OnlyThere` does not see them.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(key, list | tuple) for key in keys), "a list of indices"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def config():
    return load_config("configs/config_smplest_x_demo.py")


@pytest.fixture
def batch(config):
    """Four samples without values."""
    with np.load(PARITY.parent / "losses.npz") as known:
        targets = {key: torch.from_numpy(known[key]) for key in known if "expected" not in key}
    targets["meta_joint_valid"] = targets["meta_joint_trunc"]
    targets["dataset"] = torch.zeros(4, dtype=torch.long)
    targets["input_img"] = torch.zeros(4, *config.model.input_body_shape, 3)
    return {key: value.to(META) for key, value in targets.items()}


def networks(config):
    yield SupervisedSMPLestX(SMPLestX(config.model), config), REGRESSION
    yield KeypointNetwork(ViT(config.model.encoder_config)), KEYPOINTS


def test_a_step_waits_for_nothing_and_needs_no_float64(config, batch, monkeypatch, tmp_path):
    monkeypatch.setattr("main.training.train_log.has_float64", lambda device: False)
    monkeypatch.setattr(TrainLog, "_write_means", lambda *_: None)  # there it waits
    autocast = torch.autocast  # which does not know "meta"
    monkeypatch.setattr(
        torch, "autocast", lambda kind, *given, **how: autocast("cpu", *given, **how)
    )
    (tmp_path / "log").mkdir()
    run = Run(config, tmp_path, META, World(1, 2, 1))
    train_log = TrainLog(run, ["any"], 1, Progress())
    body = BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME)).smplx().to(META)
    for network, recipe in networks(config):
        network.to(META).train()
        with OnlyThere(), NothingOfTheHost():
            with torch.autocast("meta", torch.bfloat16):
                terms = recipe.objective(body, config, network, batch)
            torch.stack([term.mean() for term in terms.values()]).sum().backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert nn.utils.get_total_norm(gradients).shape == ()
            train_log.add(Progress(0, 1), 0.1, [batch], [{k: v.detach() for k, v in terms.items()}])
        train_log._sums = None

"""A training step as devices have it that this machine lacks: the device "meta" stands for them.

Its tensors have no values, so whatever waits for the device fails.
"""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs.reader import load_config
from datasets.training_set import TrainingLoader
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from main.training import log as log_module
from main.training import recipes
from main.training.log import TrainLog
from main.training.recipes import KEYPOINTS, REGRESSION, Keypoints, Regression
from main.training.state import Progress, Run
from models.smplest_x import SMPLestX
from models.supervision import KeypointNetwork, SupervisedSMPLestX
from utils.distributed import World

META = torch.device("meta")


class OnlyThere(TorchDispatchMode):
    """Refuses tensors of the CPU, whose copies a device waits for, and float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor):
                assert value.device == META or value.ndim == 0, f"{function}: on the CPU"
                assert value.dtype != torch.float64, f"{function}: float64"
        return result


@pytest.fixture(scope="module")
def config():
    return load_config("configs/config_smplest_x_demo.py", ["train.clip_grad_norm=1.0"])

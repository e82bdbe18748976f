"""What an iteration minimises: from a batch and a model to the terms of the loss, per sample."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import Config
from human_models.body import BodyModel
from models.losses import training_losses
from models.posing import body_parameters, pose_body

Objective = Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Float[Tensor, " B"]]]


class Regression:
    """SMPL-X parameters of a crop, as published: `models.losses`."""

    def __init__(self, body: BodyModel, config: Config) -> None:
        """`body` is on the device of the batches."""
        self._body, self._config = body, config

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, " B"]]:
        heads = model(images_of(batch))
        parameters = body_parameters(heads, self._config.model)
        posed = pose_body(parameters, self._body, self._config.model, want_vertices=False)
        return training_losses(heads, posed, batch, self._config)


def images_of(batch: Mapping[str, Tensor]) -> Float[Tensor, "B 3 H W"]:
    """The network's input, 0..1."""
    return batch["input_img"].permute(0, 3, 1, 2) / 255


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `train.precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

"""What an iteration minimises: from a batch and a model to the terms of the loss, per sample."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import Config
from human_models.body import BodyModel
from models.auxiliary import keypoint_loss, token_joint_loss
from models.losses import training_losses
from models.pointing import first_glance_loss
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
        heads, keypoints, token_joints, glances = model(images_of(batch))
        config, train = self._config.model, self._config.train
        posed = pose_body(body_parameters(heads, config), self._body, config, want_vertices=False)
        terms = training_losses(heads, posed, batch, self._config)
        if keypoints is not None:
            terms["keypoints"] = train.keypoint_weight * keypoint_loss(keypoints, batch, config)
        if token_joints is not None:
            loss = token_joint_loss(token_joints, batch, config)
            terms["token_joints"] = train.token_joint_weight * loss
        if glances is not None:
            loss = first_glance_loss(glances, batch, config)
            terms["first_glances"] = train.first_glance_weight * loss
        return terms


class Keypoints:
    """Joints on the encoder's feature map: pre-training."""

    def __init__(self, body: BodyModel, config: Config) -> None:
        del body
        self._config = config

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, " B"]]:
        return {"keypoints": keypoint_loss(model(images_of(batch)), batch, self._config.model)}


class Lifting:
    """SMPL-X parameters from joints alone: pre-training of a lifter."""

    def __init__(self, body: BodyModel, config: Config) -> None:
        """`body` is on the device of the batches."""
        self._body, self._config = body, config

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, " B"]]:
        heads, config = model(batch["keypoints"]), self._config.model
        posed = pose_body(body_parameters(heads, config), self._body, config, want_vertices=False)
        return training_losses(heads, posed, batch, self._config)


def images_of(batch: Mapping[str, Tensor]) -> Float[Tensor, "B 3 H W"]:
    """The network's input, 0..1."""
    return batch["input_img"].permute(0, 3, 1, 2) / 255


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `train.precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

"""Recipes: what a run learns, from which data, and how it is evaluated.

`REGRESSION` learns bodies from crops (main.train). `KEYPOINTS` and `LIFTING` are pre-training
(main.pretrain): an encoder learns to find joints, a lifter learns to lift 2D joints to 3D.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import Config
from datasets.training_set import Share, TrainingLoader, TrainingSet
from human_models.body import BodyLibrary, BodyModel
from main.training.optimizer import freeze
from main.training.state import Learner, Run, Snapshots
from main.training.train_log import Terms, TrainLog
from main.training.validation import (
    BodyValidator,
    KeypointValidator,
    LiftingValidator,
    Preview,
    Validator,
    images_of,
    preview_joints,
)
from models.checkpoint import load_weights
from models.initialise import initial_network, load_encoder, load_keypoint_head, save_encoder
from models.losses import training_losses
from models.smplest_x import SMPLestX, body_parameters, pose_body
from models.supervision import (
    KeypointNetwork,
    LiftingNetwork,
    SupervisedSMPLestX,
    attention_loss,
    keypoint_loss,
    token_joint_loss,
)
from synthetic.lifting import People, draw_poses
from utils.errors import UserError
from utils.files import ROOT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """The parts of a run that depend on what is learned."""

    kind: str
    """Prefix of the names of run folders."""
    network: Callable[[Run, Snapshots], nn.Module]
    """The initial network, on the CPU; raises UserError if the config does not describe one, or
    weights do not fit."""
    loader: Callable[[Run], "BatchLoader"]
    """The training data; raises UserError if they are missing."""
    objective: Callable[[BodyModel, Config, nn.Module, Mapping[str, Tensor]], Terms]
    """Computes the loss of a network and a batch; the body is on the device of the batch."""
    validator: Callable[[Run, Learner, TrainLog], Validator]
    preview: Preview | None = None
    finish: Callable[[Run, Learner], None] = lambda run, learner: None
    """Called by the first process at the end."""


def _regression_network(run: Run, snapshots: Snapshots) -> SupervisedSMPLestX:
    network = _initial_network(run, snapshots)
    freeze(network, run.config.train)
    return SupervisedSMPLestX(network, run.config)


def _require_ddp(run: Run) -> None:
    if run.config.train.parallel == "fsdp":
        raise UserError("pre-training does not support train.parallel = 'fsdp'; use 'ddp' instead")


def _keypoint_network(run: Run, snapshots: Snapshots) -> KeypointNetwork:
    _require_ddp(run)
    network = _initial_network(run, snapshots)
    return KeypointNetwork(network.encoder, network.keypoint_head)


def _lifting_network(run: Run, snapshots: Snapshots) -> LiftingNetwork:
    _require_ddp(run)
    if run.config.model.lifter_config is None:
        raise UserError(
            "lifting trains the part that model.lifter_config describes, but the config has none; "
            "start from configs/config_smplest_x_demo.py"
        )
    return LiftingNetwork(_initial_network(run, snapshots))


def _initial_network(run: Run, snapshots: Snapshots) -> SMPLestX:
    """The network at epoch 0, with published weights or a pre-trained encoder.

    A resumed run needs no such files.

    Raises:
        UserError: a weights file is missing, or belongs to another network.
    """
    config, model = run.config, run.config.model
    begins = next(snapshots.newest_first(), None) is None
    encoder = model.encoder_pretrained_model_path
    path = None if encoder is None else ROOT / encoder
    # Check this before making the network: many large ones may not fit into memory.
    if begins and model.pretrained_model_path is None and path is not None and not path.is_file():
        raise UserError(
            f"{path} is missing; put the pre-trained encoder there, or set "
            "model.encoder_pretrained_model_path = None to train from random weights"
        )
    torch.manual_seed(config.train.seed)
    network = initial_network(model, run.bodies.smplx())
    if not begins:
        return network
    if model.pretrained_model_path is not None:
        load_weights(network, ROOT / model.pretrained_model_path)
        log.info("network: weights of %s", model.pretrained_model_path)
    elif path is not None:
        load_encoder(
            network.encoder,
            path,
            interpolate=config.train.interpolate_pos_embed,
            deepen=config.train.deepen_encoder,
        )
        if network.keypoint_head is not None:
            load_keypoint_head(network.keypoint_head, path)
    else:
        log.warning("the encoder starts from random weights, as the config names no weights file")
    return network


def _share(run: Run) -> Share:
    train = run.config.train
    return Share(run.world.rank, run.world.size, train.train_batch_size, train.accumulate_batches)


def crop_loader(run: Run) -> TrainingLoader:
    """Batches of the datasets that the config names."""
    samples = TrainingSet(run.config, run.data_dir, run.bodies.folder)
    pin = run.device.type == "cuda"
    return TrainingLoader(samples, _share(run), workers=run.config.train.num_thread, pin=pin)


class LiftingLoader:
    """Batches of synthetic people without pictures, made on the device."""

    def __init__(self, run: Run) -> None:
        self.names: Final = ("lifting",)
        self.share, self._seed = _share(run), run.config.train.seed
        self.iterations: Final = self.share.iterations(run.config.train.lifting_samples)
        body = BodyLibrary(run.bodies.folder).smplx()
        rest = body.rest_joints(torch.zeros(1, body.num_betas))[0]
        poses = draw_poses(rest.numpy(), self._seed, run.config.train.lifting_poses)
        self._people = People(poses, body.to(run.device), run.config.model)

    def epoch(self, epoch: int, first_iteration: int = 0) -> Iterator[list[dict[str, Tensor]]]:
        share = self.share
        for iteration in range(first_iteration, self.iterations):
            seeds = [
                np.random.SeedSequence((self._seed, epoch, iteration, batch, share.rank))
                for batch in range(share.accumulate)
            ]
            yield [
                self._people.batch(share.batch_size, int(seed.generate_state(1, np.uint64)[0]))
                for seed in seeds
            ]

    def close(self) -> None:
        pass


BatchLoader = TrainingLoader | LiftingLoader
"""The batches of each iteration of an epoch, as functions of the iteration's number."""


def regression(
    body: BodyModel, config: Config, network: nn.Module, batch: Mapping[str, Tensor]
) -> Terms:
    """SMPL-X parameters of a crop, as published: `models.losses`."""
    heads, keypoints, token_joints, attention = network(images_of(batch))
    model, train = config.model, config.train
    posed = pose_body(body_parameters(heads, model), body, model, want_vertices=False)
    terms = training_losses(heads, posed, batch, config)
    if keypoints is not None:
        terms["keypoints"] = train.keypoint_weight * keypoint_loss(keypoints, batch, model)
    if token_joints is not None:
        loss = token_joint_loss(token_joints, batch, model)
        terms["token_joints"] = train.token_joint_weight * loss
    if attention is not None:
        loss = attention_loss(attention, batch, model)
        terms["attention"] = train.attention_weight * loss
    return terms


def _keypoints(
    _: BodyModel, config: Config, network: nn.Module, batch: Mapping[str, Tensor]
) -> Terms:
    """Joints on the encoder's feature map, for pre-training."""
    return {"keypoints": keypoint_loss(network(images_of(batch)), batch, config.model)}


def _lifting(
    body: BodyModel, config: Config, network: nn.Module, batch: Mapping[str, Tensor]
) -> Terms:
    """SMPL-X parameters from 2D joints, for pre-training of a lifter."""
    heads, model = network(batch["keypoints"]), config.model
    posed = pose_body(body_parameters(heads, model), body, model, want_vertices=False)
    return training_losses(heads, posed, batch, config)


def _write_encoder(run: Run, learner: Learner) -> None:
    """Write the encoder, with averaged weights if the run averages them."""
    assert isinstance(learner.network, KeypointNetwork)
    path = run.folder / "model_dump" / "encoder.pth"
    with learner.average.in_place() if learner.average else nullcontext():
        save_encoder(learner.network, path)
    log.info("encoder: %s", path)


REGRESSION: Final = Recipe(
    kind="train",
    network=_regression_network,
    loader=crop_loader,
    objective=regression,
    validator=BodyValidator,
    preview=preview_joints,
)
KEYPOINTS: Final = Recipe(
    kind="pretrain",
    network=_keypoint_network,
    loader=crop_loader,
    objective=_keypoints,
    validator=KeypointValidator,
    finish=_write_encoder,
)
LIFTING: Final = Recipe(
    kind="pretrain",
    network=_lifting_network,
    loader=LiftingLoader,
    objective=_lifting,
    validator=LiftingValidator,
)

"""What runs learn: bodies from crops (main.train); joints, or what they mean (main.pretrain)."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from configs.schema import Config
from human_models.body import BodyModel
from main.training.batches import LiftingLoader, crops
from main.training.body_validation import BodyValidator
from main.training.course import Course
from main.training.keypoint_validation import KeypointValidator
from main.training.lifting_validation import LiftingValidator
from main.training.objective import Keypoints, Lifting, Regression
from main.training.optimizer import freeze
from main.training.pictures import JointPreview
from main.training.setup import starting_network
from main.training.state import Learner, Snapshots
from models.supervised import KeypointNetwork, LiftingNetwork, SupervisedSMPLestX
from models.vitpose import save_encoder
from utils.errors import UserError

log = logging.getLogger(__name__)


def start_regression(config: Config, body: BodyModel, snapshots: Snapshots) -> SupervisedSMPLestX:
    """The network that learns, on the CPU; raises UserError where its first weights do not fit."""
    network = starting_network(config, body, snapshots)
    freeze(network, config.train)
    return SupervisedSMPLestX(network, config)


def start_keypoints(config: Config, body: BodyModel, snapshots: Snapshots) -> KeypointNetwork:
    """The encoder that learns, on the CPU; raises UserError where its first weights do not fit."""
    if config.train.parallel == "fsdp":
        raise UserError(
            "pre-training has no train.parallel = 'fsdp'; use 'ddp', encoders are small"
        )
    encoder = starting_network(config, body, snapshots).encoder
    return KeypointNetwork(encoder, config.model.encoder_config.embed_dim)


def start_lifting(config: Config, body: BodyModel, snapshots: Snapshots) -> LiftingNetwork:
    """The network whose lifter learns, on the CPU; raises UserError where it has none, or where
    its first weights do not fit."""
    if config.train.parallel == "fsdp":
        raise UserError("lifting has no train.parallel = 'fsdp'; use 'ddp', lifters are small")
    if config.model.lifter_config is None:
        raise UserError(
            "--stage lifting teaches the part that model.lifter_config describes, and the config "
            "has none; take configs/config_smplest_x_demo.py"
        )
    return LiftingNetwork(starting_network(config, body, snapshots))


def write_encoder(learner: Learner, folder: Path) -> None:
    """Write the encoder, averaged if the run averages its weights."""
    assert isinstance(learner.network, KeypointNetwork)
    path = folder / "model_dump" / "encoder.pth"
    with learner.average.in_place() if learner.average else nullcontext():
        save_encoder(learner.network, path)
    log.info("encoder: %s", path)


REGRESSION: Final = Course(
    "train", start_regression, Regression, crops, BodyValidator, preview=JointPreview
)
KEYPOINTS: Final = Course(
    "pretrain", start_keypoints, Keypoints, crops, KeypointValidator, write_encoder
)
LIFTING: Final = Course("pretrain", start_lifting, Lifting, LiftingLoader, LiftingValidator)

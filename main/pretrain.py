"""Encoder pre-training: `python -m main.pretrain JOB_NAME CONFIG_FILE [flags]`.

The ViT of the config learns to find joints in the crops of any HumanData sets, without task tokens,
as ViTPose does. At the end of a run outputs/pretrain_JOB_DATE/model_dump/encoder.pth is a file of
ViTPose's form, for `model.encoder_pretrained_model_path`. scripts/pretrain.sh starts the processes.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from configs.schema import Config
from human_models.body import BodyModel
from main.door import door_parser, run_door
from main.training.course import Course, add_run_arguments, run_course
from main.training.keypoint_validation import KeypointValidator
from main.training.objective import Keypoints
from main.training.setup import starting_network
from main.training.state import Learner, Snapshots
from models.supervised import KeypointNetwork
from models.vitpose import save_encoder
from utils.errors import UserError

log = logging.getLogger(__name__)


def start(config: Config, body: BodyModel, snapshots: Snapshots) -> KeypointNetwork:
    """The encoder that learns, on the CPU; raises UserError where its first weights do not fit."""
    if config.train.parallel == "fsdp":
        raise UserError(
            "pre-training has no train.parallel = 'fsdp'; use 'ddp', encoders are small"
        )
    encoder = starting_network(config, body, snapshots).encoder
    return KeypointNetwork(encoder, config.model.encoder_config.embed_dim)


def finish(learner: Learner, folder: Path) -> None:
    """Write the encoder, averaged if the run averages its weights."""
    assert isinstance(learner.network, KeypointNetwork)
    path = folder / "model_dump" / "encoder.pth"
    with learner.average.in_place() if learner.average else nullcontext():
        save_encoder(learner.network, path)
    log.info("encoder: %s", path)


KEYPOINTS: Final = Course("pretrain", start, Keypoints, KeypointValidator, finish)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("pretrain", "Pre-train an encoder, as one process of a run.")
    add_run_arguments(parser)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), partial(run_course, KEYPOINTS), words)


if __name__ == "__main__":
    sys.exit(main())

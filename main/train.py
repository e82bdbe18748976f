"""The training door: `python -m main.train JOB_NAME CONFIG_FILE [flags]`, one process of a run.

scripts/train.sh starts as many as there are GPUs. A run lives in outputs/train_JOB_DATE: `log`
(train.log, metrics.jsonl, TensorBoard), `model_dump` (snapshots), `code` (command, commit,
changes) and config_base.py.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from configs.schema import Config
from human_models.body import BodyModel
from main.door import door_parser, run_door
from main.training.course import Course, add_run_arguments, run_course
from main.training.objective import Regression
from main.training.optimizer import freeze
from main.training.pictures import JointPreview
from main.training.setup import starting_network
from main.training.state import Snapshots
from main.training.validation import Validator
from models.supervised import SupervisedSMPLestX


def start(config: Config, body: BodyModel, snapshots: Snapshots) -> SupervisedSMPLestX:
    """The network that learns, on the CPU; raises UserError where its first weights do not fit."""
    network = starting_network(config, body, snapshots)
    freeze(network, config.train)
    return SupervisedSMPLestX(network, config)


REGRESSION: Final = Course("train", start, Regression, Validator, preview=JointPreview)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("train", "Train a network, as one process of a run.")
    add_run_arguments(parser)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), partial(run_course, REGRESSION), words)


if __name__ == "__main__":
    sys.exit(main())

"""The training door: `python -m main.train JOB_NAME CONFIG_FILE [flags]`, one process of a run.

scripts/train.sh starts as many as there are GPUs. A run lives in outputs/train_JOB_DATE: `log`
(train.log, metrics.jsonl, TensorBoard), `model_dump` (snapshots), `code` (command, commit,
changes) and config_base.py.
"""

import argparse
import sys
from collections.abc import Sequence

from main.door import add_run_flags, door_parser, run_door


def run(arguments: argparse.Namespace) -> int:
    from main.training.recipes import REGRESSION
    from main.training.run import RunOptions, run_training

    return run_training(REGRESSION, RunOptions(**run_arguments(arguments)))


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("train", "Train a network, as one process of a run.")
    add_run_flags(parser)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

"""Training: `python -m main.train JOB_NAME CONFIG_FILE [flags]`, one process of a run.

scripts/train.sh starts one process per GPU. The folder of a run is outputs/train_JOB_DATE, with
`log` (train.log, metrics.jsonl, TensorBoard), `model_dump` (snapshots), `code` (command, commit,
changes) and config_base.py.
"""

import argparse
import sys

from main.cli import add_run_flags, as_options, command, command_parser, quick_imports


def run(arguments: argparse.Namespace) -> int:
    with quick_imports():
        from main.training import REGRESSION, RunOptions, run_training

    return run_training(REGRESSION, as_options(RunOptions, arguments))


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("train", "Train a network, as one process of a run.")
    add_run_flags(parser)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())

"""The training door: `python -m main.train JOB_NAME CONFIG_FILE [flags]`, one process of a run.

scripts/train.sh starts as many as there are GPUs. A run lives in outputs/train_JOB_DATE: `log`
(train.log, metrics.jsonl, TensorBoard), `model_dump` (snapshots), `code` (command, commit,
changes) and config_base.py.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import torch

from configs.reader import load_config
from configs.schema import Config
from datasets.training_set import Share, TrainingLoader, TrainingSet
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.door import add_config_flags, door_parser, run_door
from main.model_files import OUTPUTS, ROOT
from main.training.log import TrainLog, log_file
from main.training.objective import Regression
from main.training.optimizer import freeze
from main.training.setup import (
    first_progress,
    make_learner,
    parallel,
    record,
    run_folder,
    starting_network,
)
from main.training.state import Snapshots
from main.training.trainer import Stopped, StopRequest, Trainer
from main.training.validation import Validator
from utils.distributed import World, device_of_process, failing_together, process_group, world

STOPPED: Final = 128 + signal.SIGTERM
"""Exit status of a run that a signal ended and that can go on."""


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on with training, to the end of the config's last epoch."""
    stop = StopRequest()
    signal.signal(signal.SIGTERM, stop.make)
    if not world().is_first:
        logging.disable()  # the first process tells what all of them find
    device = device_of_process(arguments.device)
    with process_group(device) as here:
        with failing_together("config"):
            config = load_config(arguments.config_file, arguments.overrides)
        # A worker that died and was started again by torchrun goes on where it was.
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        go_on = config.train.continue_train or restarted
        folder = run_folder(arguments.job_name, arguments.output, go_on=go_on, world=here)
        with log_file(folder / "log" / "train.log") if here.is_first else nullcontext():
            return _run(config, folder, device, here, stop)


def _run(config: Config, folder: Path, device: torch.device, here: World, stop: StopRequest) -> int:
    train, data_dir = config.train, ROOT / config.data.data_dir
    snapshots = Snapshots(
        folder / "model_dump", train.keep_last if train.remove_checkpoint else None
    )
    with failing_together("set-up"):
        bodies = BodyLibrary(find_model_folder(ROOT / config.model.human_model_path))
        samples = TrainingSet(config, data_dir, bodies.folder)
        share = Share(here.rank, here.size, train.train_batch_size, train.accumulate_batches)
        pin = device.type == "cuda"
        loader = TrainingLoader(samples, share, workers=train.num_thread, pin=pin)
        network = starting_network(config, bodies.smplx(), snapshots)
        freeze(network, train)
        if here.is_first:
            record(folder, config, sys.argv)
    model = parallel(network.to(device), config, device, here)
    learner = make_learner(network, config)
    with failing_together("start"):
        progress = first_progress(learner, snapshots, config)
        train_log = TrainLog(
            folder / "log",
            samples.names,
            every=train.print_iters,
            iterations=train.end_epoch * loader.iterations,
            start=progress,
            device=device,
            world=here,
        )
        validator = Validator(config, learner, bodies, data_dir, train_log, device, here)
    logging.disable(logging.NOTSET if here.is_first else logging.INFO)
    objective = Regression(bodies.smplx().to(device), config)
    trainer = Trainer(
        train,
        learner,
        model,
        objective,
        loader,
        validator,
        snapshots,
        train_log,
        stop,
        device,
        here,
    )
    try:
        trainer.train(progress)
    except Stopped:
        return STOPPED
    finally:
        train_log.close()
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("train", "Train a network, as one process of a run.")
    parser.add_argument("job_name", metavar="JOB_NAME", help="of the run's folder in outputs/")
    parser.add_argument("config_file", metavar="CONFIG_FILE", help="e.g. configs/config_debug.py")
    parser.add_argument("--output", type=Path, default=OUTPUTS, help="where runs have folders")
    add_config_flags(parser)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())

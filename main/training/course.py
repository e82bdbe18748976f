"""A run from its command line to its end, whatever it is that learns."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from configs.reader import load_config
from configs.schema import Config
from datasets.training_set import Share
from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from main.launch import LAUNCH_DATE
from main.paths import ROOT
from main.training.batches import BatchLoader
from main.training.log import TrainLog, log_file
from main.training.objective import Objective
from main.training.peers import one_tells
from main.training.pictures import Preview
from main.training.setup import first_progress, make_learner, parallel, record, run_folder
from main.training.state import Learner, Snapshots
from main.training.trainer import Stopped, StopRequest, Trainer, Validation
from utils.distributed import World, device_of_process, failing_together, process_group, world

STOPPED: Final = 128 + signal.SIGTERM
"""Exit status of a run that a signal ended and that can go on."""


@dataclass(frozen=True)
class Course:
    """What learns, from what, and how it is judged."""

    kind: str
    """Begins the names of its runs' folders."""
    start: Callable[[Config, BodyModel, Snapshots], nn.Module]
    objective: Callable[[BodyModel, Config], Objective]
    loader: Callable[[Config, BodyLibrary, Share, torch.device], BatchLoader]
    """What it learns from; raises UserError where that is missing."""
    validation: Callable[
        [Config, Learner, BodyLibrary, Path, TrainLog, torch.device, World], Validation
    ]
    finish: Callable[[Learner, Path], None] = lambda learner, folder: None
    """What the first process does in the run's folder at the end."""
    preview: Callable[[BodyModel, Config], Preview] | None = None
    """Pictures of what the network makes of a batch."""


def run_course(course: Course, arguments: argparse.Namespace) -> int:
    """Train, or go on with training, to the end of the config's last epoch; an exit status."""
    stop = StopRequest()
    signal.signal(signal.SIGTERM, stop.make)
    if not world().is_first:
        logging.disable()  # the first process tells what all of them find
    device = device_of_process(arguments.device)
    with process_group(device) as here:
        with failing_together("config"):
            config = load_config(arguments.config_file, arguments.overrides)
        since = "" if config.train.continue_train else _date_if_restarted()
        name, outputs = arguments.job_name, arguments.output
        folder = run_folder(course.kind, name, outputs, since=since, world=here)
        if not here.is_first:
            logging.disable(logging.WARNING)  # of errors, `one_tells` decides who tells
        with log_file(folder / "log" / "train.log"), one_tells(here):
            return _run(course, config, folder, device, here, stop)


def _date_if_restarted() -> str | None:
    """A worker that died and was started again by torchrun goes on where it was."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    return os.environ.get(LAUNCH_DATE, "")


def _run(
    course: Course,
    config: Config,
    folder: Path,
    device: torch.device,
    here: World,
    stop: StopRequest,
) -> int:
    train, data_dir = config.train, ROOT / config.data.data_dir
    keep = train.keep_last if train.remove_checkpoint else None
    snapshots = Snapshots(folder / "model_dump", keep)
    with failing_together("set-up"):
        bodies = BodyLibrary(find_model_folder(ROOT / config.model.human_model_path))
        share = Share(here.rank, here.size, train.train_batch_size, train.accumulate_batches)
        network = course.start(config, bodies.smplx(), snapshots)
        loader = course.loader(config, bodies, share, device)
        if here.is_first:
            snapshots.forget_partial()
            record(folder, config, sys.argv)
    model = parallel(network.to(device), config, device, here)
    learner = make_learner(network, config)
    with failing_together("start"):
        progress = first_progress(learner, snapshots, config)
        train_log = TrainLog(
            folder / "log",
            loader.names,
            every=train.print_iters,
            iterations=train.end_epoch * loader.iterations,
            start=progress,
            done=progress.epoch * loader.iterations + progress.iteration,
            device=device,
            world=here,
        )
        validation = course.validation(config, learner, bodies, data_dir, train_log, device, here)
    logging.disable(logging.NOTSET if here.is_first else logging.INFO)
    body = bodies.smplx().to(device)
    objective = course.objective(body, config)
    preview = course.preview(body, config) if course.preview else None
    trainer = Trainer(
        *(train, learner, model, objective, loader, validation, preview),
        *(snapshots, train_log, stop, device, here),
    )
    try:
        trainer.train(progress)
        if here.is_first:
            course.finish(learner, folder)
    except Stopped:
        return STOPPED
    finally:
        loader.close()
        train_log.close()
    return 0

"""A training run from start to end: config, data, network, processes, trainer, epochs."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from configs.reader import load_config
from main.training.optimizer import AveragedWeights, make_optimizer
from main.training.recipes import Recipe
from main.training.state import Learner, Run, Snapshots, record, resume, run_folder
from main.training.train_log import TrainLog, log_file
from main.training.trainer import Interrupted, StopRequest, Task, Trainer
from models.smplest_x import Layer
from models.vit import Block
from utils.devices import (
    LAUNCH_DATE,
    World,
    device_of_process,
    failing_together,
    one_error_report,
    process_group,
    world,
)
from utils.files import exclusive, remove_leftovers

INTERRUPTED: Final = 128 + signal.SIGTERM
"""Exit status of a run that a signal ended and that can be resumed."""
_LOCK_PATIENCE_S: Final = 30


@dataclass(frozen=True)
class RunOptions:
    """The command line of a run; everything else is in its config."""

    job_name: str
    config_file: str
    output: Path
    """Parent of the run's folder."""
    device: str
    overrides: tuple[str, ...]
    """Changes of the config, as "section.key=value"."""


def run_training(recipe: Recipe, options: RunOptions, stop: StopRequest | None = None) -> int:
    """Train, or resume training, up to the config's last epoch; returns an exit status.

    Every process of the run calls it.

    Args:
        stop: set by SIGTERM and SIGHUP while it trains. Before, there is nothing to save, and these
            signals end the process as they do elsewhere.

    Raises:
        UserError: the config, the data or the weights are not usable, or training failed.
    """
    stop = stop or StopRequest()
    if not world().is_first:
        logging.disable()  # the first process logs for all of them
    device = device_of_process(options.device)
    with process_group(device) as here:
        with failing_together("config"):
            config = load_config(options.config_file, options.overrides)
        since = "" if config.train.continue_train else _date_if_restarted()
        name, outputs = options.job_name, options.output
        folder = run_folder(recipe.kind, name, outputs, since=since, world=here)
        if not here.is_first:
            logging.disable(logging.WARNING)  # `one_error_report` decides who reports errors
        with log_file(folder / "log" / "train.log"), one_error_report(here), _locked(folder, here):
            return _train(recipe, Run(config, folder, device, here), stop)


def _train(recipe: Recipe, run: Run, stop: StopRequest) -> int:
    config, is_first = run.config, run.world.is_first
    keep = config.train.keep_last if config.train.remove_checkpoint else None
    snapshots = Snapshots(run.folder / "model_dump", keep)
    with failing_together("set-up"):
        network = recipe.network(run, snapshots)
        loader = recipe.loader(run)
        if is_first:
            remove_leftovers(snapshots.folder, None)
            record(run, sys.argv)
    learner = _learner(network, run)
    with failing_together("start"):
        progress = resume(run, learner, snapshots)
        train_log = TrainLog(run, loader.names, loader.iterations, progress)
        validator = recipe.validator(run, learner, train_log)
    logging.disable(logging.NOTSET if is_first else logging.INFO)
    preview = partial(recipe.preview, run.body, config) if recipe.preview else None
    task = Task(partial(recipe.objective, run.body, config), loader, validator, preview)
    trainer = Trainer(run, learner, task, snapshots, train_log, stop)
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop.request)
        trainer.train(progress)
        if is_first:
            recipe.finish(run, learner)
    except Interrupted:
        return INTERRUPTED
    finally:
        loader.close()
        train_log.close()
        snapshots.close()
    return 0


@contextmanager
def _locked(folder: Path, here: World) -> Iterator[None]:
    """Lock the run's folder, because two processes that resume a run would overwrite its files.

    Loader workers of a killed process hold the lock for some seconds more.
    """
    busy = f"{folder} is being trained by another process; wait for its end, or use another name"
    with failing_together("lock"), ExitStack() as stack:
        if here.is_first:
            stack.enter_context(exclusive(folder / "lock", busy, _LOCK_PATIENCE_S))
        held = stack.pop_all()
    with held:
        yield


def _date_if_restarted() -> str | None:
    """The launch date of the run that a process resumes after torchrun has restarted it."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    return os.environ.get(LAUNCH_DATE, "")


def _learner(network: nn.Module, run: Run) -> Learner:
    """The network on its device, distributed over the processes, with its optimizer."""
    model = _parallel(network.to(run.device), run)
    decay = run.config.train.ema_decay
    average = None if decay is None else AveragedWeights(network, decay)
    return Learner(network, model, make_optimizer(network, run.config.train), average)


def _parallel(network: nn.Module, run: Run) -> nn.Module:
    """The network distributed over the processes of the run; with fsdp, the same module."""
    train = run.config.train
    if train.compile:
        network.compile(dynamic=False)
    if run.world.size == 1:
        return network  # nothing to distribute, whatever train.parallel is
    if train.parallel == "fsdp":
        return sharded(network, run.device, run.world.size)
    return replicated(network, run.device)


def sharded(network: nn.Module, device: torch.device, processes: int) -> nn.Module:
    """The same module, with its parameters sharded over the processes (FSDP)."""
    # Without this, the mesh would consist of GPUs if the machine has any.
    mesh = init_device_mesh(device.type, (processes,))
    # Weights are exchanged as float32: autocast decides what is computed in bf16, as with ddp.
    for part in network.modules():
        if isinstance(part, Block | Layer):
            fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def replicated(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, with gradients averaged over the processes (DDP)."""
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)

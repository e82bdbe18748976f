"""What training starts with: a run's folder, and a network that learns, from wherever it begins."""

import json
import logging
import subprocess
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Final

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from configs.reader import save_config
from configs.schema import Config
from human_models.body import BodyModel
from main.launch import DATE
from main.paths import CONFIG_NAME, ROOT
from main.training.optimizer import AveragedWeights, make_optimizer
from main.training.state import Learner, Progress, Snapshots
from models.checkpoint import load_weights
from models.decoder import Layer
from models.initialise import initial_network
from models.smplest_x import SMPLestX
from models.vit import Block
from models.vitpose import load_encoder, load_keypoint_head
from utils.distributed import World, failing_together
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

FOLDERS: Final = ("log", "model_dump", "code", "result")


def run_folder(kind: str, job: str, outputs: Path, *, since: str | None, world: World) -> Path:
    """The folder of a run, the same for all processes: outputs/KIND_JOB_DATE.

    Args:
        since: go on with the newest that is there, if there is one of this date or a later one.

    Raises:
        UserError: the name is no folder's, or the folder cannot be made.
    """
    date = datetime.now().astimezone().strftime(DATE)
    with failing_together("run folder"):
        if Path(job).name != job:
            raise UserError(f"JOB_NAME '{job}' becomes a folder's name; leave slashes out")
        found = {} if since is None else _runs(outputs, f"{kind}_{job}_")
        newest = max(found, default="")
        folder = found[newest] if newest and newest >= (since or "") else None
        folder = folder or outputs / f"{kind}_{job}_{date}"
        if world.is_first:
            for name in FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
    if world.size > 1:
        told = [folder]
        distributed.broadcast_object_list(told)
        folder = told[0]
    return folder


def _runs(outputs: Path, prefix: str) -> dict[str, Path]:
    """Runs whose names begin so, by their dates."""
    named = {path.name.removeprefix(prefix): path for path in outputs.glob(f"{escape(prefix)}*")}
    return {
        date: path
        for date, path in named.items()
        if (path / "model_dump").is_dir() and date.replace("_", "").isdigit()
    }


def record(folder: Path, config: Config, words: list[str]) -> None:
    """Write down what runs: the resolved config, the command, and the state of the code."""
    save_config(config, folder / CONFIG_NAME)
    about = {
        "command": words,
        "commit": _git("rev-parse", "HEAD").strip(),
        "torch": torch.__version__,
        "started": datetime.now().astimezone().isoformat(),
    }
    with atomic_path(folder / "code" / "run.json") as partial:
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with atomic_path(folder / "code" / "changes.patch") as partial:
        partial.write_text(_git("diff", "HEAD"), encoding="utf-8")


def _git(*words: str) -> str:
    """What git says; nothing where the code is in no repository."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def starting_network(config: Config, body: BodyModel, snapshots: Snapshots) -> SMPLestX:
    """The network as training from epoch 0 begins: published weights, or a pre-trained encoder.

    A run that can go on needs no such files.

    Raises:
        UserError: a weights file is missing or of another network.
    """
    torch.manual_seed(config.train.seed)
    network = initial_network(config.model, body)
    if next(snapshots.newest_first(), None) is not None:
        return network
    model = config.model
    if model.pretrained_model_path is not None:
        load_weights(network, ROOT / model.pretrained_model_path)
        log.info("network: weights of %s", model.pretrained_model_path)
    elif model.encoder_pretrained_model_path is not None:
        path = ROOT / model.encoder_pretrained_model_path
        if not path.is_file():
            raise UserError(
                f"{path} is missing; put the pre-trained encoder there, or set "
                "model.encoder_pretrained_model_path = None to train from random weights"
            )
        load_encoder(
            network.encoder,
            path,
            interpolate=config.train.interpolate_pos_embed,
            deepen=config.train.deepen_encoder,
        )
        if network.keypoint_head is not None:
            load_keypoint_head(network.keypoint_head, path)
    else:
        log.warning("the encoder begins with random weights: no file of pre-trained ones is named")
    return network


def parallel(network: nn.Module, config: Config, device: torch.device, world: World) -> nn.Module:
    """The network as the processes of a run share it; with fsdp the same module, in parts."""
    train = config.train
    if train.compile:
        network.compile(dynamic=False)
    if train.parallel == "fsdp":
        # Weights travel as float32: what is computed in bf16, autocast decides, as with ddp.
        for part in network.modules():
            if isinstance(part, Block | Layer):
                fully_shard(part)
        fully_shard(network)
        return network
    if world.size == 1:
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)


def make_learner(network: nn.Module, config: Config) -> Learner:
    """Call it when the network is frozen, on its device, and in parts if it is to be."""
    average = config.train.ema_decay
    return Learner(
        network,
        make_optimizer(network, config.train),
        None if average is None else AveragedWeights(network, average),
    )


def first_progress(learner: Learner, snapshots: Snapshots, config: Config) -> Progress:
    """Take up the newest whole state of a run's folder, or what the config says to go on from.

    Raises:
        UserError: none of the folder's states can be read, or model.pretrained_model_path holds no
            state to go on from.
    """
    paths = list(snapshots.newest_first())
    for path in paths:
        try:
            progress = learner.restore(path)
        except UserError as error:
            log.warning("%s; trying an older one", error)
        else:
            log.info("goes on from %s", path)
            return progress
    if paths:
        raise UserError(
            f"{snapshots.folder}: none of its {len(paths)} snapshots can be gone on from; start a "
            "run of another name"
        )
    path_given = config.model.pretrained_model_path
    if path_given is not None and not config.train.start_over:
        return learner.restore(ROOT / path_given)
    return Progress()

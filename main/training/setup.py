"""What training starts with: a run's folder, and a network that learns, from wherever it begins."""

import json
import logging
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Final

import torch
from torch import distributed, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from configs.reader import save_config
from configs.schema import Config
from human_models.body import BodyModel
from main.model_files import CONFIG_NAME, ROOT
from main.training.optimizer import AveragedWeights, make_optimizer
from main.training.state import Learner, Progress, Snapshots
from models.checkpoint import load_weights
from models.decoder import Layer
from models.initialise import initial_network
from models.smplest_x import SMPLestX
from models.vit import Block
from models.vitpose import load_encoder
from utils.distributed import World
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

FOLDERS: Final = ("log", "model_dump", "code", "result")


def run_folder(kind: str, job: str, outputs: Path, *, go_on: bool, world: World) -> Path:
    """The folder of a run, the same for all processes: outputs/KIND_JOB_DATE.

    Args:
        go_on: take the newest that is there, if any.
    """
    found = sorted(path for path in outputs.glob(f"{kind}_{job}_*") if _is_run(path, kind, job))
    date = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
    folder = found[-1] if go_on and found else outputs / f"{kind}_{job}_{date}"
    if world.size > 1:
        told = [folder]
        distributed.broadcast_object_list(told)
        folder = told[0]
    if world.is_first:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _is_run(path: Path, kind: str, job: str) -> bool:
    date = path.name.removeprefix(f"{kind}_{job}_")
    return (path / "model_dump").is_dir() and date.replace("_", "").isdigit()


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
        load_encoder(network.encoder, path, interpolate=config.train.interpolate_pos_embed)
    else:
        log.warning("the encoder begins with random weights: no file of pre-trained ones is named")
    return network


def parallel(network: nn.Module, config: Config, device: torch.device, world: World) -> nn.Module:
    """The network as the processes of a run share it; with fsdp the same module, in parts."""
    train = config.train
    if train.compile:
        network.compile(dynamic=False)
    if train.parallel == "fsdp":
        half = torch.bfloat16 if train.precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
        for part in network.modules():
            if isinstance(part, Block | Layer):
                fully_shard(part, mp_policy=policy)
        fully_shard(network, mp_policy=policy)
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
        UserError: model.pretrained_model_path holds no state to go on from.
    """
    for path in snapshots.newest_first():
        try:
            progress = learner.restore(path)
        except UserError as error:
            log.warning("%s; trying an older one", error)
        else:
            log.info("goes on from %s", path)
            return progress
    path_given = config.model.pretrained_model_path
    if path_given is not None and not config.train.start_over:
        return learner.restore(ROOT / path_given)
    return Progress()

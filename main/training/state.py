"""A run and its folder: the record of its start, and snapshots from which it is resumed.

A snapshot is a published checkpoint ({'epoch', 'network', 'optimizer'}) with one more entry,
'progress'. It has no state of random generators: random numbers are functions of the iteration.
"""

import json
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import tree_map

from configs.reader import save_config
from configs.schema import Config
from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from main.training.optimizer import AveragedWeights
from models.checkpoint import from_published, read_torch, require_weights, save_torch, to_published
from models.supervision import NETWORK
from utils.devices import DATE, World, failing_together
from utils.errors import UserError, first_line
from utils.files import CONFIG_NAME, ROOT, atomic_path

log = logging.getLogger(__name__)

_FOLDERS: Final = ("log", "model_dump", "code", "result")
_NAME: Final = re.compile(r"(?:snapshot_(\d+)|state_(\d+)_(\d+))\.pth\.tar")
BEST: Final = "snapshot_best.pth.tar"
_WHOLE: Final = StateDictOptions(full_state_dict=True, cpu_offload=True)
_MISFIT: Final = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""Errors of PyTorch for a state that does not fit the network or the optimizer."""


@dataclass(frozen=True)
class Run:
    """What all parts of a run share."""

    config: Config
    folder: Path
    device: torch.device
    world: World
    began: float = field(default_factory=time.monotonic)
    """When this process started or resumed the run, in seconds of the monotonic clock."""

    @cached_property
    def bodies(self) -> BodyLibrary:
        """The body models.

        Raises:
            UserError: the files of body models are missing.
        """
        return BodyLibrary(find_model_folder(ROOT / self.config.model.human_model_path))

    @property
    def body(self) -> BodyModel:
        """SMPL-X on the run's device."""
        return self.bodies.smplx().to(self.device)

    @property
    def data_dir(self) -> Path:
        return ROOT / self.config.data.data_dir


def run_folder(kind: str, job: str, outputs: Path, *, since: str | None, world: World) -> Path:
    """Make the folder of a run, the same for all processes: outputs/KIND_JOB_DATE.

    Args:
        since: use an existing folder of the job with this date or a later one, if there is one. Of
            several, the one whose state was written last is used, as dates may be wrong.

    Raises:
        UserError: the job's name is not a folder name, or the folder cannot be made.
    """
    date = datetime.now().astimezone().strftime(DATE)
    with failing_together("run folder"):
        if Path(job).name != job:
            raise UserError(f"JOB_NAME '{job}' becomes a folder's name; leave out slashes")
        if not job or not job.isprintable():
            raise UserError(f"JOB_NAME {job!r} becomes a folder's name; use printable characters")
        found = {} if since is None else _runs(outputs, f"{kind}_{job}_")
        recent = [path for begun, path in found.items() if begun >= (since or "")]
        folder = max(recent, key=_last_written, default=None)
        if world.is_first:
            folder = folder or _new_folder(outputs / f"{kind}_{job}_{date}")
            for name in _FOLDERS:
                (folder / name).mkdir(exist_ok=True)
    if world.size > 1:
        shared = [folder]
        distributed.broadcast_object_list(shared)
        folder = shared[0]
    assert folder is not None  # the first process has made it
    return folder


def _new_folder(path: Path) -> Path:
    """Make a folder of this name, or with _2, _3 if another run began in the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


def _runs(outputs: Path, prefix: str) -> dict[str, Path]:
    """Folders of runs with this prefix, by the dates in their names."""
    named = {path.name.removeprefix(prefix): path for path in outputs.glob(f"{escape(prefix)}*")}
    return {
        date: path
        for date, path in named.items()
        if (path / "model_dump").is_dir() and date.replace("_", "").isdigit()
    }


def _last_written(run: Path) -> tuple[bool, int, str]:
    """A sort key: the time at which the newest state was written; runs without one come first."""
    states = [path.stat().st_mtime_ns for path in (run / "model_dump").glob("*.pth.tar")]
    return bool(states), max(states, default=0), run.name


def record(run: Run, command: list[str]) -> None:
    """Write the resolved config, the command, and the version of the code to the run's folder."""
    save_config(run.config, run.folder / CONFIG_NAME)
    about = {
        "command": command,
        "commit": _git("rev-parse", "HEAD").strip(),
        "torch": torch.__version__,
        "started": datetime.now().astimezone().isoformat(),
    }
    with atomic_path(run.folder / "code" / "run.json") as partial:
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with atomic_path(run.folder / "code" / "changes.patch") as partial:
        partial.write_text(_git("diff", "HEAD"), encoding="utf-8")


def _git(*arguments: str) -> str:
    """The output of git; empty if the code is not in a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


class Progress(NamedTuple):
    """The position of training."""

    epoch: int = 0
    iteration: int = 0
    """Completed iterations of the epoch."""
    best: float | None = None
    """Lowest value of the validation metric so far."""
    seconds: float = 0.0
    """Duration of the run so far; counted only if it has a time limit."""


class Learner(NamedTuple):
    """Everything that training changes."""

    network: nn.Module
    """As in models.supervision; its attribute `network` is the published part."""
    model: nn.Module
    """The same network distributed over the processes of the run (DDP)."""
    optimizer: torch.optim.Optimizer
    average: AveragedWeights | None

    def state(self, progress: Progress) -> dict[str, Any]:
        """Content of a snapshot, copied to the CPU; every process of the run must call it."""
        with self.average.in_place() if self.average else nullcontext():
            whole = get_model_state_dict(self.network, options=_WHOLE)
            network = {k.removeprefix(NETWORK): v for k, v in whole.items() if _is_network(k)}
            published = {f"module.{key}": _copied(v) for key, v in to_published(network).items()}
        state = {
            "epoch": progress.epoch if progress.iteration else progress.epoch - 1,
            "network": published,
            "progress": progress._asdict(),
        }
        # By names, which every process has: only the first one has complete state dicts.
        has_auxiliary = not all(_is_network(name) for name, _ in self.network.named_parameters())
        if self.average or has_auxiliary:
            whole = get_model_state_dict(self.network, options=_WHOLE)
            state["training_network"] = tree_map(_copied, whole)
        if self.average:
            state["average_updates"] = self.average.updates
        optimizer = get_optimizer_state_dict(self.network, self.optimizer, options=_WHOLE)
        return state | {"optimizer": tree_map(_copied, optimizer)}

    def restore(self, path: Path) -> Progress:
        """Load what `state` returned; every process of the run must call it.

        Raises:
            UserError: the file is damaged, or belongs to another network.
        """
        content = read_torch(path)
        if not {"network", "optimizer", "progress"} <= content.keys():
            raise UserError(
                f"{path} contains a network without the state of a run; "
                "set train.start_over = True to start a run with its weights"
            )
        try:
            given = require_weights(path, content["network"])
            network = {NETWORK + k: v for k, v in from_published(given).items()}
            trained: dict[str, Any] = require_weights(
                path, content.get("training_network", network)
            )
            if self.average:
                set_model_state_dict(self.network, {**trained, **network}, options=_WHOLE)
                self.average.restart(content.get("average_updates", 0))
            set_model_state_dict(self.network, trained, options=_WHOLE)
            set_optimizer_state_dict(
                self.network, self.optimizer, content["optimizer"], options=_WHOLE
            )
            progress = Progress(**content["progress"])
            if not all(isinstance(count, int) and count >= 0 for count in progress[:2]):
                raise ValueError(f"its progress is {progress}")
        except _MISFIT as error:
            raise UserError(f"{path} does not fit the run's config ({first_line(error)})") from None
        return progress


def _is_network(key: str) -> bool:
    """Whether a weight belongs to the published network, not to an auxiliary head."""
    return key.startswith(NETWORK)


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


class Snapshots:
    """The folder model_dump of a run; files are written atomically, in the background.

    A file and its name are flushed to the disk before older files are removed. The weights of a
    file count as good once an iteration that began with them, or with their successors, had a
    finite loss and finite gradients. The newest such file is never removed.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        """
        Args:
            keep: how many of the newest snapshots to keep; None: all.
        """
        self.folder, self._keep = folder, keep
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._latest: Path | None = None
        self._good: frozenset[Path] = frozenset()

    def newest_first(self) -> Iterator[Path]:
        """Snapshots and states, the most advanced first."""
        found = [(_advance(path), path) for path in self.folder.glob("*.pth.tar")]
        ordered = sorted((advance, path) for advance, path in found if advance is not None)
        return (path for _, path in reversed(ordered))

    def write(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Begin to write a state (of `Learner.state`), after the previous one is written.

        Raises:
            OSError: the previous one could not be written.
        """
        self.wait()
        progress = Progress(**state["progress"])
        ended = progress.iteration == 0
        name = f"snapshot_{progress.epoch - 1}" if ended else "state_{}_{}".format(*progress[:2])
        self._latest = self.folder / f"{name}.pth.tar"
        self._writing = self._writer.submit(self._write, state, self._latest, best, self._good)

    def resumed(self, path: Path) -> None:
        """Note that the run continues from this file."""
        self._latest = path

    def confirm(self) -> None:
        """Note that the file written last, or resumed from, has good weights."""
        if self._latest is not None:
            self._good |= {self._latest}

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: a file could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait until the current file is written, or has failed."""
        self._writer.shutdown()

    def check(self) -> None:
        """Raise the OSError of a file that could not be written; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _write(self, state: dict[str, Any], path: Path, best: bool, good: frozenset[Path]) -> None:
        save_torch(state, path, durable=True)
        if best:
            with atomic_path(self.folder / BEST, durable=True) as partial:
                shutil.copyfile(path, partial)
        self._remove_older(path, good)
        log.info("saved %s", path)

    def _remove_older(self, newest: Path, good: frozenset[Path]) -> None:
        paths = [path for path in self.newest_first() if path != newest]
        states = [path for path in paths if path.name.startswith("state_")]
        snapshots = [path for path in paths if path not in states]
        kept = self._keep if newest.name.startswith("state_") else (self._keep or 0) - 1
        removed = states + (snapshots[kept:] if self._keep else [])
        if not good.intersection(paths).difference(removed):
            kept_good = next((path for path in paths if path in good), None)
            removed = [path for path in removed if kept_good not in (None, path)]
        for path in removed:
            path.unlink()


def _advance(path: Path) -> tuple[int, int] | None:
    name = _NAME.fullmatch(path.name)
    if name is None:
        return None
    if name[1]:
        return int(name[1]) + 1, 0
    return int(name[2]), int(name[3])


def resume(run: Run, learner: Learner, snapshots: Snapshots) -> Progress:
    """Load the newest complete state of the run's folder, or the state that the config names.

    Raises:
        UserError: no state of the folder can be read, or model.pretrained_model_path contains no
            state from which a run can be resumed.
    """
    paths = list(snapshots.newest_first())
    for path in paths:
        try:
            progress = learner.restore(path)
        except UserError as error:
            log.warning("%s; trying an older one", error)
        else:
            snapshots.resumed(path)
            log.info("continuing from %s", path)
            return progress
    if paths:
        raise UserError(
            f"{snapshots.folder}: none of its {len(paths)} snapshots can be resumed; start a "
            "run with another name"
        )
    pretrained = run.config.model.pretrained_model_path
    if pretrained is not None and not run.config.train.start_over:
        return learner.restore(ROOT / pretrained)
    return Progress()

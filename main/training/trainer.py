"""The training loop: iterations and epochs, from the current position of a run to its end."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from main.training.optimizer import learning_rate, set_learning_rate
from main.training.recipes import BatchLoader
from main.training.state import Learner, Progress, Run, Snapshots
from main.training.train_log import Terms, TrainLog
from main.training.validation import Validator
from models.checkpoint import save_torch
from utils.devices import copied_to
from utils.errors import UserError

log = logging.getLogger(__name__)

_FEW: Final = 1000
"""Samples after which the share of unreadable ones is checked."""
_BAD_IN_A_ROW: Final = 10
"""Successive bad iterations after which the weights themselves must be bad."""


class Interrupted(Exception):  # noqa: N818 - no error
    """A signal ended training; its state is saved."""


class StopRequest:
    """Set by a signal handler, read between iterations."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: object) -> None:
        self.requested = True


@dataclass(frozen=True)
class Task:
    """What is learned from which samples, and how it is evaluated."""

    objective: Callable[[nn.Module, Mapping[str, Tensor]], Terms]
    loader: BatchLoader
    validator: Validator
    preview: Callable[[nn.Module, Mapping[str, Tensor]], UInt8[Tensor, "3 H W"]] | None
    """Draws the network's predictions for the last batch of each epoch."""


class _Status(NamedTuple):
    """Results of an iteration, over all processes."""

    loss: float
    gradient_norm: float
    unreadable: float
    stop: bool
    seconds: float
    """As in `Progress`."""


class Trainer:
    """Runs the iterations of training; every process has one, and all take the same steps."""

    def __init__(
        self,
        run: Run,
        learner: Learner,
        task: Task,
        snapshots: Snapshots,
        train_log: TrainLog,
        stop: StopRequest,
    ) -> None:
        self.config, self.device, self.world = run.config.train, run.device, run.world
        self.learner, self.task, self.loader = learner, task, task.loader
        self.snapshots, self.log, self.stop = snapshots, train_log, stop
        self._limit, self._began = run.config.train.time_limit_s, run.began
        self._samples = self._unreadable = 0.0
        self._bad_in_a_row = 0

    def train(self, progress: Progress) -> None:
        """Train from `progress` until the last epoch or the time limit.

        Raises:
            Interrupted: a signal was received; a state is saved.
            UserError: the loss or gradients are not finite, or too many images cannot be read.
        """
        epochs = self.config.end_epoch
        self._began -= progress.seconds
        if progress.epoch >= epochs:
            log.info("all %d epochs are done; a larger train.end_epoch trains further", epochs)
        # A run that was stopped within an epoch when its time was over takes one more iteration,
        # because it has no snapshot yet.
        while progress.epoch < epochs and (self._spent(progress) < 1 or progress.iteration):
            progress = self._run_epoch(progress)
            best = self._validate(progress)
            is_best = best != progress.best
            progress = Progress(progress.epoch + 1, 0, best, progress.seconds)
            is_last = progress.epoch == epochs or self._spent(progress) >= 1
            if is_best or is_last or progress.epoch % self.config.save_epoch == 0:
                self._save(progress, best=is_best)
        self.snapshots.wait()

    def _run_epoch(self, progress: Progress) -> Progress:
        """Run the remaining iterations of an epoch, or as many as the time limit allows."""
        per_epoch = self.loader.iterations
        for batches in self._batches(progress):
            done = progress.epoch * per_epoch + progress.iteration
            total = self.config.end_epoch * per_epoch
            rate = learning_rate(done, total, self.config, self._spent(progress))
            set_learning_rate(self.learner.optimizer, rate)
            losses, status = self._iterate(progress, batches)
            progress = progress._replace(iteration=progress.iteration + 1, seconds=status.seconds)
            self.log.add(progress, rate, batches if losses else [], losses)
            self._save_within(progress, stop=status.stop)
            if self.task.preview and progress.iteration == per_epoch:
                picture = self.task.preview(self.learner.network, batches[-1])
                self.log.picture(progress, "joints", picture)
            if self._spent(progress) >= 1:
                break
        return progress

    def _spent(self, progress: Progress) -> float:
        """Share of the time limit that has passed; 0 if there is none."""
        return progress.seconds / self._limit if self._limit else 0.0

    def _batches(self, progress: Progress) -> Iterator[list[dict[str, Tensor]]]:
        """The batches of the remaining iterations of an epoch, on the device."""
        batches = self.loader.epoch(progress.epoch, progress.iteration)
        for _ in range(progress.iteration, self.loader.iterations):
            with self.log.waiting_for_data():
                of_iteration = next(batches)
            yield [copied_to(self.device, batch) for batch in of_iteration]

    def _iterate(
        self, progress: Progress, batches: list[dict[str, Tensor]]
    ) -> tuple[list[Terms], _Status]:
        """Take one step of the optimizer; returns the loss terms of each batch, and the status.

        There are no terms if the loss or its gradients were bad and no step was taken.
        """
        self.learner.model.train()
        optimizer = self.learner.optimizer
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for k, batch in enumerate(batches):
            self._seed(progress, k)
            with self._gradient_exchange(k + 1 == len(batches)):
                with autocast(self.device, self.config.precision):
                    terms = self.task.objective(self.learner.model, batch)
                loss = torch.stack([term.mean() for term in terms.values()]).sum() / len(batches)
                loss.backward()
            losses.append({name: term.detach() for name, term in terms.items()})
        gradient_norm = self._gradient_norm()
        status = self._status(batches, losses, gradient_norm)
        self._check_readable(status, progress)
        if not self._is_good(status, progress, batches):
            return [], status
        self.snapshots.confirm()
        if self.config.clip_grad_norm is not None:
            parameters = self.learner.model.parameters()
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_grad_norm, gradient_norm)
        optimizer.step()
        if self.learner.average:
            self.learner.average.update()
        return losses, status

    def _seed(self, progress: Progress, batch: int) -> None:
        """Seed stochastic depth by the batch's number, so that runs resume exactly."""
        entropy = (self.config.seed, *progress[:2], batch, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def _gradient_exchange(self, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients between processes only with the last batch of an iteration."""
        if isinstance(self.learner.model, DistributedDataParallel) and not last:
            return self.learner.model.no_sync()
        if isinstance(self.learner.model, FSDPModule):
            self.learner.model.set_requires_gradient_sync(last)
        return nullcontext()

    def _gradient_norm(self) -> Float[Tensor, ""]:
        """The norm of all gradients as one vector, the same in all processes."""
        parameters = self.learner.model.parameters()
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _status(
        self,
        batches: list[dict[str, Tensor]],
        losses: list[dict[str, Tensor]],
        gradient_norm: Float[Tensor, ""],
    ) -> _Status:
        """Only here does an iteration wait for the device and for other processes."""
        loss = torch.stack([term.mean() for terms in losses for term in terms.values()]).sum()
        unreadable = torch.stack([batch["unreadable"].sum() for batch in batches]).sum()
        stop = torch.full_like(loss, float(self.stop.requested))
        seconds = time.monotonic() - self._began if self._limit else 0.0
        means = loss / len(batches), gradient_norm, torch.full_like(loss, seconds)
        shares = (value / self.world.size for value in means)
        values = torch.stack([*shares, unreadable, stop]).float()
        if self.world.size > 1:
            distributed.all_reduce(values)
        total, norm, taken, unreadable_samples, stop_requests = values.tolist()
        return _Status(total, norm, unreadable_samples, stop_requests > 0, taken)

    def _check_readable(self, status: _Status, progress: Progress) -> None:
        self._samples += self.loader.share.iteration_samples
        self._unreadable += status.unreadable
        share, limit = self._unreadable / self._samples, self.config.unreadable_share
        enough = self._samples >= _FEW or progress.iteration + 1 == self.loader.iterations
        if enough and share > limit:
            self._fail(
                f"{self._unreadable:.0f} of {self._samples:.0f} samples could not be read (the log "
                f"names them), more than train.unreadable_share = {limit}; correct the dataset"
            )

    def _is_good(
        self, status: _Status, progress: Progress, batches: list[dict[str, Tensor]]
    ) -> bool:
        """Whether to learn from the iteration; batches of bad ones are saved for inspection."""
        loss, norm, above = status.loss, status.gradient_norm, self.config.bad_loss_above
        is_bad_loss = not math.isfinite(loss) or (above is not None and loss > above)
        if not is_bad_loss and math.isfinite(norm):
            self._bad_in_a_row = 0
            return True
        self._bad_in_a_row += 1
        name = "bad_{}_{}_rank{}.pt".format(*progress[:2], self.world.rank)
        path = self.snapshots.folder / name
        save_torch([{k: v.cpu() for k, v in batch.items()} for batch in batches], path)
        what = f"loss {loss:g}" if is_bad_loss else f"gradients of norm {norm:g} (loss {loss:g})"
        problem = f"{what} in epoch {progress.epoch}, iteration {progress.iteration}"
        if self._bad_in_a_row == _BAD_IN_A_ROW:
            self._fail(
                f"{problem}, the {_BAD_IN_A_ROW}th bad one in a row; its batch is in {path}; "
                "continue from an older snapshot with a lower train.lr, or set train.clip_grad_norm"
            )
        if self.config.bad_loss == "stop":
            self._fail(
                f"{problem}; its batch is in {path}; lower train.lr, correct the data, or set "
                "train.bad_loss = 'skip' to continue"
            )
        log.warning("%s; skipped, its batch is in %s", problem, path)
        return False

    def _fail(self, message: str) -> NoReturn:
        """End all processes because of an error that all of them know; the first one reports it."""
        if self.world.is_first:
            raise UserError(message)
        raise SystemExit(2)

    def _validate(self, progress: Progress) -> float | None:
        if (progress.epoch + 1) % self.config.validate_epochs:
            return progress.best
        value = self.task.validator(progress)
        known = [v for v in (value, progress.best) if v is not None]
        return min(known, default=None)

    def _save_within(self, progress: Progress, *, stop: bool) -> None:
        """Save a state within an epoch; at its end only when stopping, as a snapshot follows."""
        self.snapshots.check()
        every, at_end = self.config.save_iters, progress.iteration == self.loader.iterations
        due = every is not None and progress.iteration % every == 0 and not at_end
        if stop or due:
            self._save(progress)
        if stop:
            self.snapshots.wait()
            raise Interrupted

    def _save(self, progress: Progress, *, best: bool = False) -> None:
        state = self.learner.state(progress)  # all processes take part
        if self.world.is_first:
            self.snapshots.write(state, best=best)


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Run a forward pass in `train.precision`."""
    is_half = precision == "bf16"
    # On CPUs, the gradient of fused attention is four times slower in bf16 than in fp32.
    plain = sdpa_kernel(SDPBackend.MATH) if is_half and device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=is_half), plain:
        yield

"""The processes of one run, as torchrun starts them; without torchrun a run is one process.

Every process computes its share; `gather_to_first` brings the shares together. What a user must
know is raised in all processes, wherever it was found: `failing_together`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, NamedTuple, TypeVar

import torch
from torch import distributed

from utils.device import pick_device
from utils.errors import UserError, first_line, refusal

T = TypeVar("T")

_PATIENCE: Final = timedelta(hours=1)
"""How long a process waits for the slowest; one that dies ends the others at once (torchrun)."""


class World(NamedTuple):
    """This process among those of the run."""

    rank: int
    """0 .. size - 1, over all machines."""
    size: int
    local_rank: int
    """Number among the processes of this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports what all of them did."""
        return self.rank == 0


def world() -> World:
    """This process as torchrun's environment describes it; alone without one."""
    rank, size, local = (os.environ.get(key) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if size is None or size == "1":
        return World(0, 1, 0)
    if rank is None or local is None:
        raise UserError("WORLD_SIZE is set but RANK or LOCAL_RANK is not; start with torchrun")
    return World(int(rank), int(size), int(local))


def is_first() -> bool:
    """Whether this process writes and reports what all of them did."""
    return world().is_first


def device_of_process(name: str = "auto") -> torch.device:
    """`utils.device.pick_device`, and with several processes a GPU for each.

    Raises:
        UserError: there is no such device, or there are not enough of them.
    """
    device, here = pick_device(name), world()
    if here.size == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(
            f"{name}: {here.size} processes cannot share it; use auto or cuda", setting="device"
        )
    # Asked for all processes of the machine, so that they agree.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", here.local_rank + 1))
    if processes > torch.cuda.device_count():
        raise UserError(
            f"{processes} processes need a GPU each, this machine has {torch.cuda.device_count()}; "
            "start fewer, or use the device cpu"
        )
    return torch.device("cuda", here.local_rank)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """The processes know each other while the block runs; nothing happens where there is one.

    Tensors on GPUs travel by NCCL, all else by Gloo.
    """
    here = world()
    if here.size == 1:
        yield here
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield here
    finally:
        distributed.destroy_process_group()


def gather_to_first(value: T) -> list[T] | None:
    """The values of all processes in the order of their ranks; None in all but the first.

    Values are pickled: keep tensors on the CPU.
    """
    here = world()
    if here.size == 1:
        return [value]
    gathered: list[T] | None = [value] * here.size if here.is_first else None
    distributed.gather_object(value, gathered)
    return gathered


@contextmanager
def failing_together(name: str) -> Iterator[Callable[[], None]]:
    """What ends the block in one process ends it in all, with the same UserError.

    All processes come to the same blocks in the same order and wait for each other at the end.
    The block itself must not wait for another process: that one may have failed. In long work call
    now and then what this gives: it raises where another process has failed.

    Args:
        name: of the block, for the message where another process failed.

    Raises:
        UserError: with several processes, for UserError, OSError and full memory of the device in
            any of them; a single process keeps its own error.
    """
    here = world()
    if here.size == 1:
        yield lambda: None
        return
    store = distributed.distributed_c10d._get_default_store()
    times = store.add(f"entered/{name}/{here.rank}", 1)
    key = f"failed/{name}/{times}"

    def stop_if_another_failed() -> None:
        if store.check([key]):
            raise UserError(f"{name}: another process failed")

    failures: list[tuple[UserError, bool] | None] = [None] * here.size
    failure = None
    try:
        yield stop_if_another_failed
    except (UserError, OSError, torch.OutOfMemoryError) as error:
        caused_here = not store.check([key])
        store.set(key, "")
        failure = (_as_user_error(error), caused_here)
    distributed.all_gather_object(failures, failure)
    reported = [failure for failure in failures if failure]
    if reported:
        # Those that merely stopped for another know less.
        raise next((error for error, is_cause in reported if is_cause), reported[0][0])


def _as_user_error(error: BaseException) -> UserError:
    """The same error as one line, which can be sent to other processes."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError("the device's memory is full; choose smaller batches")
    if isinstance(error, OSError):
        return UserError(refusal(error, "files"))
    return UserError(first_line(error), setting=getattr(error, "setting", None))

"""Devices, and the processes of one run, as torchrun starts them; without it, one process.

What differs between CPUs, NVIDIA's and Apple's GPUs is in one function each.
Every process computes its share; `gather_to_first` brings the shares together. What a user must
know is raised in all processes, wherever it was found: `failing_together`.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed

from utils.errors import UserError, first_line, refusal

T = TypeVar("T")

LAUNCH_DATE: Final = "LAUNCH_DATE"
"""Environment variable: when the processes were started for the first time, formatted by DATE."""
DATE: Final = "%Y%m%d_%H%M%S"

_PATIENCE: Final = timedelta(hours=1)
"""How long a process waits for the slowest; one that dies ends the others at once (torchrun)."""
_LOST: Final = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "remote process exited or there was a network error",
)
"""In what Gloo and NCCL say when another process has ended."""


def pick_device(name: str = "auto") -> torch.device:
    """'auto' -> CUDA if there is one, else Apple's MPS, else the CPU; other names as in torch.

    From here on the process computes in float32 what is float32: `use_exact_float32`.

    Raises:
        UserError: the name is no device, or this machine has none of that kind.
    """
    use_exact_float32()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in available.items() if there), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"{name}: no such device; use auto, cuda, mps or cpu", setting="device"
        ) from None
    if not available.get(device.type, device.type == "cpu"):
        raise UserError(f"{name}: not available on this machine; use auto or cpu", setting="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{name}: this machine has {count} GPU(s)", setting="device")
    return device


class BrokenDeviceError(UserError):
    """A device will compute nothing more in this process: only a new one can use it."""


def require_working(device: torch.device, error: BaseException) -> None:
    """Raise `BrokenDeviceError` if an error has left a device unusable.

    After an illegal memory access or a failed assertion in a kernel, all that a process asks of
    CUDA fails, so that whatever it does next would be blamed for it.
    """
    if device.type == "cpu":
        return
    try:
        torch.ones(1, device=device).sum().item()  # waits for the device
    except torch.OutOfMemoryError:
        return  # another process may have taken it
    except RuntimeError:
        raise BrokenDeviceError(
            f"the device {device} has failed ({first_line(error)}); run the same again"
        ) from error


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices at least as fast as fp32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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


def device_of_process(name: str = "auto") -> torch.device:
    """`pick_device`, and with several processes one GPU each.

    Raises:
        UserError: there is no such device, or there are not enough of them.
    """
    device, here = pick_device(name), world()
    if here.size == 1 or device.type == "cpu":
        return device
    if device.type == "mps":
        raise UserError(
            f"mps: {here.size} processes cannot share it; start one, or use cpu", setting="device"
        )
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

    Tensors on GPUs travel by NCCL, all else by Gloo. Where the block raises, the group is left as
    it is, since leaving it waits for processes that may wait for this one in a collective: what
    catches the error must end the process by `end_process`, so that torchrun ends the others.

    Raises:
        UserError: the connection to another process is lost.
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
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise UserError(
                f"rank {here.rank} has lost the connection to another process, which has ended; "
                "its own message or torchrun's says why"
            ) from error
        raise
    distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in _LOST)


def end_process(status: int, error: BaseException | None = None) -> None:
    """End a process that has failed among others at once; does nothing where it is alone.

    Args:
        error: what nothing has reported yet.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    if error is not None:
        traceback.print_exception(error)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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


@contextmanager
def one_error_report(here: World) -> Iterator[None]:
    """What ends the block is reported by a single process, whether one of them found it or all.

    Unlike `failing_together` it needs no agreement, and so fits work in which processes wait for
    each other. A process whose peer has ended gets errors of the network, and ends silently.

    Raises:
        UserError, OSError: as the block does, in the first process that raises.
        SystemExit: in the others.
    """
    if here.size == 1:
        yield
        return
    store = distributed.distributed_c10d._get_default_store()
    key, status = "error reported", 2
    try:
        yield
    except (UserError, OSError, torch.OutOfMemoryError):
        if _is_reported(lambda: store.add(key, 1) > 1):
            raise SystemExit(status) from None
        raise
    except RuntimeError as error:
        is_lost = _is_lost_connection(error)
        if _is_reported(lambda: store.add(key, 1) > 1 if is_lost else store.check([key])):
            raise SystemExit(status) from None
        raise


def _is_reported(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except RuntimeError:
        return True  # the first process, which has the store, is gone


def _as_user_error(error: BaseException) -> UserError:
    """The same error as one line, which can be sent to other processes."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError("the device's memory is full; choose smaller batches")
    if isinstance(error, OSError):
        return UserError(refusal(error, "files"))
    return UserError(first_line(error), setting=getattr(error, "setting", None))


_MIB: Final = 2**20


def use_exact_float32() -> None:
    """Compute products of float32 as such on NVIDIA's GPUs too, for the rest of the process.

    PyTorch's own defaults are float32 for matrix products, but TF32, which has 10 bits of mantissa,
    for cuDNN's convolutions. Both are set: what wants speed asks for bf16.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64; Apple's GPUs do not."""
    return device.type != "mps"


def copied_to(device: torch.device, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch on a device.

    Only copies to CUDA go on while the program does: PyTorch keeps pinned memory until they are
    made, and takes its own copy of other memory. On other devices the program could change or free
    what is still being read.
    """
    return {
        key: value.to(device, non_blocking=device.type == "cuda") for key, value in batch.items()
    }


def peak_memory_mib(device: torch.device) -> float:
    """Most memory that tensors took on an NVIDIA GPU; elsewhere the largest size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def usable_cores() -> int:
    """Cores that this process may use; where the system does not say, as macOS, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def runs_of(indices: Sequence[int]) -> tuple[slice, ...]:
    """Indices as slices of consecutive ones, for `picked`."""
    starts = [k for k in range(len(indices)) if k == 0 or indices[k] != indices[k - 1] + 1]
    ends = [*starts[1:], len(indices)]
    return tuple(
        slice(indices[start], indices[end - 1] + 1) for start, end in zip(starts, ends, strict=True)
    )


def picked(values: Shaped[Tensor, "B N ..."], runs: Sequence[slice]) -> Shaped[Tensor, "B K ..."]:
    """Rows of the second dimension, as indexing with the indices of `runs_of` gives them.

    A list of indices would become a tensor on the CPU, and the device would wait for its copy.
    """
    return torch.cat([values[:, run] for run in runs], dim=1)


def constants(values: Sequence[float], like: Tensor) -> Float[Tensor, " K"]:
    """Numbers as a tensor of the kind of `like`, made on its device, which need not wait for it."""
    return torch.stack([like.new_full((), value) for value in values])

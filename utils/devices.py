"""Devices (CPU, CUDA, Apple's MPS) and the processes of a distributed run started by torchrun.

Each difference between kinds of devices is in one function. With several processes, each computes
its share, `gather_to_first` collects the shares, and `failing_together` raises a user's error in
all processes.
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
"""Environment variable with the first start of the processes, formatted by DATE."""
DATE: Final = "%Y%m%d_%H%M%S"

_PATIENCE: Final = timedelta(hours=1)
"""How long a process waits for the slowest one. If one dies, torchrun ends the others at once."""
_LOST: Final = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "remote process exited or there was a network error",
)
"""Texts in the errors of Gloo and NCCL that mean that another process has ended."""


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA if available, else Apple's MPS, else the CPU.

    It also calls `use_exact_float32`.

    Raises:
        UserError: the name is not a device, or the machine has no such device.
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
    """A device that can no longer be used in this process, but in a new one."""


def require_working(device: torch.device, error: BaseException) -> None:
    """Raise `BrokenDeviceError` if an error has left a device unusable.

    After an illegal memory access or a failed assertion in a kernel, every later CUDA call of the
    process fails, and errors would be attributed to the wrong work.
    """
    if device.type == "cpu":
        return
    try:
        torch.ones(1, device=device).sum().item()  # waits for the device
    except torch.OutOfMemoryError:
        return  # another process may use the memory
    except RuntimeError:
        raise BrokenDeviceError(
            f"the device {device} has failed ({first_line(error)}); run the same command again"
        ) from error


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices at least as fast as fp32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class World(NamedTuple):
    """Position of this process in the distributed run."""

    rank: int
    """0 to size - 1, over all machines."""
    size: int
    local_rank: int
    """Index among the processes of this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and logs of the run."""
        return self.rank == 0


def world() -> World:
    """Position of this process by torchrun's environment variables; a single process without them.

    Raises:
        UserError: the variables are incomplete.
    """
    rank, size, local = (os.environ.get(key) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if size is None or size == "1":
        return World(0, 1, 0)
    if rank is None or local is None:
        raise UserError("WORLD_SIZE is set but RANK or LOCAL_RANK is not; start with torchrun")
    return World(int(rank), int(size), int(local))


def device_of_process(name: str = "auto") -> torch.device:
    """`pick_device` for one process; with several processes, one GPU for each.

    Raises:
        UserError: there is no such device, or there are too few.
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
    # All processes of the machine compare the same number, so that they agree.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", here.local_rank + 1))
    if processes > torch.cuda.device_count():
        raise UserError(
            f"{processes} processes need a GPU each, this machine has {torch.cuda.device_count()}; "
            "start fewer, or use the device cpu"
        )
    return torch.device("cuda", here.local_rank)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Connect the processes while the block runs; does nothing for a single process.

    Tensors on GPUs use NCCL, all others Gloo. If the block raises, the group is not destroyed,
    because this would wait for processes that may wait for this one in a collective. The caller
    must then end the process by `end_process`, so that torchrun ends the others.

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
                "the message of that process, or torchrun's, states the reason"
            ) from error
        raise
    distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in _LOST)


def end_process(status: int, error: BaseException | None = None) -> None:
    """End this process of a distributed run at once after an error; else do nothing.

    Args:
        error: an error that has not been reported yet; its traceback is printed.
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
    """The values of all processes in the order of their ranks; None in all processes but the first.

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
    """An error that ends the block in one process ends it in all, with the same UserError.

    All processes must enter the same blocks in the same order; they wait for each other at the
    end. The block must not wait for another process, which may have failed. It yields a function
    that raises if another process has failed, to be called now and then in long work.

    Args:
        name: name of the block, for the message.

    Raises:
        UserError: with several processes, if any raises UserError, OSError or an error of full
            device memory; a single process keeps its own error.
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
        # The error of the process that failed first is more informative than that of the others.
        raise next((error for error, is_cause in reported if is_cause), reported[0][0])


@contextmanager
def one_error_report(here: World) -> Iterator[None]:
    """An error that ends the block is reported by one process only.

    Unlike `failing_together`, it does not synchronise, so processes may wait for each other in the
    block. A process that fails because another one has ended exits silently.

    Raises:
        UserError, OSError: in the first process in which the block raises it.
        SystemExit: in the other processes.
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
        return True  # the first process, which owns the store, has ended


def _as_user_error(error: BaseException) -> UserError:
    """The error as a UserError, which can be sent to other processes."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError("the device's memory is full; choose smaller batches")
    if isinstance(error, OSError):
        return UserError(refusal(error, "files"))
    return UserError(first_line(error), setting=getattr(error, "setting", None))


_MIB: Final = 2**20


def use_exact_float32() -> None:
    """Disable TF32 on NVIDIA's GPUs for the rest of the process.

    PyTorch's defaults are float32 for matrix products, but TF32 (10 bits of mantissa) for cuDNN's
    convolutions. Code that needs speed uses bf16 explicitly.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def has_float64(device: torch.device) -> bool:
    """Whether a device supports float64; Apple's GPUs do not."""
    return device.type != "mps"


def copied_to(device: torch.device, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a batch on a device.

    Copies to CUDA are asynchronous: PyTorch keeps pinned memory alive until they are complete, and
    first copies other memory. On other devices an asynchronous copy could read memory that the
    program has changed or freed.
    """
    return {
        key: value.to(device, non_blocking=device.type == "cuda") for key, value in batch.items()
    }


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory of tensors on an NVIDIA GPU; for other devices, of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def usable_cores() -> int:
    """Number of cores that this process may use; on systems without affinity (macOS), all cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def runs_of(indices: Sequence[int]) -> tuple[slice, ...]:
    """Slices of consecutive indices that cover `indices` in their order, for `picked`."""
    starts = [k for k in range(len(indices)) if k == 0 or indices[k] != indices[k - 1] + 1]
    ends = [*starts[1:], len(indices)]
    return tuple(
        slice(indices[start], indices[end - 1] + 1) for start, end in zip(starts, ends, strict=True)
    )


def picked(values: Shaped[Tensor, "B N ..."], runs: Sequence[slice]) -> Shaped[Tensor, "B K ..."]:
    """Elements of the second dimension, like indexing with the indices given to `runs_of`.

    A list of indices would become a CPU tensor, for whose copy the device would have to wait.
    """
    return torch.cat([values[:, run] for run in runs], dim=1)


def constants(values: Sequence[float], like: Tensor) -> Float[Tensor, " K"]:
    """A tensor of numbers with the dtype and device of `like`, made without a copy from the CPU."""
    return torch.stack([like.new_full((), value) for value in values])

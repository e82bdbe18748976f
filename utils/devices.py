"""What differs between CPUs, NVIDIA's and Apple's GPUs, each in one function."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

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

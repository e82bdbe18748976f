"""Networks that want few sizes of batch: compiled code, and CUDA graphs."""

import threading
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.heads import HeadOutputs
from models.smplest_x import SMPLestX
from utils.errors import UserError

Program = Callable[[Tensor], HeadOutputs]
"""What a network does with batches of one size."""


class StaticNetwork:
    """Is called as a network is; batches are filled up to powers of two, a program for each."""

    def __init__(self, network: SMPLestX, prepare: Callable[[SMPLestX, Tensor], Program]) -> None:
        """`prepare` makes a program from the network and a batch of the size that it is for."""
        self._network, self._prepare = network, prepare
        self._programs: dict[int, Program] = {}
        self._lock = threading.Lock()

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        """Raises UserError where a program cannot be made."""
        count = len(images)
        size = 1 << (count - 1).bit_length()
        if size > count:
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, size - count))
        with self._lock:
            if size not in self._programs:
                self._programs[size] = self._prepare(self._network, images)
        return HeadOutputs(*(output[:count] for output in self._programs[size](images)))


def compiled(network: SMPLestX, images: Float[Tensor, "B 3 H W"]) -> Program:
    """By torch.compile, for this size alone."""
    program: Program = torch.compile(network, dynamic=False)
    try:
        program(images)
    except RuntimeError as error:  # no compiler, or one that fails
        line = str(error).strip().splitlines()[0]
        raise UserError(f"compile: {line}; leave it out", setting="backend") from error
    return program


def captured(network: SMPLestX, images: Float[Tensor, "B 3 H W"]) -> Program:
    """As a CUDA graph: all kernels of the network are launched at once.

    After https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    given, lock = images.clone(), threading.Lock()
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # libraries choose and allocate before the capture
            network(given)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Other threads decode and pin memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs: HeadOutputs = network(given)

    def program(images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        with lock:
            given.copy_(images)
            graph.replay()
            return HeadOutputs(*(output.clone() for output in outputs))

    return program


PROGRAMS: Final = {"compile": compiled, "cuda-graphs": captured}
"""By the names of backends."""

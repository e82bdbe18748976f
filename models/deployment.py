"""Networks for deployment: compiled, as CUDA graphs, and as ONNX files.

requirements-onnx.txt has the packages that ONNX needs in addition to PyTorch.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.smplest_x import HeadOutputs, SMPLestX
from utils.errors import UserError
from utils.files import atomic_path, require_regular_file

log = logging.getLogger(__name__)

TOLERANCE: Final = 1e-4
"""Largest difference between head outputs in onnxruntime and in PyTorch; they are of order 3."""
LARGEST_FILE: Final = 2**31 - 2**24
"""Bytes of weights from which they go into a separate file: ONNX files are limited to 2 GB."""
_INPUT: Final = "images"
_MAKE_IT: Final = "make it with: .venv/bin/python -m main.convert MODEL_DIR --onnx"
_REFUSALS: Final = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
"""Errors of onnxruntime about files."""
_BATCH: Final = 2
"""Batch size of the example for tracing; a size of one would become a constant."""
Program = Callable[[Tensor], HeadOutputs]
"""A network for batches of one size."""


class StaticNetwork:
    """Called like SMPLestX; batches are padded to powers of two, with one program per size."""

    def __init__(self, network: SMPLestX, prepare: Callable[[SMPLestX, Tensor], Program]) -> None:
        """
        Args:
            prepare: makes a program from the network and a batch of its size.
        """
        self._network, self._prepare = network, prepare
        self._programs: dict[int, Program] = {}
        self._lock = threading.Lock()

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        """
        Raises:
            UserError: a program cannot be made.
        """
        count = len(images)
        size = 1 << (count - 1).bit_length()
        if size > count:
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, size - count))
        with self._lock:
            if size not in self._programs:
                self._programs[size] = self._prepare(self._network, images)
        return HeadOutputs(*(output[:count] for output in self._programs[size](images)))


def compiled(network: SMPLestX, images: Float[Tensor, "B 3 H W"]) -> Program:
    """Compile the network with torch.compile, only for this size."""
    program: Program = torch.compile(network, dynamic=False)
    try:
        program(images)
    except RuntimeError as error:  # the compiler is missing or fails
        line = str(error).strip().splitlines()[0]
        raise UserError(f"compile: {line}; leave it out", setting="backend") from error
    return program


def captured(network: SMPLestX, images: Float[Tensor, "B 3 H W"]) -> Program:
    """Capture a CUDA graph on the device of the images, to launch all kernels at once.

    After https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    given, lock = images.clone(), threading.Lock()
    # Streams belong to the current device of the thread, which may differ from that of the images.
    with torch.cuda.device(given.device):
        # Without a stream, `torch.cuda.graph` uses one of the device of its first capture.
        beside, capturing = torch.cuda.Stream(), torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):  # libraries choose and allocate before the capture
                network(given)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads decode and pin memory meanwhile.
        with torch.cuda.graph(graph, stream=capturing, capture_error_mode="thread_local"):
            outputs: HeadOutputs = network(given)

    def program(images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        with lock, torch.cuda.device(given.device):
            given.copy_(images)
            graph.replay()
            return HeadOutputs(*(output.clone() for output in outputs))

    return program


PROGRAMS: Final = {"compile": compiled, "cuda-graphs": captured}
"""Programs by the names of backends."""


def save_onnx(network: SMPLestX, shape: tuple[int, int], path: Path) -> float:
    """Write a network (float32, in evaluation mode) with a variable batch size, and test it.

    Input `images` (batch, 3, height, width), RGB in 0..1; outputs are named as HeadOutputs. Weights
    over 2 GB go into PATH.data beside it.

    Args:
        shape: height and width of the input.

    Returns:
        The largest difference from PyTorch in all outputs, for a batch of another size.

    Raises:
        UserError: a package of requirements-onnx.txt is missing, or the results differ.
    """
    for name in ("onnxscript", "onnxruntime"):
        _package(name)
    example = torch.rand(_BATCH, 3, *shape)
    # Strict tracing keeps lengths of tensors variable; otherwise they become constants.
    traced = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=True
    )
    program = torch.onnx.export(
        traced, (), input_names=[_INPUT], output_names=HeadOutputs._fields, verbose=False
    )
    assert program is not None
    axes: Any = program.model.graph.inputs[0].shape
    program.rename_axes({axes[0]: "batch"})
    weights = sum(value.nbytes for value in network.state_dict().values())
    with atomic_path(path) as partial:
        program.save(partial, external_data=weights > LARGEST_FILE)
        error = _difference(network, OnnxNetwork(partial, torch.device("cpu")), shape)
        if not error <= TOLERANCE:
            raise UserError(
                f"{path}: not written, it differs from PyTorch by {error:.1e}; "
                "try other versions of the packages in requirements-onnx.txt"
            )
        data = partial.with_name(f"{partial.name}.data")
        if data.is_file():
            data.replace(path.with_name(data.name))
    return error


class OnnxNetwork:
    """A network in an ONNX file, called like SMPLestX, by any number of threads at a time.

    It runs on the GPU if the device is one and onnxruntime-gpu is installed, else on the CPU.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """
        Raises:
            UserError: onnxruntime or the file is missing, or the file is damaged.
        """
        self.path, self.device = path, device
        self._runtime = _package("onnxruntime")
        require_regular_file(path, f"file; {_MAKE_IT}")
        try:
            read_description(path)
        except ValueError:
            raise self._damaged() from None
        self._sessions: dict[int, Any] = {}
        self._lock = threading.Lock()
        providers = self._session().get_providers()
        if device.type == "cuda" and "CUDAExecutionProvider" not in providers:
            log.warning("onnxruntime computes on the CPU: onnxruntime-gpu is not installed")

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        """Run the network on RGB crops in 0..1, like SMPLestX."""
        given = {_INPUT: np.ascontiguousarray(images.cpu().numpy())}
        outputs = self._session().run(list(HeadOutputs._fields), given)
        return HeadOutputs(*(torch.from_numpy(value).to(images.device) for value in outputs))

    def _damaged(self) -> UserError:
        return UserError(f"{self.path}: damaged; {_MAKE_IT}")

    def _session(self) -> Any:
        """The session with as many threads as PyTorch would use in the calling thread."""
        threads = torch.get_num_threads()
        with self._lock:
            if threads not in self._sessions:
                self._sessions[threads] = self._open(threads)
            return self._sessions[threads]

    def _open(self, threads: int) -> Any:
        runtime = self._runtime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        wanted = ["CPUExecutionProvider"]
        if self.device.type == "cuda":
            wanted.insert(0, "CUDAExecutionProvider")
        available = runtime.get_available_providers()
        providers = [name for name in wanted if name in available]
        kinds = runtime.capi.onnxruntime_pybind11_state
        try:
            session = runtime.InferenceSession(self.path, options, providers=providers)
        except tuple(getattr(kinds, name) for name in _REFUSALS):
            raise self._damaged() from None
        inputs = [value.name for value in session.get_inputs()]
        outputs = {value.name for value in session.get_outputs()}
        if inputs != [_INPUT] or not outputs >= set(HeadOutputs._fields):
            raise UserError(f"{self.path}: belongs to another network; {_MAKE_IT}")
        return session


def read_description(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, if its weights are in it or in PATH.data.

    onnxruntime would map any file that the ONNX file names for its weights.

    Raises:
        UserError: a package is missing, or weights are in another file.
        ValueError: it is not an ONNX file, or is damaged.
    """
    onnx = _package("onnx")
    decode_error = import_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load(path, load_external_data=False)
    except (decode_error, ValueError, OSError, RuntimeError) as error:
        raise ValueError("no ONNX file, or a damaged one") from error
    tensors = [*_tensors(model.graph), *chain(*map(_tensors, model.functions))]
    external = onnx.TensorProto.EXTERNAL
    places = {
        entry.value
        for tensor in tensors
        if tensor.data_location == external or tensor.external_data
        for entry in tensor.external_data
        if entry.key == "location"
    }
    beside = f"{path.name}.data"
    if places - {beside}:
        strange = min(places - {beside})[:200]
        raise UserError(f"{path}: has weights in {strange!r}, not in {beside}; refused")
    if places:
        require_regular_file(path.with_name(beside))
    return {entry.key: entry.value for entry in model.metadata_props}


def _tensors(graph: Any) -> Iterator[Any]:
    """Tensors of an ONNX graph or function, and of graphs within it."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


@torch.inference_mode()
def _difference(network: SMPLestX, other: OnnxNetwork, shape: tuple[int, int]) -> float:
    images = torch.rand(_BATCH + 1, 3, *shape)
    pairs = zip(network(images), other(images), strict=True)
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise UserError(
            f"{name} is not installed; .venv/bin/python -m pip install -r requirements-onnx.txt"
        ) from None

"""Correctness and speed on a GPU, in one command of at most eight minutes.

    python -m benchmarks.on_gpu [--output FILE.json] [--device auto] [--minutes 8] [--tiny]

Weights of Huge and Base are random; the demo network has its own. float32 is without TF32. The
sections are: the files in tests/parity in fp32 and bf16; backends of the network (eager, compiled,
CUDA graphs, kinds of attention), each compared with eager fp32; training steps without
distribution, with DDP and with FSDP, in one process; training steps of Base and Huge with batches
that double until the memory is full; inference of the network alone, and of a 720p video with one
and three people.

A section that fails is reported and does not end the others; sections for which no time is left
are reported as left out. The exit status is 1 if a result is wrong or a section failed. On a
machine without a GPU, networks, batches and videos are tiny (--tiny), which only tests the program.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from benchmarks.data import make_instance, write_photograph
from benchmarks.gpu_parity import largest_error, make_random_body, parity_errors
from benchmarks.inference import network_flops, seconds
from benchmarks.train import Samples
from benchmarks.video import repeated_demo
from configs.reader import load_config
from configs.schema import Config
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from main.pipeline.estimator import PRECISIONS, Estimator
from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import Tools, process_clip
from main.training.optimizer import freeze, make_optimizer
from main.training.recipes import regression
from main.training.run import replicated, sharded
from main.training.trainer import autocast
from models.deployment import PROGRAMS
from models.initialise import initial_network
from models.smplest_x import HeadOutputs, SMPLestX
from models.supervision import SupervisedSMPLestX
from utils.devices import copied_to, peak_memory_mib, pick_device, usable_cores
from utils.errors import UserError, first_line
from utils.files import ROOT, atomic_path
from utils.source import open_source

TOLERANCES: Final = {"fp32": 1e-3, "bf16": 0.15}
"""Largest allowed errors, relative to the largest expected value."""
BF16_PEAK_FLOPS: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Peak rates of dense products from the data sheets (SXM), by a part of the device's name."""
_DEMO: Final = "smplest_x_demo"
_STEPS: Final = 4


class Row(NamedTuple):
    """A row of the table: a measurement and its values."""

    section: str
    name: str
    numbers: dict[str, float | str]
    ok: bool = True


class Sizes(NamedTuple):
    base: str
    huge: str
    batch: int
    """Batch size of inference."""
    largest_batch: int
    """Largest batch size of training."""
    video_s: float
    repeats: int


FULL: Final = Sizes("config_smplest_x_b", "config_smplest_x_h", 32, 1024, 10.0, 10)
TINY: Final = Sizes("config_debug", "config_debug", 2, 2, 0.1, 1)


class Bench:
    """Device, sizes, end time and temporary folder for all sections."""

    def __init__(self, device: torch.device, sizes: Sizes, end: float, folder: Path) -> None:
        self.device, self.sizes, self.end, self.folder = device, sizes, end, folder
        self.bodies = BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME))
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak_flops = next((v for k, v in BF16_PEAK_FLOPS.items() if k in name), math.nan)

    def has_time(self, needed_s: float = 0) -> bool:
        return time.monotonic() + needed_s < self.end

    def config(self, name: str) -> Config:
        return load_config(ROOT / "configs" / f"{name}.py")

    def network(self, config: Config) -> SMPLestX:
        torch.manual_seed(0)
        return initial_network(config.model, self.bodies.smplx()).to(self.device).eval()

    def release(self) -> None:
        """Free unused memory of the GPU, and reset its peak."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def median_s(self, work: Callable[[], object]) -> float:
        return statistics.median(seconds(work, self.device) for _ in range(self.sizes.repeats))


def parity(bench: Bench) -> Iterator[Row]:
    """Comparison with the published code: head outputs, bodies, losses, gradients, metrics."""
    random_body = make_random_body(bench.folder / "random_body")
    for precision, tolerance in TOLERANCES.items():
        for name, error in parity_errors(bench.device, precision, random_body):
            numbers: dict[str, float | str] = {"error": error, "tolerance": tolerance}
            yield Row("parity", f"{name}, {precision}", numbers, error <= tolerance)


def ways(bench: Bench) -> Iterator[Row]:
    """Base with every backend and kind of attention: rates, and errors against eager fp32."""
    config = bench.config(bench.sizes.base)
    network, batch = bench.network(config), bench.sizes.batch
    torch.manual_seed(1)
    images = torch.rand(batch, 3, *config.model.input_body_shape, device=bench.device)
    with torch.inference_mode():
        expected = network(images).body_pose.cpu()
    for precision, dtype in PRECISIONS.items():
        network.to_precision(dtype)
        tolerance = TOLERANCES[precision]
        for name, kind in _kinds_of_attention(bench.device, precision).items():
            with sdpa_kernel(kind) if kind is not None else nullcontext():
                yield _way_row(bench, f"{name}, {precision}", network, images, expected, tolerance)
        for name, prepare in PROGRAMS.items() if bench.device.type == "cuda" else ():
            if bench.has_time(240):
                try:
                    with torch.inference_mode():
                        program = prepare(network, images)
                    way = f"{name}, {precision}"
                    yield _way_row(bench, way, program, images, expected, tolerance)
                except UserError as error:  # for example, there is no compiler
                    yield Row("ways", f"{name}, {precision}", {"result": str(error)}, ok=False)


def _kinds_of_attention(device: torch.device, precision: str) -> dict[str, SDPBackend | None]:
    """Kinds of attention by name; on GPUs, those of flash attention and cuDNN have no float32."""
    kinds: dict[str, SDPBackend | None] = {"eager": None, "attention: math": SDPBackend.MATH}
    if device.type == "cpu" or precision == "bf16":
        kinds["attention: flash"] = SDPBackend.FLASH_ATTENTION
    if device.type == "cuda":
        kinds["attention: memory-efficient"] = SDPBackend.EFFICIENT_ATTENTION
        if precision == "bf16":
            kinds["attention: cuDNN"] = SDPBackend.CUDNN_ATTENTION
    return kinds


@torch.inference_mode()
def _way_row(
    bench: Bench,
    name: str,
    run: Callable[[Tensor], HeadOutputs],
    images: Tensor,
    expected: Tensor,
    tolerance: float,
) -> Row:
    error = largest_error(run(images).body_pose, expected)
    rate = len(images) / bench.median_s(partial(run, images))
    return Row("ways", name, {"error": error, "people_per_s": rate}, error <= tolerance)


class Training:
    """Training steps as in main/training/trainer.py, on batches that are on the device."""

    def __init__(
        self,
        bench: Bench,
        config: Config,
        share: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        self.bench, self.config = bench, config
        network = bench.network(config)
        freeze(network, config.train)
        self.model = share(SupervisedSMPLestX(network, config).to(bench.device)).train()
        self.objective = partial(regression, bench.bodies.smplx().to(bench.device), config)
        self.optimizer = make_optimizer(self.model, config.train)

    def __call__(self, batch: Mapping[str, Tensor], precision: str) -> float:
        """Perform a step and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        with autocast(self.bench.device, precision):
            terms = self.objective(self.model, batch)
        loss = torch.stack([term.mean() for term in terms.values()]).sum()
        loss.backward()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.optimizer.step()
        return loss.item()


def batches_of(
    bench: Bench, config: Config, size: int, count: int, workers: int
) -> DataLoader[dict[str, Tensor]]:
    """Batches of crops of one full-HD photograph."""
    path = bench.folder / "photograph.jpg"
    if not path.exists():
        write_photograph(path)
    samples = Samples(make_instance(path), path.parent, config, size * count)
    pin = bench.device.type == "cuda"
    return DataLoader(samples, size, num_workers=workers, pin_memory=pin)  # type: ignore[arg-type]


@contextmanager
def group_of_one(bench: Bench) -> Iterator[None]:
    """A process group with this process only; NCCL on a GPU."""
    on_gpu = bench.device.type == "cuda"
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    current = torch.cuda.device(bench.device) if on_gpu else nullcontext()
    with tempfile.TemporaryDirectory() as folder, current:
        store = FileStore(f"{folder}/store", 1)
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def parallel(bench: Bench) -> Iterator[Row]:
    """The same steps without distribution, with DDP and with FSDP, in a group of one process."""
    config = bench.config(bench.sizes.base)
    batch = copied_to(bench.device, next(iter(batches_of(bench, config, 2, 1, 0))))
    device = bench.device
    shares: dict[str, Callable[[nn.Module], nn.Module]] = {
        "plain": lambda network: network,
        "ddp": lambda network: replicated(network, device),
        "fsdp": lambda network: sharded(network, device, 1),
    }
    plain: list[float] = []
    with group_of_one(bench):
        for name, share in shares.items():
            bench.release()
            steps = Training(bench, config, share)
            losses = [steps(batch, "fp32") for _ in range(_STEPS)]
            plain = plain or losses
            error = max(abs(a / b - 1) for a, b in zip(losses, plain, strict=True))
            yield Row("parallel", name, {"error": error, "loss": losses[-1]}, error <= 1e-3)
            del steps


def training(bench: Bench) -> Iterator[Row]:
    """Steps of Base and Huge in bf16: samples per second and share of the peak, by batch size."""
    for name in dict.fromkeys((bench.sizes.base, bench.sizes.huge)):
        config, size, largest = bench.config(name), 1, 0
        bench.release()
        steps = Training(bench, config)
        while size <= bench.sizes.largest_batch and bench.has_time(120):
            bench.release()
            try:
                yield _step_row(bench, config, steps, name, size)
            except torch.OutOfMemoryError:
                yield Row("training", f"{name}, batches of {size}", {"result": "memory is full"})
                break
            largest, size = size, 2 * size
        if largest and bench.has_time(90):
            yield _waiting_row(bench, config, steps, name, max(1, largest // 2))
        del steps


def _step_row(bench: Bench, config: Config, steps: Training, name: str, size: int) -> Row:
    one = next(iter(batches_of(bench, config, 1, 1, 0)))
    batch = {key: value.expand(size, *value.shape[1:]) for key, value in one.items()}
    batch = copied_to(bench.device, {key: value.contiguous() for key, value in batch.items()})
    steps(batch, "bf16")
    step_s = statistics.median(
        seconds(lambda: steps(batch, "bf16"), bench.device) for _ in range(_STEPS)
    )
    # The backward pass takes twice the operations of the forward pass.
    flops = 3 * network_flops(config.model, 1) * size / step_s
    numbers: dict[str, float | str] = {
        "samples_per_s": size / step_s,
        "tflop_per_s": flops / 1e12,
        "memory_mib": peak_memory_mib(bench.device),
    }
    if math.isfinite(bench.peak_flops):
        numbers["share_of_bf16_peak"] = flops / bench.peak_flops
    return Row("training", f"{name}, batches of {size}", numbers)


def _waiting_row(bench: Bench, config: Config, steps: Training, name: str, size: int) -> Row:
    """Time for which steps wait for data that workers decode."""
    workers, count = max(1, usable_cores() - 2), 2 * _STEPS
    batches = iter(batches_of(bench, config, size, count + 2, workers))
    waited = []
    start = 0.0
    for k in range(count + 2):
        if k == 2:  # the workers have begun
            start = time.perf_counter()
        before = time.perf_counter()
        batch = copied_to(bench.device, next(batches))
        waited.append(time.perf_counter() - before)
        steps(batch, "bf16")
    taken = time.perf_counter() - start
    return Row(
        "training",
        f"{name}, batches of {size}, {workers} loader workers",
        {"samples_per_s": count * size / taken, "data_wait": sum(waited[2:]) / taken},
    )


def inference(bench: Bench) -> Iterator[Row]:
    """The network alone, and a whole 720p video, in fp32 and bf16."""
    demo = Estimator.load(_DEMO, device=str(bench.device))
    yield from _inference_rows(bench, "demo", demo)
    if bench.sizes is FULL:
        del demo
        config = bench.config(bench.sizes.huge)
        huge = Estimator(config, bench.network(config), bench.bodies, bench.device)
        yield from _inference_rows(bench, "huge (random weights)", huge)


def _inference_rows(bench: Bench, name: str, estimator: Estimator) -> Iterator[Row]:
    network, batch = estimator.network, bench.sizes.batch
    assert isinstance(network, SMPLestX)
    crops = torch.rand(batch, *estimator.config.model.input_body_shape, 3) * 255
    for precision, dtype in PRECISIONS.items():
        network.to_precision(dtype)
        bench.release()
        run = partial(estimator.predict, crops, want_vertices=True)
        run()
        rate = batch / bench.median_s(run)
        memory = peak_memory_mib(bench.device)
        numbers: dict[str, float | str] = {"people_per_s": rate, "memory_mib": memory}
        yield Row("inference", f"{name}, batches of {batch}, {precision}", numbers)
        for people in (1, 3) if bench.has_time(45) else ():
            yield _video_row(bench, estimator, people, f"{name}, {precision}")


def _video_row(bench: Bench, estimator: Estimator, people: int, name: str) -> Row:
    folder = bench.folder / f"video_{people}"
    folder.mkdir(exist_ok=True)
    path = repeated_demo(folder, bench.sizes.video_s, people)
    tools = Tools(estimator, InferenceOptions(_DEMO))  # named in the result, whatever estimates
    bench.release()
    with open_source(path) as source:
        start = time.perf_counter()
        frames = process_clip(source, folder / "result", tools).frames or 0
        taken = time.perf_counter() - start
    numbers: dict[str, float | str] = {
        "frames_per_s": frames / taken,
        "frames": float(frames),
        "memory_mib": peak_memory_mib(bench.device),
    }
    return Row("inference", f"{name}, 720p video, people: {people}", numbers)


SECTIONS: Final = (parity, ways, parallel, training, inference)


def run(bench: Bench) -> Iterator[Row]:
    """All sections that time is left for; a failure ends its own section alone."""
    for section in SECTIONS:
        name = section.__name__
        if not bench.has_time(30):
            yield Row(name, "left out", {"result": "no time was left"})
            continue
        start = time.monotonic()
        try:
            yield from section(bench)
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            yield Row(name, "failed", {"result": what}, ok=False)
        yield Row(name, "time", {"seconds": time.monotonic() - start})
        bench.release()


def line_of(row: Row) -> str:
    """A row of a Markdown table."""
    numbers = ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:.4g}"
        for name, value in row.numbers.items()
    )
    return f"| {row.section} | {row.name} | {numbers} | {'' if row.ok else 'WRONG'} |"


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--minutes", type=float, default=8, help="what begins late is left out")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; trust no number")
    arguments = parser.parse_args(command_line)
    device = pick_device(arguments.device)
    sizes = TINY if arguments.tiny or device.type == "cpu" else FULL
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    about = f"{device} ({kind}), torch {torch.__version__}, {usable_cores()} cores"
    print(f"python -m benchmarks.on_gpu: {about}{', tiny' if sizes is TINY else ''}\n")
    print("| Section | What | Numbers | |\n|---|---|---|---|")
    rows = []
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        for row in run(Bench(device, sizes, end, Path(folder))):
            print(line_of(row), flush=True)
            rows.append(row)
    if arguments.output:
        content = {"about": about, "tiny": sizes is TINY, "rows": [row._asdict() for row in rows]}
        with atomic_path(arguments.output) as partial_file:
            partial_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Where a training step's time goes: `python -m benchmarks.train`.

Synthetic rows over one full-HD JPEG. All candidates take turns, so that whatever else the machine
does strikes them alike; trust the ratios. Claim: losses and body are at most 10 % of a step of the
Base model. The efficiency of two processes is their samples per second against those of one
process that has half of the cores, as each of the two has.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.data import make_instance, write_photograph
from configs.reader import load_config
from configs.schema import Config
from datasets.augmentation import draw_augmentation
from datasets.sample import TrainingSample, training_sample
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from main.training.objective import autocast, images_of
from main.training.optimizer import freeze, make_optimizer
from models.initialise import initial_network
from models.losses import training_losses
from models.posing import body_parameters, pose_body
from utils.device import has_bf16_units
from utils.distributed import process_group

_MOST = 0.10
_CPU = torch.device("cpu")
_PARTS = ("data", "forward", "body + losses", "backward", "optimizer")


class Samples(Dataset[TrainingSample]):
    def __init__(self, path: Path, config: Config, length: int) -> None:
        self.path, self.config, self.length = path, config, length
        self.instance = make_instance(path)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> TrainingSample:
        augmentation = draw_augmentation(0, 0, index)
        return training_sample(self.instance, self.path.parent, self.config, augmentation)


class Step:
    """One iteration after another of a network, each part timed."""

    def __init__(self, config: Config, samples: Samples, batch_size: int) -> None:
        self.config, self.samples, self.batch_size = config, samples, batch_size
        self.body = BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME)).smplx()
        self.network: Any = initial_network(config.model, self.body)
        freeze(self.network, config.train)
        self.optimizer = make_optimizer(self.network, config.train)

    def batch(self) -> dict[str, torch.Tensor]:
        return default_collate([self.samples[k] for k in range(self.batch_size)])

    def __call__(
        self, precision: str, batch: dict[str, torch.Tensor] | None = None
    ) -> dict[str, float]:
        """Seconds of each part; making the batch is timed where none is given."""
        times = [time.perf_counter()]
        batch = batch or self.batch()
        times.append(time.perf_counter())
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(_CPU, precision):
            heads = self.network(images_of(batch))
            times.append(time.perf_counter())
            parameters = body_parameters(heads, self.config.model)
            posed = pose_body(parameters, self.body, self.config.model, want_vertices=False)
            terms = training_losses(heads, posed, batch, self.config)
            loss = torch.stack([term.mean() for term in terms.values()]).sum()
        gradients = torch.autograd.grad(loss, heads, allow_unused=True)
        times.append(time.perf_counter())
        used = [(h, g) for h, g in zip(heads, gradients, strict=True) if g is not None]
        torch.autograd.backward([h for h, _ in used], [g for _, g in used])
        times.append(time.perf_counter())
        self.optimizer.step()
        times.append(time.perf_counter())
        return dict(zip(_PARTS, np.diff(times).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--half-rounds", type=int, default=1, help="of bf16 against fp32")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--config", type=Path, default=Path("configs/config_smplest_x_b.py"))
    parser.add_argument("--small", type=Path, default=Path("configs/config_debug.py"))
    parser.add_argument("--rank-of-two", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config, small = load_config(arguments.config), load_config(arguments.small)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        write_photograph(path)
        if arguments.rank_of_two:
            sys.stdout.write(f"{_rate_in_processes(small, path, arguments.batch_size)}\n")
            return
        print(
            f"python -m benchmarks.train --rounds {arguments.rounds} --batch-size "
            f"{arguments.batch_size}\n{torch.get_num_threads()} threads, PyTorch "
            f"{torch.__version__}, load {os.getloadavg()[0]:.1f}"
        )
        _print_parts(config, path, arguments)
        _print_waiting(small, path, arguments.batch_size)
    one, two = (_rate_started(count) for count in (1, 2))
    print(f"two processes: {two / (2 * one):.2f} of twice the rate of one ({arguments.small.stem})")


def _print_parts(config: Config, path: Path, arguments: argparse.Namespace) -> None:
    step = Step(config, Samples(path, config, 1), arguments.batch_size)
    step("fp32")  # warms up
    rounds = [step("fp32") for _ in range(arguments.rounds)]
    whole = [sum(one.values()) for one in rounds]
    print(f"{arguments.config.stem}: {statistics.median(whole):.2f} s a step in fp32")
    shares = {
        part: statistics.median(one[part] / total for one, total in zip(rounds, whole, strict=True))
        for part in _PARTS
    }
    for part, share in shares.items():
        print(f"  {part:14} {100 * share:5.1f} %")
    kept = "kept" if shares["body + losses"] <= _MOST else "BROKEN"
    print(f"  claim (body + losses at most {100 * _MOST:.0f} %): {kept}", flush=True)
    ratios = []
    for _ in range(arguments.half_rounds):
        half, single = (sum(step(precision).values()) for precision in ("bf16", "fp32"))
        ratios.append(half / single)
    units = "has" if has_bf16_units() else "has no"
    told = f"{statistics.median(ratios):.2f} of a step in fp32" if ratios else "not measured"
    print(f"bf16: {told} (this CPU {units} bf16 units)", flush=True)


def _print_waiting(config: Config, path: Path, batch_size: int, steps: int = 20) -> None:
    """Share of the time that a small network's steps wait for their batches."""
    samples = Samples(path, config, batch_size * (steps + 3))
    step = Step(config, samples, batch_size)
    name = config.model.model_type
    for workers in (1, 2):
        loader = DataLoader(samples, batch_size, num_workers=workers, worker_init_fn=_one_thread)
        waited = _waited(iter(loader), lambda batch: step("fp32", batch), steps)
        told = f"{100 * waited:.0f} % ({name})"
        print(f"waiting for data with {workers} workers: {told}", flush=True)


def _waited(
    batches: Iterator[dict[str, torch.Tensor]], work: Callable[[Any], object], steps: int
) -> float:
    for _ in range(3):
        work(next(batches))
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        work(batch)
    return waited / (time.perf_counter() - start)


def _one_thread(worker: int) -> None:
    del worker
    torch.set_num_threads(1)


def _rate_started(processes: int) -> float:
    """Samples a second of so many processes with one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "benchmarks.train", "--rank-of-two"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return sum(map(float, done.stdout.split()))


def _rate_in_processes(config: Config, path: Path, batch_size: int, steps: int = 30) -> float:
    with process_group(_CPU) as here:
        step = Step(config, Samples(path, config, 1), batch_size)
        if here.size > 1:
            step.network = DistributedDataParallel(step.network, gradient_as_bucket_view=True)
        batch = step.batch()
        for _ in range(3):
            step("fp32", batch)
        start = time.perf_counter()
        for _ in range(steps):
            step("fp32", batch)
        return steps * batch_size / (time.perf_counter() - start)


if __name__ == "__main__":
    main()

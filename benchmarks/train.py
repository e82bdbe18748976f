"""Time of the parts of a training step, and speed of training: `python -m benchmarks.train`.

Rows are random. Parts of a step are timed with crops of a full-HD JPEG, alternately in fp32 and
bf16, so that other load affects both equally; only ratios are reliable. Claim: losses and body take
at most 10 % of a step of the Base model.

Rates are those of the demo network on 256 x 192 crops, as `main.synthesize --crops` stores them, in
processes of one thread as `main.launch` starts them, with data loaded by the process itself (0
workers) or by workers. The share of matmul's rate is the rate of matrix products and convolutions,
forward and backward, over that of torch.matmul on the encoder's largest product, measured in the
same process between the steps; both in CPU time without loading data.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import make_instance, write_photograph
from benchmarks.inference import cost, largest_product
from configs.reader import load_config
from configs.schema import Config, EncoderConfig
from datasets.instances import Instance
from datasets.sample import TrainingSample, training_sample
from datasets.targets import draw_augmentation
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from main.training.optimizer import AveragedWeights, freeze, make_optimizer
from main.training.recipes import regression
from main.training.trainer import autocast
from main.training.validation import images_of
from models.initialise import initial_network
from models.supervision import SupervisedOutputs, SupervisedSMPLestX
from utils.devices import has_bf16_units, process_group

_MOST = 0.10
_CPU = torch.device("cpu")
_PARTS = ("data", "forward", "body + losses", "backward", "optimizer")
_CROP = (192, 256)
"""Width and height of a stored crop."""


class Samples(Dataset[TrainingSample]):
    def __init__(self, instance: Instance, folder: Path, config: Config, length: int) -> None:
        self.instance, self.folder, self.config, self.length = instance, folder, config, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> TrainingSample:
        augmentation = draw_augmentation(0, 0, index)
        return training_sample(self.instance, self.folder, self.config, augmentation)


def write_crop(path: Path) -> Instance:
    """Write a photograph of the size of a stored crop, and return the row of a person in it."""
    write_photograph(path)
    photograph = cv2.imread(str(path))
    assert photograph is not None
    cv2.imwrite(str(path), cv2.resize(photograph, _CROP, interpolation=cv2.INTER_AREA))
    width, height = _CROP
    person = make_instance(path)
    return person._replace(
        image_size=_CROP,
        body_box=np.array([0.1 * width, 0.05 * height, 0.8 * width, 0.9 * height], np.float32),
        joints_2d=(person.joints_2d - (960, 540)) / 5 + (width / 2, height / 2),
    )


class Step:
    """Timed training steps of a network, as in main/training/trainer.py."""

    def __init__(self, config: Config, batch_size: int) -> None:
        self.config, self.batch_size = config, batch_size
        body = BodyLibrary(ModelFolder(STAND_IN, STAND_IN_NAME)).smplx()
        network = initial_network(config.model, body)
        freeze(network, config.train)
        self.network: nn.Module = SupervisedSMPLestX(network, config)
        self.objective = partial(regression, body, config)
        self.optimizer = make_optimizer(self.network, config.train)
        decay = config.train.ema_decay
        self.average = None if decay is None else AveragedWeights(self.network, decay)

    def __call__(self, precision: str, batches: Iterator[dict[str, torch.Tensor]]) -> list[float]:
        """Perform a step and return the seconds of each part."""
        times = [time.perf_counter()]
        batch = next(batches)
        times.append(time.perf_counter())
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(_CPU, precision):
            outputs: SupervisedOutputs = self.network(images_of(batch))
            times.append(time.perf_counter())
            terms = self.objective(_Given(outputs), batch)
            loss = torch.stack([term.mean() for term in terms.values()]).sum()
        read = [*outputs.heads, *(output for output in outputs[1:] if output is not None)]
        gradients = torch.autograd.grad(loss, read, allow_unused=True)
        times.append(time.perf_counter())
        used = [(h, g) for h, g in zip(read, gradients, strict=True) if g is not None]
        torch.autograd.backward([h for h, _ in used], [g for _, g in used])
        times.append(time.perf_counter())
        if self.config.train.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip_grad_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        times.append(time.perf_counter())
        return np.diff(times).tolist()


class _Given(nn.Module):
    """A module that returns given outputs."""

    def __init__(self, outputs: SupervisedOutputs) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: torch.Tensor) -> SupervisedOutputs:
        return self.outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--half-rounds", type=int, default=1, help="rounds of bf16 and fp32")
    parser.add_argument("--batch-size", type=int, default=2, help="for parts of a step")
    parser.add_argument("--config", type=Path, default=Path("configs/config_smplest_x_b.py"))
    parser.add_argument("--small", default="configs/config_smplest_x_demo.py", help="for rates")
    parser.add_argument("--steps", type=int, default=30, help="steps per rate")
    parser.add_argument("--only", choices=("parts", "rates"))
    parser.add_argument("--workers-of-one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.workers_of_one is not None:
        config = load_config(Path(arguments.small))
        rate = _rate_of_one(config, arguments.workers_of_one, arguments.steps)
        sys.stdout.write(f"{json.dumps(rate._asdict())}\n")
        return
    print(
        f"python -m benchmarks.train --rounds {arguments.rounds} --batch-size "
        f"{arguments.batch_size}\n{torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    if arguments.only != "rates":
        _print_parts(load_config(arguments.config), arguments)
    if arguments.only != "parts":
        _print_rates(arguments.small, arguments.steps)


def _print_parts(config: Config, arguments: argparse.Namespace) -> None:
    step = Step(config, arguments.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        write_photograph(path)
        samples = Samples(make_instance(path), path.parent, config, arguments.batch_size)
        rows = range(len(samples))
        batches = (default_collate([samples[k] for k in rows]) for _ in count())
        step("fp32", batches)  # warms up
        rounds = [step("fp32", batches) for _ in range(arguments.rounds)]
        ratios = [
            sum(step("bf16", batches)) / sum(step("fp32", batches))
            for _ in range(arguments.half_rounds)
        ]
    whole = [sum(one) for one in rounds]
    print(f"{arguments.config.stem}: {statistics.median(whole):.2f} s a step in fp32")
    shares = {
        part: statistics.median(one[k] / total for one, total in zip(rounds, whole, strict=True))
        for k, part in enumerate(_PARTS)
    }
    for part, share in shares.items():
        print(f"  {part:14} {100 * share:5.1f} %")
    kept = "kept" if shares["body + losses"] <= _MOST else "BROKEN"
    print(f"  claim (body + losses at most {100 * _MOST:.0f} %): {kept}", flush=True)
    units = "has" if has_bf16_units() else "has no"
    share = f"{statistics.median(ratios):.2f} of a step in fp32" if ratios else "not measured"
    print(f"bf16: {share} (this CPU {units} bf16 units)", flush=True)


class Rate(NamedTuple):
    """Speed of one process."""

    samples_s: float
    waited: float
    """Share of the time for which steps waited for batches."""
    step_cpu_s: float
    """CPU time per sample, without loading it."""
    gflop: float
    """Operations per sample of a training step."""
    matmul_gflop_s: float


def _print_rates(config: str, steps: int) -> None:
    one = 0.0
    for processes, workers in product((1, 2), (0, 1, 2)):
        if processes * workers > 2:
            continue
        command = [sys.executable, "-m", "main.launch", str(processes), "benchmarks.train"]
        command += ["--small", config, "--steps", str(steps), "--workers-of-one", str(workers)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        rates = [Rate(**json.loads(x)) for x in done.stdout.splitlines() if x.startswith("{")]
        total = sum(rate.samples_s for rate in rates)
        one = one or total
        share = statistics.mean(r.gflop / r.step_cpu_s / r.matmul_gflop_s for r in rates)
        step_ms = 1e3 * statistics.mean(rate.step_cpu_s for rate in rates)
        print(
            f"{processes} process(es) of one thread, {workers} workers each: {total:.1f} samples/s "
            f"({total / (processes * one):.2f} of {processes} x one), "
            f"waited {100 * statistics.mean(r.waited for r in rates):.1f} %, "
            f"{rates[0].gflop:.2f} GFLOP, {step_ms:.1f} CPU ms a sample, {share:.2f} of matmul's "
            f"{statistics.mean(r.matmul_gflop_s for r in rates):.0f} GFLOP/s",
            flush=True,
        )


def _rate_of_one(config: Config, workers: int, steps: int) -> Rate:
    with process_group(_CPU) as here, tempfile.TemporaryDirectory() as folder:
        path, batch_size = Path(folder) / "crop.jpg", config.train.train_batch_size
        samples = Samples(write_crop(path), path.parent, config, batch_size * (steps + 3))
        step = Step(config, batch_size)
        loader = DataLoader(samples, batch_size, num_workers=workers, worker_init_fn=_one_thread)
        batches = iter(loader)
        # The counter does not support fused attention on CPUs.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            step("fp32", batches)
        if here.size > 1:
            step.network = DistributedDataParallel(step.network, gradient_as_bucket_view=True)
        for _ in range(2):
            step("fp32", batches)
        parts, cpu_s, matmul = [], [], []
        for _ in range(steps):
            start = time.process_time()
            parts.append(step("fp32", batches))
            made_here = 0.0 if workers else parts[-1][0]
            cpu_s.append(time.process_time() - start - made_here)
            matmul.append(_matmul_gflop_s(config.model.encoder_config, batch_size))
        whole = sum(map(sum, parts))
        return Rate(
            samples_s=steps * batch_size / whole,
            waited=sum(part[0] for part in parts) / whole,
            step_cpu_s=statistics.median(cpu_s) / batch_size,
            gflop=counter.get_total_flops() / batch_size / 1e9,
            matmul_gflop_s=statistics.median(matmul),
        )


def _matmul_gflop_s(config: EncoderConfig, batch_size: int) -> float:
    left, right = largest_product(config, batch_size)
    times = [cost(lambda: torch.matmul(left, right)).cpu_s for _ in range(5)]
    return 2e-9 * left.numel() * right.shape[1] / statistics.median(times)


def _one_thread(worker: int) -> None:
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()

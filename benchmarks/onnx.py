"""The network in onnxruntime against PyTorch, on the CPU.

    python -m benchmarks.onnx [--config configs/config_smplest_x_demo.py] [--batch 8] [--json]

The weights are random. Both run the whole network on the same batch, in turns, so that whatever
else the machine does strikes both; ratios are of medians. What the other cores' work costs in wall
time, it does not cost in seconds of all cores together. Aim: onnxruntime needs less.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from configs.reader import load_config
from models.deployment import OnnxNetwork, save_onnx
from models.smplest_x import SMPLestX


class Cost(NamedTuple):
    """Seconds of a run: of wall-clock time, and of all cores together."""

    wall_s: float
    cpu_s: float


def cost(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


@torch.inference_mode()
def measure(
    network: SMPLestX, other: OnnxNetwork, images: torch.Tensor, rounds: int
) -> tuple[Cost, Cost]:
    """Median cost of a crop in PyTorch and in onnxruntime."""
    for _ in range(2):
        network(images), other(images)
    times = [(cost(lambda: network(images)), cost(lambda: other(images))) for _ in range(rounds)]
    ours, theirs = (
        Cost(*(statistics.median(values) / len(images) for values in zip(*side, strict=True)))
        for side in zip(*times, strict=True)
    )
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/config_smplest_x_demo.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true", help="the last line is one of JSON")
    arguments = parser.parse_args()

    config = load_config(arguments.config).model
    torch.manual_seed(0)
    network = SMPLestX(config).eval()
    images = torch.rand(arguments.batch, 3, *config.input_body_shape)
    print(f"python -m benchmarks.onnx --config {arguments.config} --batch {arguments.batch}")
    results: dict[str, object] = {"config": arguments.config, "batch": arguments.batch}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        save_onnx(network, config.input_body_shape, path)
        other = OnnxNetwork(path, torch.device("cpu"))
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            ours, theirs = measure(network, other, images, arguments.rounds)
            wall, cpu = theirs.wall_s / ours.wall_s, theirs.cpu_s / ours.cpu_s
            print(
                f"{threads} thread(s), ms a crop: torch {ours.wall_s * 1e3:.1f} "
                f"({ours.cpu_s * 1e3:.1f} of CPU), onnxruntime {theirs.wall_s * 1e3:.1f} "
                f"({theirs.cpu_s * 1e3:.1f} of CPU), ratio {wall:.2f} ({cpu:.2f})"
            )
            results[f"threads_{threads}"] = {
                "torch": ours._asdict(),
                "onnxruntime": theirs._asdict(),
                "ratio": round(wall, 3),
                "cpu_ratio": round(cpu, 3),
            }
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()

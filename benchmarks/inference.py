"""Speed of encoder and decoder, relative to matrix products on the same machine.

    python -m benchmarks.inference [--config configs/config_smplest_x_h.py] [--batch 8]

The weights are random. Encoder and decoder on a batch of crops, and torch.matmul with the size of
their largest product, are timed alternately in the same process and precision. The aims are 0.8 of
the rate of matmul in fp32, and 0.75 in bf16. Only operations of matrix products and convolutions
are counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from configs.reader import load_config
from configs.schema import EncoderConfig, ModelConfig
from main.pipeline.estimator import PRECISIONS
from models.smplest_x import SMPLestX
from utils.devices import pick_device


class Cost(NamedTuple):
    """Wall-clock time and CPU time of all cores, seconds."""

    wall_s: float
    cpu_s: float


def cost(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def network_flops(config: ModelConfig, batch: int) -> int:
    """Floating-point operations of matrix products and convolutions in encoder and decoder."""
    with torch.device("meta"):
        network, images = SMPLestX(config).eval(), torch.rand(batch, 3, *config.input_body_shape)
    # The counter does not support fused attention on CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.tokens(images)
    return counter.get_total_flops()


def largest_product(
    config: EncoderConfig,
    batch: int,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "D H"]]:
    """Factors of the encoder's largest matrix product: all tokens, and the weight of an MLP."""
    height, width = (side // config.patch_size for side in config.img_size)
    rows, dim = batch * (config.task_tokens_num + height * width), config.embed_dim
    left = torch.rand(rows, dim, device=device, dtype=dtype)
    # The layout of a layer's weight; without bf16 units, the other layout is 20 times slower.
    right = torch.rand(int(config.mlp_ratio * dim), dim, device=device, dtype=dtype).mT
    return left, right


def seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.inference_mode()
def measure(
    network: SMPLestX, config: ModelConfig, batch: int, repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Seconds of the network per batch, and operations per second of the network and of matmul."""
    dtype, flops = network.precision, network_flops(config, batch)
    images = torch.rand(batch, 3, *config.input_body_shape, device=device, dtype=dtype)
    left, right = largest_product(config.encoder_config, batch, device, dtype)
    product_flops = 2 * left.numel() * right.shape[1]
    products = max(1, flops // product_flops // 8)

    def multiply() -> None:
        for _ in range(products):
            torch.matmul(left, right)

    network.tokens(images)
    multiply()
    pairs = [
        (seconds(lambda: network.tokens(images), device), seconds(multiply, device))
        for _ in range(repeats)
    ]
    network_s, matmul_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return network_s, flops / network_s, products * product_flops / matmul_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/config_smplest_x_h.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), default=[*PRECISIONS])
    arguments = parser.parse_args()

    config = load_config(arguments.config).model
    device = pick_device(arguments.device)
    network = SMPLestX(config).eval().to(device)
    print(
        f"python -m benchmarks.inference --config {arguments.config} --batch {arguments.batch}\n"
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads"
    )
    for name in arguments.precisions:
        network.to_precision(PRECISIONS[name])
        network_s, network_rate, matmul_rate = measure(
            network, config, arguments.batch, arguments.repeats, device
        )
        print(
            f"{name}: {network_s / arguments.batch * 1e3:7.1f} ms a person, "
            f"network {network_rate / 1e9:7.1f} GFLOP/s, matmul {matmul_rate / 1e9:7.1f} GFLOP/s, "
            f"fraction {network_rate / matmul_rate:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

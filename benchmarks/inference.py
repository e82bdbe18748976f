"""How near the encoder comes to this machine's own matrix product.

    python -m benchmarks.inference [--config configs/config_smplest_x_h.py] [--batch 8]

The weights are random. Both are timed in turn in the same process: the encoder on a batch of crops
and torch.matmul on the largest product inside it, in the same precision.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from configs.reader import load_config
from configs.schema import EncoderConfig
from models.smplest_x import SMPLestX
from utils.device import pick_device


class Product(NamedTuple):
    """A matrix product of (rows x inner) with (inner x columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns


def encoder_flops(config: EncoderConfig, batch: int) -> int:
    """Operations in the encoder's matrix products; all else is left out."""
    dim, patches = config.embed_dim, patch_count(config)
    tokens = batch * (config.task_tokens_num + patches)
    attention = 2 * Product(tokens, dim, tokens // batch).flops  # scores, then weighted values
    hidden = int(dim * config.mlp_ratio)
    linear = sum(Product(tokens, dim, columns).flops for columns in (3 * dim, dim, 2 * hidden))
    patch_embedding = Product(batch * patches, 3 * config.patch_size**2, dim).flops
    return patch_embedding + config.depth * (linear + attention)


def patch_count(config: EncoderConfig) -> int:
    height, width = config.img_size
    return (height // config.patch_size) * (width // config.patch_size)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.inference_mode()
def measure(
    network: SMPLestX, config: EncoderConfig, batch: int, repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Seconds of the encoder for a batch, and operations a second of encoder and of matmul."""
    dtype = network.precision
    images = torch.rand(batch, 3, *config.img_size, device=device, dtype=dtype)
    tokens = batch * (config.task_tokens_num + patch_count(config))
    product = Product(tokens, config.embed_dim, int(config.embed_dim * config.mlp_ratio))
    left = torch.rand(product.rows, product.inner, device=device, dtype=dtype)
    # Laid out as a layer's weight is; without bf16 units the other layout is 20 times slower.
    right = torch.rand(product.columns, product.inner, device=device, dtype=dtype).mT
    products = max(1, encoder_flops(config, batch) // product.flops // 8)

    def multiply() -> None:
        for _ in range(products):
            torch.matmul(left, right)

    network.encoder(images)
    multiply()
    pairs = [
        (seconds(lambda: network.encoder(images), device), seconds(multiply, device))
        for _ in range(repeats)
    ]
    encoder_s, matmul_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    encoder_rate = encoder_flops(config, batch) / encoder_s
    return encoder_s, encoder_rate, products * product.flops / matmul_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/config_smplest_x_h.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    config = load_config(arguments.config).model
    device = pick_device(arguments.device)
    network = SMPLestX(config).eval().to(device)
    print(
        f"python -m benchmarks.inference --config {arguments.config} --batch {arguments.batch}\n"
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads"
    )
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network.to_precision(dtype)
        encoder_s, encoder_rate, matmul_rate = measure(
            network, config.encoder_config, arguments.batch, arguments.repeats, device
        )
        print(
            f"{name}: {encoder_s / arguments.batch * 1e3:7.1f} ms a person, "
            f"encoder {encoder_rate / 1e9:7.1f} GFLOP/s, matmul {matmul_rate / 1e9:7.1f} GFLOP/s, "
            f"fraction {encoder_rate / matmul_rate:.2f}"
        )


if __name__ == "__main__":
    main()

"""Time and memory of loading a checkpoint in the published format, with optimizer state.

    python -m benchmarks.checkpoint [--config configs/config_smplest_x_h.py] [--folder build]

Writes the file (8.2 GB for Huge) to --folder, loads it in a new process and removes it. Memory is
the increase of the process's memory after every parameter has been read.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from configs.reader import load_config
from main.pipeline.estimator import PRECISIONS
from models.checkpoint import load_network, to_published
from models.smplest_x import SMPLestX


def write_checkpoint(config_path: str, path: Path) -> None:
    """Random weights with Adam's two moments, as training saves them."""
    state = to_published(SMPLestX(load_config(config_path).model).state_dict())
    moments = {
        i: {"step": 1, "exp_avg": torch.rand_like(value), "exp_avg_sq": torch.rand_like(value)}
        for i, value in enumerate(state.values())
    }
    network = {f"module.{key}": value for key, value in state.items()}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-5, "params": list(moments)}]}
    torch.save({"epoch": 0, "network": network, "optimizer": optimizer}, path)


def memory_bytes(process: int | str = "self") -> dict[str, int]:
    """Memory of a process: current (VmRSS), peak (VmHWM), and the parts of the current memory that
    files back (RssFile) or not (RssAnon)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM", "Rss")))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in fields}


def load_and_report(config_path: str, path: Path, precision: str) -> None:
    config = load_config(config_path).model
    before = memory_bytes()
    start = time.perf_counter()
    network = load_network(config, path, PRECISIONS[precision])
    loaded_s = time.perf_counter() - start
    with torch.inference_mode():
        total = sum(float(parameter.sum()) for parameter in network.parameters())
    assert total == total, "random weights hold no NaN"
    after = memory_bytes()
    peak, anonymous = after["VmHWM"] - before["VmRSS"], after["RssAnon"] - before["RssAnon"]
    fp32_bytes = sum(parameter.numel() for parameter in network.parameters()) * 4
    print(
        f"{precision}: loaded in {loaded_s:.2f} s, peak memory {peak / 1e9:.2f} GB = "
        f"{peak / fp32_bytes:.2f} x the network's fp32 bytes, "
        f"of which no file backs {anonymous / fp32_bytes:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/config_smplest_x_h.py")
    parser.add_argument("--folder", type=Path, default=Path("build"))
    parser.add_argument("--load", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    path = arguments.folder / "benchmark.pth.tar"
    if arguments.load:
        load_and_report(arguments.config, path, arguments.load)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        write_checkpoint(arguments.config, path)
        print(f"python -m benchmarks.checkpoint --config {arguments.config}")
        print(f"file: {path.stat().st_size / 1e9:.2f} GB", flush=True)
        for precision in PRECISIONS:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.checkpoint", *sys.argv[1:], "--load", precision],
                check=True,
            )
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()

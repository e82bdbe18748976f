"""All benchmarks, one after the other: `python -m benchmarks.run [--only NAME,...] [--quick]`.

Each benchmark runs in a separate process and prints its figures. If one fails, the others still
run, and the exit status is 1.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch

from utils.devices import has_bf16_units, usable_cores
from utils.files import ROOT

MODEL: Final = "{model}"
"""Placeholder for the value of --model in a benchmark's arguments."""


class Benchmark(NamedTuple):
    name: str
    module: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """Arguments that --quick adds, with which the benchmark is fast but its results are useless."""

    def command(self, model: str, *, quick: bool) -> list[str]:
        """The arguments of the Python interpreter."""
        arguments = self.arguments + (self.quick if quick else ())
        return ["-m", self.module, *(model if one == MODEL else one for one in arguments)]


_OF_MODEL: Final = ("--model", MODEL)
_BASE: Final = ("--config", "configs/config_smplest_x_b.py")
"""Huge would take a quarter of an hour in bf16 on a CPU without bf16 units."""
_DEBUG: Final = ("--config", "configs/config_debug.py")
BENCHMARKS: Final = (
    Benchmark("camera", "benchmarks.camera", ("--frames", "90"), ("--only", "static")),
    Benchmark("checkpoint", "benchmarks.checkpoint", (), _DEBUG),
    Benchmark("data", "benchmarks.data", (), ("--rounds", "5")),
    Benchmark("hostile-files", "benchmarks.hostile_files", (), ("--count", "300")),
    Benchmark("inference", "benchmarks.inference", _BASE, ("--repeats", "1", *_DEBUG)),
    Benchmark("on-gpu", "benchmarks.on_gpu", (), ("--tiny",)),
    Benchmark("startup", "benchmarks.startup", _OF_MODEL, ("--rounds", "1")),
    Benchmark("smoothing", "benchmarks.smoothing", (), ("--people", "2", "--frames", "20")),
    Benchmark(
        *("precision", "benchmarks.precision", ("--ways", "bf16,compile,int8,onnx")),
        ("--rounds", "1", "--threads", "1", *_DEBUG),
    ),
    Benchmark("tracking", "benchmarks.tracking", (), ("--clips", "1", "--frames", "60")),
    Benchmark("train", "benchmarks.train", (), ("--rounds", "1", *_DEBUG)),
    Benchmark("video", "benchmarks.video", _OF_MODEL, ("--seconds", "4")),
    Benchmark("video-one", "benchmarks.video", (*_OF_MODEL, "--people", "1"), ("--seconds", "4")),
    Benchmark("video-memory", "benchmarks.video", (*_OF_MODEL, "--memory"), ("--seconds", "1")),
    Benchmark("world", "benchmarks.world", (), ("--clips", "1", "--frames", "60")),
)


def machine() -> str:
    """Processor, memory and versions, in one line."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    bf16 = "with" if has_bf16_units() else "without"
    versions = ", ".join(f"{one.__name__} {one.__version__}" for one in (torch, np, cv2))
    return (
        f"{models[0] if models else platform.processor()}, {usable_cores()} cores, {bf16} bf16 "
        f"units, {gigabytes:.1f} GB; python {platform.python_version()}, {versions}"
    )


def run_one(benchmark: Benchmark, model: str, *, quick: bool) -> int:
    """Run a benchmark, which prints its figures; returns its exit status."""
    command = benchmark.command(model, quick=quick)
    print(f"\n{shlex.join(['python', *command])}", flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    ending = f"exit status {status}" if status else f"{time.perf_counter() - start:.0f} s"
    print(f"{benchmark.name}: {ending}", flush=True)
    return status


def chosen(names: str | None) -> list[Benchmark]:
    """The benchmarks in a comma-separated list (None: all); raises SystemExit for unknown names."""
    if names is None:
        return list(BENCHMARKS)
    wanted = {name.strip() for name in names.split(",")}
    known = [benchmark.name for benchmark in BENCHMARKS]
    if unknown := sorted(wanted - set(known)):
        raise SystemExit(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return [benchmark for benchmark in BENCHMARKS if benchmark.name in wanted]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME,...", help="some of the benchmarks")
    parser.add_argument("--quick", action="store_true", help="only test that they run")
    parser.add_argument(
        "--model", default="smplest_x_demo", metavar="MODEL_DIR", help="for startup and videos"
    )
    arguments = parser.parse_args(argv)
    benchmarks = chosen(arguments.only)
    print(machine())
    failed = [
        one.name for one in benchmarks if run_one(one, arguments.model, quick=arguments.quick)
    ]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

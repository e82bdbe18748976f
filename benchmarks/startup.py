"""Start-up time of inference in a new process.

    python -m benchmarks.startup [--model MODEL_DIR] [--rounds 5]

The time from the start of Python to the first frame: parsing the command line, opening the demo
video, loading network and body. It is the median of several rounds, after one that fills the disk
cache. CPU time above wall-clock time is work of several cores; wall-clock time far above CPU time
means that other programs used the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Final, NamedTuple

from utils.files import ROOT

SCRIPT: Final = """
import json, os, sys, time

def ready(*_):
    used = {"cpu_s": time.process_time(), "modules": sorted(sys.modules)}
    os.write(1, json.dumps(used).encode() + b"\\n")
    os._exit(0)

def start(arguments):
    from main.pipeline import pipeline
    pipeline.process_clip = ready
    return run(arguments)

from main.cli import command
from main.inference import make_parser, run
sys.exit(command(make_parser, start)(sys.argv[1:]))
"""
"""The command of inference, which ends before the first frame."""


class Start(NamedTuple):
    """Wall-clock and CPU time until the network is ready (seconds), and imported modules."""

    wall_s: float
    cpu_s: float
    modules: list[str]


def start(model: str, source: str = "test_video.mp4") -> Start:
    """Start inference once in a new process.

    Raises:
        SystemExit: the command fails.
    """
    begin = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, model, source]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        wall_s = time.perf_counter() - begin
        _, errors = process.communicate()
    if process.returncode or not line:
        raise SystemExit(errors.decode(errors="replace"))
    used = json.loads(line)
    return Start(wall_s, used["cpu_s"], used["modules"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smplest_x_demo", metavar="MODEL_DIR")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start(arguments.model)
    starts = [start(arguments.model) for _ in range(arguments.rounds)]
    wall_s = statistics.median(one.wall_s for one in starts)
    cpu_s = statistics.median(one.cpu_s for one in starts)
    print(
        f"python -m benchmarks.startup --model {arguments.model} --rounds {arguments.rounds}\n"
        f"network ready after {wall_s:.2f} s, {cpu_s:.2f} s of all cores together, "
        f"{len(starts[0].modules)} modules"
    )


if __name__ == "__main__":
    main()

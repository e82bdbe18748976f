"""All benchmarks, one after the other: `python -m benchmarks.run [--only NAME,...] [--quick]`.

Each runs in a process of its own. benchmarks/results.json is written anew after each of them:
machine, versions, and of each benchmark its command, exit status, seconds, what it printed, and
its line of JSON where it prints one; results.md beside it is the table. What the same machine
with the same versions has measured before stays where --only leaves it out. A benchmark that
fails stops no other; the exit status is 1 then.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from utils.files import atomic_path

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results.json"
PACKAGES: Final = ("torch", "numpy", "opencv-python-headless", "onnxruntime")
MODEL: Final = "{model}"
"""Stands in a benchmark's words for --model."""
_LINES_IN_TABLE: Final = 8
_LINES_OF_ERRORS: Final = 20


class Benchmark(NamedTuple):
    name: str
    module: str
    words: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """Behind `words` with --quick: enough to see that it runs, not to trust its numbers."""

    def command(self, model: str, *, quick: bool) -> list[str]:
        """What follows `python`."""
        words = self.words + (self.quick if quick else ())
        return ["-m", self.module, *(model if word == MODEL else word for word in words)]


_VIDEO: Final = ("--json", "--model", MODEL)
_BASE: Final = ("--config", "configs/config_smplest_x_b.py")
"""In bf16 Huge takes a quarter of an hour where the processor has no units for it."""
_DEBUG: Final = ("--config", "configs/config_debug.py")
BENCHMARKS: Final = (
    Benchmark("body", "benchmarks.body", (), ("--rounds", "3")),
    Benchmark("cache", "benchmarks.cache", (), ("--quick",)),
    Benchmark("checkpoint", "benchmarks.checkpoint", (), _DEBUG),
    Benchmark("data", "benchmarks.data", (), ("--rounds", "5")),
    Benchmark("drawing", "benchmarks.drawing", (), ("--frames", "10")),
    Benchmark("hostile-files", "benchmarks.hostile_files", (), ("--count", "300")),
    Benchmark("inference", "benchmarks.inference", _BASE, ("--repeats", "1", *_DEBUG)),
    Benchmark("metrics", "benchmarks.metrics", (), ("--rounds", "2")),
    Benchmark("onnx", "benchmarks.onnx", ("--json",), ("--rounds", "3", *_DEBUG)),
    Benchmark("startup", "benchmarks.startup", _VIDEO, ("--rounds", "1")),
    Benchmark("smoothing", "benchmarks.smoothing", (), ("--people", "2", "--frames", "20")),
    Benchmark(
        "precision", "benchmarks.precision", (), ("--rounds", "1", "--threads", "1", *_DEBUG)
    ),
    Benchmark("synthesis", "benchmarks.synthesis", (), ("--rounds", "1", "--crops", "8")),
    Benchmark("tracking", "benchmarks.tracking", (), ("--clips", "1", "--frames", "60")),
    Benchmark("train", "benchmarks.train", (), ("--rounds", "1", *_DEBUG)),
    Benchmark("video", "benchmarks.video", _VIDEO, ("--seconds", "4")),
    Benchmark("video-one", "benchmarks.video", (*_VIDEO, "--people", "1"), ("--seconds", "4")),
    Benchmark("video-memory", "benchmarks.video", (*_VIDEO, "--memory"), ("--seconds", "1")),
)


class Outcome(NamedTuple):
    command: str
    status: int
    date: str
    quick: bool
    seconds: float
    lines: list[str]
    """What was printed, without the line of JSON."""
    result: dict[str, Any] | None
    """The line of JSON."""
    errors: list[str]
    """The end of what was told on stderr, where the benchmark failed."""


def machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30, 1),
    }


def _cpu_model() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def run_one(benchmark: Benchmark, model: str, *, quick: bool) -> Outcome:
    """Run a benchmark, show what it prints as it comes, and keep it."""
    command = benchmark.command(model, quick=quick)
    told = shlex.join(["python", *command])
    print(f"\n{told}", flush=True)
    date, start, lines = datetime.now().astimezone(), time.perf_counter(), []
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        with subprocess.Popen(
            [sys.executable, "-u", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip())
        errors.seek(0)
        last_errors = errors.read().splitlines()[-_LINES_OF_ERRORS:]
    status, seconds = process.returncode, round(time.perf_counter() - start, 1)
    if status:
        print("\n".join([*last_errors, f"{benchmark.name}: exit status {status}"]), flush=True)
    kept, result = _without_json(lines)
    when = date.isoformat(timespec="seconds")
    return Outcome(told, status, when, quick, seconds, kept, result, last_errors if status else [])


def _without_json(lines: Sequence[str]) -> tuple[list[str], dict[str, Any] | None]:
    """The lines without the last, and what that says, where it is a JSON object."""
    kept = [line for line in lines if line]
    try:
        result = json.loads(kept[-1]) if kept else None
    except json.JSONDecodeError:
        return kept, None
    return (kept[:-1], result) if isinstance(result, dict) else (kept, None)


def earlier(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What `path` holds of the same machine and versions, by benchmark."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        return old["benchmarks"] if {key: old[key] for key in about} == about else {}
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return {}


def run_all(
    benchmarks: Sequence[Benchmark], path: Path, model: str, *, quick: bool
) -> Iterator[tuple[str, Outcome]]:
    """Run each, with `path` and its table (.md) written after each; give name and outcome."""
    about = {"machine": machine(), "versions": versions()}
    outcomes = earlier(path, about)
    for benchmark in benchmarks:
        outcome = run_one(benchmark, model, quick=quick)
        outcomes[benchmark.name] = outcome._asdict()
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        results = {"date": date, **about, "benchmarks": dict(sorted(outcomes.items()))}
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        with atomic_path(path.with_suffix(".md")) as partial:
            partial.write_text(table(results), encoding="utf-8")
        yield benchmark.name, outcome


def table(results: dict[str, Any]) -> str:
    """Results as Markdown: the machine, and a row a benchmark."""
    here = results["machine"]
    known = ", ".join(f"{name} {number}" for name, number in results["versions"].items() if number)
    rows = [
        f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB; {known}; {results['date']}",
        "",
        "| benchmark | what it tells | s |",
        "|---|---|---|",
    ]
    for name, outcome in results["benchmarks"].items():
        lines = [f"`{outcome['command']}`", *outcome["lines"][:_LINES_IN_TABLE]]
        if len(outcome["lines"]) > _LINES_IN_TABLE:
            lines.append("...")
        if (outcome["result"] or {}).get("share_of_limit") is not None:
            lines.append(f"share_of_limit {outcome['result']['share_of_limit']}")
        if outcome["status"]:
            lines.append(f"**failed**, exit status {outcome['status']}")
        told = "<br>".join(line.replace("|", "\\|") for line in lines)
        mark = " (quick)" if outcome["quick"] else ""
        rows.append(f"| {name}{mark} | {told} | {outcome['seconds']} |")
    return "\n".join(rows) + "\n"


def chosen(names: str | None) -> list[Benchmark]:
    """The benchmarks of a list with commas, in the table's order; raises SystemExit for others."""
    if names is None:
        return list(BENCHMARKS)
    wanted = {name.strip() for name in names.split(",")}
    known = [benchmark.name for benchmark in BENCHMARKS]
    if unknown := sorted(wanted - set(known)):
        raise SystemExit(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return [benchmark for benchmark in BENCHMARKS if benchmark.name in wanted]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME,...", help="some of the benchmarks")
    parser.add_argument("--quick", action="store_true", help="see that they run; trust no number")
    parser.add_argument(
        "--model", default="smplest_x_demo", metavar="MODEL_DIR", help="of the videos"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE.json")
    arguments = parser.parse_args(words)
    outcomes = dict(
        run_all(chosen(arguments.only), arguments.output, arguments.model, quick=arguments.quick)
    )
    print(f"\n{arguments.output.with_suffix('.md').read_text(encoding='utf-8')}")
    failed = [name for name, outcome in outcomes.items() if outcome.status]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

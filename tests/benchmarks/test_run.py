"""The runner of all benchmarks, tested with stand-ins in their place."""

import platform
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.run import BENCHMARKS, MODEL, Benchmark

ROOT = Path(__file__).parents[2]
GOOD = """
import sys
print("arguments", *sys.argv[1:])
"""
BAD = """
import sys
print("before")
sys.exit("error: no such model")
"""


@pytest.fixture
def output_of(tmp_path, monkeypatch, capfd):
    """Runs two stand-ins, the bad one first; returns the exit status and what was printed."""
    folder = tmp_path / "standins"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD)
    (folder / "bad.py").write_text(BAD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stand_ins = (
        Benchmark("bad", "standins.bad"),
        Benchmark("good", "standins.good", ("--model", MODEL), ("--rounds", "1")),
    )
    monkeypatch.setattr(run, "BENCHMARKS", stand_ins)

    def output_of(*arguments):
        status = run.main(arguments)
        return status, capfd.readouterr()

    return output_of


def test_one_failure_stops_no_other(output_of):
    status, shown = output_of("--model", "my model")
    assert status == 1
    assert f"python {platform.python_version()}, torch " in shown.out
    _, bad, good = shown.out.split("\npython -m ")
    assert bad.splitlines() == ["standins.bad", "before", "bad: exit status 1"]
    lines = good.splitlines()
    assert lines[:2] == ["standins.good --model 'my model'", "arguments --model my model"]
    assert lines[-1] == "failed: bad"
    assert "error: no such model" in shown.err


def test_only_runs_those_that_are_named(output_of):
    status, shown = output_of("--only", "good")
    assert status == 0
    assert "standins.bad" not in shown.out


def test_quick_adds_its_arguments(output_of):
    _, shown = output_of("--only", "good", "--quick")
    assert "arguments --model smplest_x_demo --rounds 1\n" in shown.out


def test_an_unknown_name_is_an_error(output_of):
    with pytest.raises(SystemExit, match="no benchmark best; there are bad, good"):
        output_of("--only", "good,best")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_real_ones_take_these_arguments(benchmark):
    source = (ROOT / f"{benchmark.module.replace('.', '/')}.py").read_text()
    flags = [one for one in benchmark.arguments + benchmark.quick if one.startswith("--")]
    assert all(f'add_argument("{flag}"' in source for flag in flags)


def test_all_with_a_command_line_are_run():
    no_measurement = {"curves", "run"}
    there = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "ArgumentParser(" in path.read_text()
    }
    assert there - no_measurement == {b.module.removeprefix("benchmarks.") for b in BENCHMARKS}

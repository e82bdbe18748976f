"""The runner of all benchmarks, with stand-ins in their place."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.run import BENCHMARKS, MODEL, Benchmark

ROOT = Path(__file__).parents[2]
GOOD = """
import json, sys, time
time.sleep(0.2)
print("python -m standins.good")
print("ratio 0.50 | twice as fast")
print(json.dumps({"share_of_limit": 0.9, "words": sys.argv[1:]}))
"""
BAD = """
import sys
print("before")
print("{not json}")
sys.exit("error: no such model")
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Runs two stand-ins, the bad one first; gives exit status and what was written."""
    folder = tmp_path / "standins"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD)
    (folder / "bad.py").write_text(BAD)
    (folder / "silent.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stand_ins = (
        Benchmark("bad", "standins.bad"),
        Benchmark("good", "standins.good", ("--model", MODEL), ("--rounds", "1")),
        Benchmark("silent", "standins.silent"),
    )
    monkeypatch.setattr(run, "BENCHMARKS", stand_ins)
    file = tmp_path / "out" / "results.json"

    def results_of(*words):
        status = run.main(["--output", str(file), *words])
        return status, json.loads(file.read_text())

    return results_of


def test_one_failure_stops_no_other(results, capsys):
    status, written = results("--model", "my model")
    assert status == 1
    bad, good, silent = (written["benchmarks"][name] for name in ("bad", "good", "silent"))
    assert (bad["status"], good["status"], silent["status"]) == (1, 0, 0)
    assert bad["lines"] == ["before", "{not json}"]
    assert bad["errors"] == ["error: no such model"]
    assert bad["result"] is None
    assert good["command"] == "python -m standins.good --model 'my model'"
    assert good["lines"] == ["python -m standins.good", "ratio 0.50 | twice as fast"]
    assert good["result"] == {"share_of_limit": 0.9, "words": ["--model", "my model"]}
    assert good["seconds"] >= 0.2
    assert (silent["lines"], silent["result"], silent["errors"]) == ([], None, [])
    told = capsys.readouterr().out
    assert "failed: bad" in told
    assert "error: no such model" in told


def test_machine_and_versions_are_told(results):
    _, written = results("--only", "good")
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["memory_gb"] > 0.1
    assert written["machine"]["cpu"]
    assert written["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy", "opencv-python-headless"} <= set(written["versions"])
    assert written["date"][:2] == "20"


def test_only_keeps_what_the_same_machine_measured(results, monkeypatch):
    assert results("--only", "good")[0] == 0
    status, written = results("--only", "silent", "--quick")
    assert status == 0
    assert set(written["benchmarks"]) == {"good", "silent"}
    assert (written["benchmarks"]["good"]["quick"], written["benchmarks"]["silent"]["quick"]) == (
        False,
        True,
    )
    monkeypatch.setattr(run, "machine", lambda: {"cpu": "other", "cores": 1, "memory_gb": 1})
    assert set(results("--only", "silent")[1]["benchmarks"]) == {"silent"}


def test_quick_adds_its_words(results):
    _, written = results("--only", "good", "--quick")
    assert written["benchmarks"]["good"]["result"]["words"][-2:] == ["--rounds", "1"]


def test_the_table_has_a_row_a_benchmark(results, tmp_path):
    results()
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    start = table.index("|---|---|---|") + 1
    rows = {row.split(" | ")[0]: row for row in table[start:]}
    assert list(rows) == ["| bad", "| good", "| silent"]
    assert "**failed**, exit status 1" in rows["| bad"]
    assert r"ratio 0.50 \| twice as fast<br>share_of_limit 0.9" in rows["| good"]
    assert not list((tmp_path / "out").glob(".partial*"))


def test_an_unknown_name_is_told(results):
    with pytest.raises(SystemExit, match="no benchmark best; there are bad, good, silent"):
        results("--only", "good,best")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_real_ones_take_these_words(benchmark):
    source = (ROOT / f"{benchmark.module.replace('.', '/')}.py").read_text()
    flags = [word for word in benchmark.words + benchmark.quick if word.startswith("--")]
    assert all(f'add_argument("{flag}"' in source for flag in flags)


def test_all_with_a_command_line_are_run():
    no_measurement = {"curves", "run"}
    there = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "ArgumentParser(" in path.read_text()
    }
    assert there - no_measurement == {b.module.removeprefix("benchmarks.") for b in BENCHMARKS}

"""The runner of all benchmarks, tested with stand-ins in their place."""

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
print(json.dumps({"share_of_limit": 0.9, "arguments": sys.argv[1:]}))
"""
BAD = """
import sys
print("before")
print("{not json}")
sys.exit("error: no such model")
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Runs three stand-ins, the bad one first; returns the exit status and what was written."""
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

    def results_of(*arguments):
        status = run.main(["--output", str(file), *arguments])
        return status, json.loads(file.read_text())

    return results_of


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with an old table, and results.json in the place that it shows."""
    path = tmp_path / "performance.md"
    path.write_text("Before.\n{}old table\n{}After.\n".format(*run._BLOCK))
    monkeypatch.setattr(run, "PAGE", path)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "out" / "results.json")
    return path


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
    assert good["result"] == {"share_of_limit": 0.9, "arguments": ["--model", "my model"]}
    assert good["seconds"] >= 0.2
    assert (silent["lines"], silent["result"], silent["errors"]) == ([], None, [])
    shown = capsys.readouterr().out
    assert "failed: bad" in shown
    assert "error: no such model" in shown


def test_machine_and_versions_are_written(results):
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


def test_quick_adds_its_arguments(results):
    _, written = results("--only", "good", "--quick")
    assert written["benchmarks"]["good"]["result"]["arguments"][-2:] == ["--rounds", "1"]


def test_the_page_has_one_row_per_benchmark(results, page):
    results()
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert "old table" not in lines
    start = lines.index("|---|---|---|") + 1
    table = lines[start : lines.index("", start)]
    rows = {row.split(" | ")[0]: row for row in table}
    assert list(rows) == ["| bad", "| good", "| silent"]
    assert "**failed**, exit status 1" in rows["| bad"]
    assert r"ratio 0.50 \| twice as fast<br>share_of_limit 0.9" in rows["| good"]
    assert not list(page.parent.rglob(".partial*"))


def test_tables_runs_nothing(results, page):
    results("--only", "good")
    shown = page.read_text()
    assert "| good |" in shown
    file = page.parent / "out" / "results.json"
    written = file.read_text()
    file.write_text(written.replace("ratio 0.50", "ratio 0.25"))
    assert run.main(["--tables"]) == 0
    assert page.read_text() == shown.replace("ratio 0.50", "ratio 0.25")
    assert file.read_text() == written.replace("ratio 0.50", "ratio 0.25")


def test_results_elsewhere_leave_the_page_alone(results, page, monkeypatch):
    before = page.read_text()
    monkeypatch.setattr(run, "RESULTS", page.parent / "other.json")
    results("--only", "silent")
    assert page.read_text() == before


def test_the_table_in_the_docs_is_up_to_date():
    page = run.PAGE.read_text(encoding="utf-8")
    assert page == run.page_with_table(page, json.loads(run.RESULTS.read_text(encoding="utf-8")))


def test_an_unknown_name_is_an_error(results):
    with pytest.raises(SystemExit, match="no benchmark best; there are bad, good, silent"):
        results("--only", "good,best")


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

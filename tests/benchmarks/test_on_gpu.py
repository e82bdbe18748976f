"""The benchmark of GPUs, on the CPU with tiny sizes: what it runs there is not what it measures."""

import json
import time

import pytest
import torch

from benchmarks import on_gpu
from benchmarks.on_gpu import TINY, Bench, Row, line_of
from human_models.files import ModelFolder

ALL = {
    "parity": {
        f"{what}, {how}"
        for what in ("encoder", "heads", "vertices", "losses", "gradients")
        for how in ("fp32", "bf16")
    }
    | {"rotations, fp32", "metrics, fp32"},
    "ways": {
        f"{what}, {how}"
        for what in ("eager", "attention: flash", "attention: math")
        for how in ("fp32", "bf16")
    },
    "parallel": {"plain", "ddp", "fsdp"},
    "training": {
        "config_debug, batches of 1",
        "config_debug, batches of 2",
        "config_debug, batches of 1, 1 loader workers",
    },
    "inference": {
        f"demo, {what}"
        for how in ("fp32", "bf16")
        for what in (f"batches of 2, {how}", *(f"{how}, 720p video, people: {k}" for k in (1, 3)))
    },
}


def test_all_sections_run_on_the_cpu(monkeypatch, random_body_folder, tmp_path, capsys):
    monkeypatch.setattr(
        on_gpu, "make_random_body", lambda _: ModelFolder(random_body_folder, "random")
    )
    monkeypatch.setattr(on_gpu, "usable_cores", lambda: 2)
    path = tmp_path / "numbers.json"
    assert on_gpu.main(["--device", "cpu", "--output", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["tiny"]
    rows = [Row(*row.values()) for row in content["rows"]]
    shown = capsys.readouterr().out
    assert all(line_of(row) in shown for row in rows)
    for section, names in ALL.items():
        of_section = {row.name: row for row in rows if row.section == section}
        assert of_section.keys() == names | {"time"}
    assert {row.numbers["frames"] for row in rows if "video" in row.name} == {3}
    errors = [row.numbers["error"] for row in rows if "fp32" in row.name and row.section == "ways"]
    assert max(errors) < 1e-5


@pytest.fixture
def bench(tmp_path):
    return Bench(torch.device("cpu"), TINY, time.monotonic() + 100, tmp_path)


def test_a_section_that_fails_ends_no_other(monkeypatch, bench):
    def failing(_):
        yield Row("failing", "begun", {})
        raise RuntimeError("no such kernel\nand more")

    def fine(_):
        yield Row("fine", "done", {})

    monkeypatch.setattr(on_gpu, "SECTIONS", (failing, fine))
    rows = list(on_gpu.run(bench))
    assert [(row.section, row.name, row.ok) for row in rows] == [
        ("failing", "begun", True),
        ("failing", "failed", False),
        ("failing", "time", True),
        ("fine", "done", True),
        ("fine", "time", True),
    ]
    assert rows[1].numbers == {"result": "RuntimeError: no such kernel"}
    bench.end = time.monotonic()
    assert [(row.name, row.ok) for row in on_gpu.run(bench)] == [("left out", True)] * 2


def test_wrong_numbers_are_marked():
    assert line_of(Row("parity", "heads", {"error": 0.25}, ok=False)).endswith("| WRONG |")

"""Processes of one run: two of them on the CPU, and one alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.devices import (
    BrokenDeviceError,
    World,
    device_of_process,
    failing_together,
    gather_to_first,
    is_first,
    process_group,
    require_working,
    world,
)
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
TOGETHER = """
import sys, time
import torch
from utils.devices import failing_together, gather_to_first, process_group
from utils.errors import UserError

def attempt(name, work):
    try:
        with failing_together(name) as check:
            work(check)
        return "fine"
    except UserError as error:
        return str(error)

with process_group(torch.device("cpu")) as here:
    def fail_on_1(check):
        if here.rank == 1:
            raise UserError("bad row")
        while True:
            check()
            time.sleep(0.01)
    def disk_full(check):
        if here.is_first:
            raise OSError(28, "No space left on device", "place")
    tensor = torch.tensor([here.rank + 1.0])
    torch.distributed.all_reduce(tensor)
    lines = [attempt("a", fail_on_1), attempt("a", lambda check: check()), attempt("c", disk_full)]
    gathered = gather_to_first((here, lines, tensor.item()))
    assert (gathered is None) == (here.rank == 1)
    if here.is_first:
        (first, told_0, total), (second, told_1, _) = gathered
        assert (first.rank, second.rank, second.size, total) == (0, 1, 2, 3.0), gathered
        full = "place: No space left on device; check the place's free space and permissions"
        assert told_0 == told_1 == ["bad row", "fine", full], gathered
        sys.stdout.write("together")
"""


@pytest.fixture
def alone(monkeypatch):
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)


@pytest.mark.usefixtures("alone")
def test_one_process_is_alone():
    assert world() == World(0, 1, 0)
    assert is_first()
    with process_group(torch.device("cpu")) as here:
        assert here.is_first
        assert not torch.distributed.is_initialized()
    assert gather_to_first("value") == ["value"]
    with failing_together("fine") as stop_if_another_failed:
        stop_if_another_failed()
    with pytest.raises(OSError, match="as it is"), failing_together("alone"):
        raise OSError("as it is")


def test_torchrun_tells_who_this_is(monkeypatch):
    for key, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    assert world() == World(5, 8, 1)
    assert not is_first()
    assert device_of_process("cpu") == torch.device("cpu")
    monkeypatch.delenv("RANK")
    with pytest.raises(UserError, match="torchrun"):
        world()


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for key, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    assert device_of_process() == torch.device("cuda", 1)
    with pytest.raises(UserError, match="cannot share"):
        device_of_process("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="3 processes need a GPU each"):
        device_of_process()


def test_processes_do_not_share_an_apple_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="mps: 2 processes cannot share it; start one, or use cpu"):
        device_of_process()
    assert device_of_process("cpu") == torch.device("cpu")


def test_two_processes(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("together") == 1


def test_device_that_computes_no_more_is_no_fault_of_the_work():
    """The device "meta" refuses to give values, as a GPU does after an illegal access."""
    require_working(torch.device("cpu"), RuntimeError("any"))
    with pytest.raises(BrokenDeviceError, match=r"meta has failed \(illegal access\); run"):
        require_working(torch.device("meta"), RuntimeError("illegal access\nmore"))

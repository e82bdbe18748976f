"""Devices: which is taken and how; and what processes on several of them agree on."""

import os
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from utils.devices import (
    BrokenDeviceError,
    World,
    constants,
    copied_to,
    device_of_process,
    failing_together,
    gather_to_first,
    has_float64,
    peak_memory_mib,
    pick_device,
    picked,
    process_group,
    require_working,
    runs_of,
    usable_cores,
    world,
)
from utils.errors import UserError

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda:1", "mps"))


@pytest.fixture
def fast_float32():
    """As a program may have set it that uses this one."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("fast_float32")
def test_float32_is_float32_in_products_and_convolutions():
    pick_device("cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is False


def test_apple_has_no_float64():
    assert [has_float64(device) for device in (CPU, CUDA, MPS)] == [True, True, False]


class Recording(torch.Tensor):
    """Records where it is copied to, and stays where it is."""

    def to(self, device, *, non_blocking):
        self.copies = [*getattr(self, "copies", []), (device, non_blocking)]
        return self


def test_only_copies_to_cuda_go_on_while_the_program_does():
    value = torch.ones(2).as_subclass(Recording)
    for device in (CPU, CUDA, MPS):
        assert copied_to(device, {"a": value})["a"] is value
    assert value.copies == [(CPU, False), (CUDA, True), (MPS, False)]


def test_peak_memory_is_in_mebibytes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: device.index * 2**21)
    assert peak_memory_mib(CUDA) == 2
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(sys, "platform", "linux")
    assert peak_memory_mib(CPU) == 3 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_mib(MPS) == 3


def test_cores_where_the_system_does_not_say_which_are_allowed(monkeypatch):
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert usable_cores() == 10
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize("indices", [[4], [0, 1, 2], [5, 6, 2, 3, 0, 5], [3, 2, 1], [1, 1]])
def test_rows_are_picked_as_by_their_indices(indices):
    values = torch.rand(2, 7, 3, requires_grad=True)
    runs = runs_of(indices)
    assert len(runs) == 1 + sum(b != a + 1 for a, b in pairwise(indices))
    assert picked(values, runs).equal(values[:, indices])
    (ours,) = torch.autograd.grad(picked(values, runs).square().sum(), values)
    (theirs,) = torch.autograd.grad(values[:, indices].square().sum(), values)
    assert ours.equal(theirs)


def test_constants_are_of_the_same_kind():
    like = torch.ones(2, dtype=torch.float16)
    assert constants([1 / 3, 2], like).equal(like.new_tensor([1 / 3, 2]))
    assert constants([1, 2], like.to("meta")).device.type == "meta"


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
        full = "place: No space left on device; check free space and permissions"
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
    assert world().is_first
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
    assert not world().is_first
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

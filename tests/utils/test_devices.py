"""What differs between devices, with stand-ins for those that this machine lacks."""

import os
import resource
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from utils.devices import (
    constants,
    copied_to,
    has_float64,
    peak_memory_mib,
    pick_device,
    picked,
    runs_of,
    usable_cores,
)

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

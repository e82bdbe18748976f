"""One process or two, one batch or several, plain or in parts: the same training.

Losses of the first iteration differ by rounding alone; later ones by what Adam makes of it, which
divides gradients by their own size: 1e-4 after four steps of the rate 1e-3.
"""

import shutil
import signal
from pathlib import Path

import pytest
import torch

from configs.reader import load_config
from main.training import run as run_module
from main.training.state import Run
from models.smplest_x import SMPLestX
from utils.devices import World

SAME = {"rel": 1e-4, "abs": 1e-5}
PLAIN = "train.lr=1e-3"
VALIDATION = ("train.validate_on=('EgoBody_Kinect',)", "test.test_batch_size=3")


def terms(run, position):
    line = run.losses()[position]
    return {k: v for k, v in line.items() if k not in ("kind", "by_dataset")}


def check_same(run, expected, **tolerance):
    assert terms(run, 0) == pytest.approx(terms(expected, 0), rel=1e-5, abs=1e-6)
    assert len(run.losses()) == len(expected.losses()) == 4
    for position in range(4):
        found = terms(run, position)
        assert found == pytest.approx(terms(expected, position), **(tolerance or SAME))
    ours, theirs = (one.snapshot("snapshot_1") for one in (run, expected))
    assert ours["network"].keys() == theirs["network"].keys()
    for key, value in theirs["network"].items():
        torch.testing.assert_close(ours["network"][key], value, rtol=0, atol=2e-3, msg=key)


@pytest.fixture(scope="module")
def two_processes(start_processes, tmp_path_factory):
    return start_processes(tmp_path_factory.mktemp("two"), PLAIN, *VALIDATION).run()


def test_two_processes_with_half_batches(two_processes, plain):
    check_same(two_processes, plain)
    by_dataset = [line["by_dataset"].keys() for line in plain.losses()]
    assert by_dataset == [line["by_dataset"].keys() for line in two_processes.losses()]


def test_two_batches_an_iteration(train_here, plain, tmp_path):
    accumulated = ("train.train_batch_size=2", "train.accumulate_batches=2")
    check_same(train_here(tmp_path, PLAIN, *accumulated), plain)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(train_here, plain, tmp_path, workers):
    run = train_here(tmp_path, PLAIN, f"train.num_thread={workers}")
    assert run.losses() == plain.losses()


def test_sharded_weights(start_processes, train_here, two_processes, tmp_path):
    """Stopped by a signal and taken up again, also by one process that has all weights."""
    sharded = (PLAIN, *VALIDATION, "train.parallel=fsdp", "train.ema_decay=0.5")
    sharded += ("train.clip_grad_norm=1e9",)  # changes nothing
    started = start_processes(tmp_path, *sharded)
    started.wait_for_lines(1)
    started.signal(signal.SIGTERM)
    stopped = started.run(status=143)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(stopped.folder, elsewhere / stopped.folder.name)
    run = start_processes(tmp_path, *sharded, "train.continue_train=True").run()
    assert run.losses()[0]["iteration"] == 1
    assert [terms(run, k) for k in range(4)] == [
        pytest.approx(terms(two_processes, k), **SAME) for k in range(4)
    ]
    ours, theirs = (one.snapshot("snapshot_1") for one in (run, two_processes))
    weights = {f"module.{k}": v for k, v in theirs["network"].items()}
    assert ours["network"].keys() == theirs["network"].keys()
    assert len(weights) == len(ours["training_network"])
    assert run.lines("validation/EgoBody_Kinect")[-1]["mpvpe_all"] > 0
    one = train_here(elsewhere, PLAIN, "train.ema_decay=0.5", "train.continue_train=True")
    assert terms(one, 3) == pytest.approx(terms(two_processes, 3), **SAME)


def test_one_process_shares_with_nobody(train_here, plain, tmp_path):
    """Without torchrun there is no process group, which sharded weights would need."""
    run = train_here(tmp_path, PLAIN, "train.parallel=fsdp")
    assert run.losses() == plain.losses()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_weights_are_sharded_over_the_device_that_was_chosen(monkeypatch, kind):
    """By default PyTorch takes GPUs where a machine has any, `--device cpu` or not."""
    made, used = [], []
    monkeypatch.setattr(run_module, "init_device_mesh", lambda *given: made.append(given) or "mesh")
    monkeypatch.setattr(run_module, "fully_shard", lambda part, mesh: used.append(mesh))
    config = load_config("configs/config_debug.py", ["train.parallel=fsdp"])
    run = Run(config, Path(), torch.device(kind), World(0, 2, 0))
    run_module._parallel(SMPLestX(config.model), run)
    assert made == [(kind, (2,))]
    model = config.model
    assert used == ["mesh"] * (model.encoder_config.depth + model.decoder_config.depth + 1)


def test_validation_and_the_best_snapshot(train_here, two_processes, tmp_path):
    run = train_here(tmp_path, PLAIN, *VALIDATION)
    one, two = (r.lines("validation/EgoBody_Kinect") for r in (run, two_processes))
    assert [line["epoch"] for line in one] == [0, 1]
    for ours, theirs in zip(one, two, strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-3)
    best = min(one, key=lambda line: line["mpvpe_all"])
    assert run.snapshot("snapshot_best")["epoch"] == best["epoch"]
    assert run.snapshot("snapshot_1")["progress"]["best"] == pytest.approx(best["mpvpe_all"])


def test_recomputed_activations(train_here, options, everything, tmp_path):
    run = train_here(tmp_path, *options, "model.encoder_config.use_checkpoint=True")
    assert [terms(run, k) for k in range(4)] == [
        pytest.approx(terms(everything, k), rel=1e-6) for k in range(4)
    ]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_bf16_is_near(start_processes, two_processes, tmp_path, parallel):
    half = ("train.precision=bf16", f"train.parallel={parallel}", "train.end_epoch=1")
    run = start_processes(tmp_path, PLAIN, *half).run()
    found, expected = (r.losses()[0] for r in (run, two_processes))
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert found["loss"] != expected["loss"]
    kinds = {value.dtype for value in run.snapshot("snapshot_0")["network"].values()}
    assert kinds == {torch.float32}

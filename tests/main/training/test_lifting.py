"""Lifting pre-training: learns, goes on exactly where it was, and training starts from it."""

import os
import signal

import pytest
import torch

from main import pretrain
from main.training import validation
from main.training.train_log import TrainLog

LIFTER = 'model.lifter_config={"width": 32, "depth": 1}'
CHANGES = (
    "train.lifting_samples=24",
    "train.lifting_poses=10",
    "train.train_batch_size=8",
    "train.end_epoch=2",
    "train.print_iters=1",
    "train.ema_decay=0.9",
    "train.lr=1e-2",
)


@pytest.fixture(autouse=True)
def few_poses(monkeypatch):
    monkeypatch.setattr(validation, "_LIFTING_POSES", 10)
    monkeypatch.setattr(validation, "_LIFTING_SAMPLES", 20)


def lift(output, *changes, status=0, lifter=LIFTER):
    arguments = ["job", "configs/config_debug.py", "--stage", "lifting", "--device", "cpu"]
    sets = [f"--set={change}" for change in (*CHANGES, *changes, *([lifter] if lifter else []))]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert pretrain.main([*arguments, "--output", str(output), *sets]) == status
    finally:
        signal.signal(signal.SIGTERM, handler)
    return next(output.glob("pretrain_job_*"), None)


def weights(run, name="snapshot_1"):
    return torch.load(run / "model_dump" / f"{name}.pth.tar", weights_only=True)["network"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_LIFTING_POSES", 10)
        patch.setattr(validation, "_LIFTING_SAMPLES", 20)
        return lift(tmp_path_factory.mktemp("whole"))


def test_lifter_and_heads_learn_and_nothing_else(whole):
    first, last = weights(whole, "snapshot_0"), weights(whole)
    changed = {key for key in last if not first[key].equal(last[key])}
    learning = ("module.lifter.", "module.decoder.dec_")
    assert {key for key in changed if not key.startswith(learning)} == set()
    assert {"module.lifter.embed.weight", "module.decoder.dec_body_pose.weight"} <= changed
    text = (whole / "log" / "metrics.jsonl").read_text()
    assert '"validation/lifting", "epoch": 1' in text


def test_stopped_lifting_goes_on_exactly(whole, tmp_path, monkeypatch):
    add, calls = TrainLog.add, []

    def added(self, *arguments):
        add(self, *arguments)
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainLog, "add", added)
    lift(tmp_path, status=143)
    monkeypatch.setattr(TrainLog, "add", add)
    run = lift(tmp_path, "train.continue_train=True")
    for key, value in weights(whole).items():
        assert weights(run)[key].equal(value), key


def test_training_starts_from_it(whole, train_here, tmp_path):
    path = whole / "model_dump" / "snapshot_1.pth.tar"
    changes = (LIFTER, f"model.pretrained_model_path='{path}'", "train.end_epoch=1")
    run = train_here(tmp_path, *changes, "train.keypoint_weight=1.0", "train.lr=1e-6")
    before, after = weights(whole), run.snapshot("snapshot_0")["network"]
    assert before.keys() == after.keys()
    assert all((before[key] - after[key]).abs().max() < 1e-4 for key in before)
    assert "keypoints" in run.lines()[0]


def test_config_without_a_lifter_is_refused(tmp_path, capsys):
    lift(tmp_path, status=2, lifter=None)
    assert "model.lifter_config" in capsys.readouterr().err

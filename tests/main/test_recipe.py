"""A tiny demo network: every stage, and a run that continues after it was stopped twice."""

import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import refinement
from main import recipe
from main.initialise import initialise
from main.pipeline.model_files import find_model
from main.training import validation
from main.training.train_log import TrainLog
from models.checkpoint import read_network
from synthetic import production
from synthetic.production import synthesize
from utils.errors import UserError

CONFIG = """
base = "config_smplest_x_demo.py"
config = {
    "train": {"print_iters": 1},
    "model": {
        "encoder_config": {"embed_dim": 64, "depth": 1, "num_heads": 2},
        "decoder_config": {"feat_dim": 64, "dim_out": 16, "depth": 1, "num_heads": 2},
        "lifter_config": {"width": 16, "depth": 1, "token_rank": 2},
    },
}
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_FEWEST", 8)
    monkeypatch.setattr(recipe, "_FEWEST_POSES", 20)
    monkeypatch.setattr(validation, "_LIFTING_POSES", 10)
    monkeypatch.setattr(validation, "_LIFTING_SAMPLES", 20)
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    threads = torch.get_num_threads()

    def start(*flags):
        arguments = ["--minutes", "0.01", "--config", str(config), "--device", "cpu", *flags]
        return recipe.main([*arguments, "--output", str(tmp_path / "out")])

    yield start
    torch.set_num_threads(threads)


@pytest.fixture
def measured(monkeypatch):
    """The command that measures errors, which takes seconds to start, writes a file at once."""

    def measure(command, **_):
        module = command.index("-m")
        assert command[module + 1] == "benchmarks.refinement"
        arguments = refinement.make_parser().parse_args(command[module + 2 :])
        assert (arguments.data / "annot" / f"openpeople_{arguments.split}.npz").is_file()
        assert find_model(arguments.model).weights.is_file()
        np.savez(arguments.write, basis=np.zeros((182, 1)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(recipe, "subprocess", SimpleNamespace(run=measure))


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True])
def test_stopped_runs_go_on_until_there_is_a_network(train, measured, monkeypatch, tmp_path, gpu):
    """With the order of a GPU people are drawn while the lifter learns.

    The first one is stopped as its time ends, within an epoch.
    """
    if gpu:
        monkeypatch.setattr(recipe, "_is_gpu", lambda device: True)
        monkeypatch.setattr(recipe, "_GPU", recipe._CPU._replace(shares=recipe._GPU.shares))
    add, out = TrainLog.add, tmp_path / "out"

    def stopped(self, progress, *arguments):
        add(self, progress, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(recipe._LEAST_STAGE_S)

    monkeypatch.setattr(TrainLog, "add", stopped)
    with pytest.raises(SystemExit) as end:
        train()
    assert end.value.code == 143
    assert "lifting" not in json.loads((out / "plan.json").read_text())["done"]
    monkeypatch.setattr(TrainLog, "add", add)

    def broken(self):
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(recipe.TimedTraining, "_evaluate", broken)
        assert train() == 2
    done = json.loads((out / "plan.json").read_text())["done"]
    assert set(done) == {"data", "lifting", "keypoints", "regression", "weights"}
    before = read_network(find_model(str(out / "smplest_x_demo")).weights)

    assert train() == 0
    after = read_network(find_model(str(out / "smplest_x_demo")).weights)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert any(key.startswith("lifter.") for key in after)
    metrics = json.loads((out / "evaluation" / "result" / "result.json").read_text())["metrics"]
    assert metrics["mpvpe_all"]["count"] == 8
    assert (out / "smplest_x_demo" / "errors.npz").is_file()
    assert len(list((out / "runs").iterdir())) == 3


def test_another_plan_is_refused(train, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text(json.dumps({"asked": {"minutes": 3}}))
    assert train() == 2
    assert "give another --output" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--minutes", "0"), ("--seed", "-1"), ("--seed", "77")])
def test_numbers_out_of_range_are_refused(flags, tmp_path, capsys):
    assert recipe.main([*flags, "--output", str(tmp_path / "out")]) == 2
    assert f"{flags[0]} {flags[1]}" in capsys.readouterr().err.replace(".0", "")
    assert not (tmp_path / "out").exists()


def test_network_is_continued_on_people_of_another_seed(train, measured, monkeypatch, tmp_path):
    first, out, drawn = tmp_path / "first", tmp_path / "out", []
    initialise(str(tmp_path / "config.py"), str(first), seed=3)

    def draw(options, *arguments):
        drawn.append((options.split, options.seed))
        return synthesize(options, *arguments)

    monkeypatch.setattr(production, "synthesize", draw)
    assert train("--from", str(first), "--seed", "8") == 0
    assert drawn == [("test", 99), ("train", 77), ("train", 8)]
    done = json.loads((out / "plan.json").read_text())["done"]
    assert list(done) == ["data", "regression", "weights", "evaluation", "errors"]
    (log,) = (out / "runs").glob("*/log/train.log")
    assert f"network: weights of {first / 'first.safetensors'}" in log.read_text()
    before, after = (
        read_network(find_model(str(model)).weights) for model in (first, out / recipe.NETWORK)
    )
    moved = [(after[key].float() - value.float()).abs().max() for key, value in before.items()]
    assert 0 < max(moved) < 0.1  # by a few steps from the first weights

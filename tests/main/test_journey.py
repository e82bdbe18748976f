"""A user's whole way, by the scripts: people drawn, a network trained, tested and used on them."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from main.synthesize import main as synthesize

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "config_smplest_x_demo.py"
TINY = (
    "model.encoder_config.depth=1",
    "model.decoder_config.depth=1",
    "train.train_batch_size=4",
    "train.end_epoch=1",
    "train.print_iters=1",
    "train.warmup_iters=1",
    "test.test_batch_size=4",
)


@pytest.fixture(scope="module")
def run_script():
    def run(script, *arguments):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["bash", ROOT / "scripts" / script, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Crops to train and test on, and a clip."""
    folder = tmp_path_factory.mktemp("data")
    common = ["--out", str(folder), "--workers", "1"]
    for split, people, seed in (("train", 12, 1), ("test", 4, 2)):
        arguments = ["--split", split, "--people", str(people), "--seed", str(seed), "--crops"]
        assert synthesize([*common, *arguments]) == 0
    arguments = ["--name", "clips", "--people", "1", "--seed", "3", "--video", "--frames", "4"]
    assert synthesize([*common, *arguments, "--size", "320x240"]) == 0
    return folder


@pytest.mark.slow
def test_draw_pretrain_train_test_and_use(run_script, data, tmp_path):
    sets = [f"--set={setting}" for setting in (*TINY, f"data.data_dir={str(data)!r}")]
    run_script(
        *("pretrain.sh", "tiny", 1, CONFIG, "--output", tmp_path, *sets),
        "--set=model.encoder_pretrained_model_path=None",
    )
    (encoder,) = tmp_path.glob("pretrain_tiny_*/model_dump/encoder.pth")
    run_script(
        *("train.sh", "tiny", 1, CONFIG, "--output", tmp_path, *sets),
        f"--set=model.encoder_pretrained_model_path={str(encoder)!r}",
    )
    (trained,) = tmp_path.glob("train_tiny_*")
    lines = [json.loads(x) for x in (trained / "log" / "metrics.jsonl").read_text().splitlines()]
    assert {"train", "validation/OpenPeople"} == {line["kind"] for line in lines}

    tested = tmp_path / "tested"
    printed = run_script("test.sh", "OpenPeople", trained, 0, "--output", tested, "--worst", 0)
    assert "OpenPeople, correct protocol" in printed
    metrics = json.loads((tested / "result" / "result.json").read_text())["metrics"]
    assert metrics["mpvpe_all"]["count"] == 4
    assert metrics["mpvpe_all"]["mean"] > 0

    (clip,) = (data / "img" / "clips").rglob("*.mp4")
    used = [trained / "model_dump" / "snapshot_0.pth.tar", clip, 30]
    run_script("inference.sh", *used, "--detector", "whole-image", "--output", tmp_path)
    with np.load(tmp_path / f"result_{clip.stem}" / "person_001.npz") as person:
        assert person["body_pose"].shape == (4, 63)
        assert np.isfinite(person["joints_3d_m"]).all()

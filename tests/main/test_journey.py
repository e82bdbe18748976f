"""A user's whole way: people drawn, a network trained, tested and used on them.

Pre-training is started by its script. The other commands run in this process, which has loaded
PyTorch already; their scripts have tests of their own.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from main import inference, train
from main import test as testing
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
def test_draw_pretrain_train_test_and_use(data, tmp_path, capfd):
    sets = [f"--set={setting}" for setting in (*TINY, f"data.data_dir={str(data)!r}")]
    command = [ROOT / "scripts" / "pretrain.sh", "tiny", "1", CONFIG, "--output", tmp_path, *sets]
    done = subprocess.run(
        ["bash", *command, "--set=model.encoder_pretrained_model_path=None"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (encoder,) = tmp_path.glob("pretrain_tiny_*/model_dump/encoder.pth")
    start = f"--set=model.encoder_pretrained_model_path={str(encoder)!r}"
    assert train.main(["tiny", str(CONFIG), "--output", str(tmp_path), *sets, start]) == 0
    (trained,) = tmp_path.glob("train_tiny_*")
    lines = [json.loads(x) for x in (trained / "log" / "metrics.jsonl").read_text().splitlines()]
    assert {"train", "validation/OpenPeople"} == {line["kind"] for line in lines}

    tested = tmp_path / "tested"
    flags = ["--output", str(tested), "--worst", "0"]
    assert testing.main(["OpenPeople", str(trained), "0", *flags]) == 0
    assert "OpenPeople, correct protocol" in capfd.readouterr().out
    metrics = json.loads((tested / "result" / "result.json").read_text())["metrics"]
    assert metrics["mpvpe_all"]["count"] == 4
    assert metrics["mpvpe_all"]["mean"] > 0

    (clip,) = (data / "img" / "clips").rglob("*.mp4")
    weights = trained / "model_dump" / "snapshot_0.pth.tar"
    flags = ["--detector", "whole-image", "--output", str(tmp_path)]
    assert inference.main([str(weights), str(clip), "30", *flags]) == 0
    with np.load(tmp_path / f"result_{clip.stem}" / "person_001.npz") as person:
        assert person["body_pose"].shape == (4, 63)
        assert np.isfinite(person["joints_3d_m"]).all()

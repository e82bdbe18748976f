"""The pictures of documents: curves of runs."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import curves
from configs.reader import load_config, save_config
from utils.files import ROOT


@pytest.fixture
def run(tmp_path):
    """A run of two epochs of 30 iterations, two validations."""
    folder = tmp_path / "train_tiny_20261123_101500"
    (folder / "log").mkdir(parents=True)
    save_config(load_config(ROOT / "configs" / "config_debug.py"), folder / "config_base.py")
    rows = []
    for epoch in range(2):
        for iteration in range(5, 31, 5):
            rows.append({"kind": "train", "epoch": epoch, "iteration": iteration, "loss": 2.0})
        rows.append({"kind": "validation/EHF", "epoch": epoch, "iteration": 30, "mpvpe_all": 90.0})
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "log" / "metrics.jsonl").write_text(text + "\n")
    return folder


def test_samples_are_counted_over_epochs_and_processes(run):
    batch = load_config(run / "config_base.py").train.train_batch_size
    seen, values = curves.validated(run, 2, "mpvpe_all")
    assert seen * 1000 == pytest.approx([60 * batch, 120 * batch])
    assert values.tolist() == [90, 90]


def test_curves_become_a_picture(run, tmp_path):
    picture = tmp_path / "curves.png"
    assert curves.main([str(picture), str(run), str(run)]) == 0
    assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 10


def test_curves_of_what_is_not_there_are_one_line(run, tmp_path, caplog):
    picture = tmp_path / "curves.png"
    assert curves.main([str(picture), str(run), "no_run"]) == 2
    assert "metrics.jsonl" in caplog.text
    assert not picture.exists()

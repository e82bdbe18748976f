"""The benchmark door on a tiny dataset, against the published test loop's own numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.sources import SOURCES
from main import test as door
from main.protocol import HAND_SET_METRICS

PARITY = Path(__file__).parents[1] / "parity"
WEIGHTS = PARITY / "snapshot_fp16.pth.tar"
PUBLISHED = json.loads((PARITY / "benchmark.json").read_text())


@pytest.fixture
def data_dir(tmp_path):
    """data/ as a user has it, with six rows of one dataset."""
    source = SOURCES["EgoBody_Kinect"]
    (tmp_path / "annot").mkdir()
    for name in source.files("test"):
        content = (PARITY / "data" / "annot" / "EgoBody_Kinect.npz").read_bytes()
        (tmp_path / "annot" / name).write_bytes(content)
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / source.images).symlink_to(PARITY / "data" / "img")
    return tmp_path


@pytest.fixture
def run(tmp_path, data_dir, random_body_folder):
    def run_door(dataset, *words):
        overrides = {
            "data.data_dir": data_dir,
            "model.human_model_path": random_body_folder,
            "test.test_batch_size": 4,
            "train.num_thread": 0,
        }
        sets = [f"--set={key}={value}" for key, value in overrides.items()]
        return door.main([dataset, *map(str, words), *sets, "--output", str(tmp_path / "out")])

    return run_door


def test_published_protocol_gives_the_published_numbers(run, tmp_path):
    assert run("EgoBody_Kinect", WEIGHTS, "--protocol", "published") == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["dataset"] == "EgoBody_Kinect"
    assert result["protocol"] == "published"
    errors = dict(np.load(tmp_path / "out" / "errors_mm.npz"))
    for name, expected in PUBLISHED.items():
        found = result["metrics"][name]
        assert found["count"] == expected["count"], name
        if expected["count"]:
            assert found["mean"] == pytest.approx(expected["mean"], rel=2e-3), name
            kept = errors[name][np.isfinite(errors[name])]
            np.testing.assert_allclose(kept, expected["values"], rtol=2e-3, err_msg=name)


def test_sets_of_hands_alone_have_metrics_of_hands_alone(run, data_dir, tmp_path):
    source = SOURCES["FreiHand"]
    content = (PARITY / "data" / "annot" / "EgoBody_Kinect.npz").read_bytes()
    (data_dir / "annot" / "freihand_test_1.npz").write_bytes(content)
    (data_dir / "img" / source.images).symlink_to(PARITY / "data" / "img")
    assert run("FreiHand", WEIGHTS) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result["metrics"]) == set(HAND_SET_METRICS)


def test_snapshot_of_a_run(run, tmp_path):
    folder = tmp_path / "run"
    (folder / "model_dump").mkdir(parents=True)
    (folder / "model_dump" / "snapshot_3.pth.tar").write_bytes(WEIGHTS.read_bytes())
    (folder / "config_base.py").write_text((PARITY / "config_base.py").read_text())
    assert run("EgoBody_Kinect", folder, 3) == 0
    text = (tmp_path / "out" / "result.txt").read_text()
    assert "mpvpe_all: " in text
    assert "nan" not in text
    assert run("EgoBody_Kinect", folder, 4) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("EgoBody_Kinectt", WEIGHTS), "EgoBody_Kinect"),
        (("SynHand", WEIGHTS), "synhand"),
        (("EgoBody_Kinect", "no_such_model"), "no such model"),
        (("EgoBody_Kinect", "no_such_run", 3), "no training run"),
        (("EgoBody_Kinect", WEIGHTS, "--protocol", "mine"), "protocol"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, capsys, words, message):
    assert run(*words) == 2
    (line,) = [k for k in capsys.readouterr().err.splitlines() if k.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out").exists()

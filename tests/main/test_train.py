"""Training: what a user gets wrong is one line, whatever the number of processes."""

from pathlib import Path

import pytest

from main import train

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "config_debug.py"
ANNOTATIONS = ROOT / "tests" / "parity" / "data" / "annot"
MINE = f"data.datasets={{'mine': {{'train': ('{ANNOTATIONS / 'UBody.npz'}',), 'images': 'x'}}}}"
NAMED = "data.trainset_humandata=('mine',)"


@pytest.fixture
def error_of(tmp_path, capsys):
    def error_with(*changes, config=CONFIG, job="job", device="cpu"):
        arguments = [job, str(config), "--output", str(tmp_path / "runs"), "--device", device]
        sets = [f"data.data_dir={tmp_path}", *changes]
        assert train.main(arguments + [f"--set={change}" for change in sets]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        (line,) = [x for x in error.splitlines() if x.startswith("error: ")]
        return line

    return error_with


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (["train.lerning_rate=1"], ["train.lerning_rate"]),
        (["train.lr=-1"], ["train.lr"]),
        (["train.parallel=magic"], ["train.parallel"]),
        (["data.trainset_humandata=('SynHnd',)"], ["SynHnd", "did you mean 'SynHand'"]),
        (["data.trainset_humandata=('SynHand',)"], ["SynHand", ".npz"]),
        (["data.trainset_humandata=()"], ["trainset_humandata is empty"]),
        ([MINE, NAMED, "model.encoder_pretrained_model_path=none.pth"], ["none.pth is missing"]),
        ([MINE, NAMED, "model.pretrained_model_path=none.pth.tar"], ["none.pth.tar"]),
        ([MINE, NAMED, "train.frozen_blocks=9"], ["frozen_blocks = 9"]),
        ([MINE, NAMED, "train.validate_metric=x"], ["validate_metric", "mpvpe_all"]),
        ([MINE, NAMED, "train.validate_on=('No',)"], ["'No'"]),
        ([MINE, NAMED], ["x/", "rows in succession failed"]),
    ],
    ids=lambda value: value[-1][:40],
)
def test_bad_config(error_of, changes, messages):
    line = error_of(*changes)
    for message in messages:
        assert message in line


def test_corrupt_dataset(error_of, tmp_path):
    path = tmp_path / "corrupt.npz"
    path.write_bytes(b"PK no archive")
    datasets = f"data.datasets={{'mine': {{'train': ('{path}',), 'images': 'x'}}}}"
    assert "corrupt.npz" in error_of(datasets, NAMED)


def test_bad_arguments(error_of, tmp_path, capsys):
    for config in ("none.py", "configs"):
        assert f"{config}: no such config" in error_of(config=config)
    assert "leave out slashes" in error_of(job="a/b")
    assert r"JOB_NAME 'a\nb' becomes a folder's name; use printable" in error_of(job="a\nb")
    for empty in ({"job": ""}, {"config": ""}):
        assert "an argument is empty" in error_of(**empty)
    assert "--device cuda:99" in error_of(device="cuda:99")
    (tmp_path / "runs").write_text("a file")
    assert "runs" in error_of(MINE, NAMED)
    assert train.main(["job"]) == 2
    assert "--help" in capsys.readouterr().err

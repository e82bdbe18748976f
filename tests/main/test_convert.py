"""A stripped checkpoint is the same network."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from configs.reader import load_config
from main import initialise
from main.convert import main
from main.pipeline.model_files import to_onnx, to_safetensors
from models.checkpoint import load_network
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "parity"
WEIGHTS = PARITY / "snapshot_fp16.pth.tar"
CONFIG = load_config(PARITY / "config_base.py").model


@pytest.mark.parametrize(("precision", "bytes_each"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_conversion(tmp_path, precision, bytes_each):
    path = to_safetensors(str(WEIGHTS), tmp_path / "x.safetensors", precision)
    original, converted = load_network(CONFIG, WEIGHTS), load_network(CONFIG, path)
    tolerance = 0 if precision == "fp32" else 2**-8
    for one, other in zip(original.parameters(), converted.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=0)
    count = sum(p.numel() for p in original.parameters())
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert path.stat().st_size == pytest.approx(count * bytes_each, rel=0.15)


def test_command_writes_beside_the_weights_and_commands_find_it(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "tiny.pth.tar").write_bytes(WEIGHTS.read_bytes())
    (folder / "config_base.py").write_text((PARITY / "config_base.py").read_text())
    assert main([str(folder)]) == 0
    assert (folder / "tiny.safetensors").is_file()
    assert main([str(folder)]) == 2  # the safetensors file is found first now


def test_wrong_output_is_told(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        to_safetensors(str(WEIGHTS), tmp_path / "x.pth", "fp32")
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        to_onnx(str(WEIGHTS), tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())
    assert main([str(WEIGHTS), "--onnx", "--precision", "fp16"]) == 2


def test_refused_writing_is_one_line(tmp_path, untrained):
    """A limit on the size of files refuses to write like a full disk does."""
    output = tmp_path / "a.safetensors"
    command = ["-m", "main.convert", untrained, "--precision", "fp16", "--output", output]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {output}: File too large; ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".", "..", "mine", "mine/", "./mine"])
def test_an_untrained_model_replaces_no_folder(tmp_path, monkeypatch, capsys, name):
    """Other models lie beside it, and trained weights in it."""
    trained = tmp_path / "models" / "mine" / "trained.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"weeks of training")
    monkeypatch.chdir(tmp_path / "models")
    monkeypatch.setattr(initialise, "PRETRAINED", tmp_path / "models")
    assert initialise.main(["config_debug.py", name]) == 2
    assert "exists already; name a new folder" in capsys.readouterr().err
    assert trained.read_bytes() == b"weeks of training"
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "mine", trained.name]

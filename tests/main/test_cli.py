"""Doors tell their --help at once, before anything large is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from main.cli import command_parser, run_command

ROOT = Path(__file__).parents[2]
LARGE = {"torch", "torchvision", "cv2", "scipy", "ultralytics", "av", "onnxruntime", "ray"}
DOORS = sorted(
    path.stem for path in (ROOT / "main").glob("*.py") if "def make_parser" in path.read_text()
)
SCRIPT = """
import json, sys
from main.{door} import main
try:
    main(["--help"])
except SystemExit as end:
    told = {{"status": end.code, "modules": list(sys.modules)}}
    print(json.dumps(told), file=sys.stderr)
"""


def test_there_are_doors():
    assert {"inference", "train", "test", "convert", "launch"} <= set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_help_comes_at_once(door):
    script = [sys.executable, "-c", SCRIPT.format(door=door)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"main.{door}" in done.stdout
    told = json.loads(done.stderr)
    assert told["status"] == 0
    assert not LARGE & set(told["modules"])


def ended_by(error, capsys):
    def work(arguments):
        raise error

    return run_command(command_parser("inference", "A door."), work, []), capsys.readouterr().err


def test_a_full_device_is_one_line(capsys):
    status, told = ended_by(torch.OutOfMemoryError("CUDA out of memory"), capsys)
    assert status == 2
    assert told == "error: the device's memory is full; choose a smaller --batch-size\n"


def test_other_runtime_errors_are_not_hidden(capsys):
    with pytest.raises(RuntimeError, match="strange"):
        ended_by(RuntimeError("strange"), capsys)

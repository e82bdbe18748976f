"""Commands that are given what is no regular file end at once, with one line and status 2."""

import importlib
import os
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "pretrained_models" / "smplest_x_demo"
VIDEO = Path(__file__).parents[2] / "demo" / "test_video.mp4"
COMMANDS = {
    "inference of a video": "inference {model} {tmp}/x.mp4 --output {tmp}/out",
    "inference of an image": "inference {model} {tmp}/x.jpg --output {tmp}/out",
    "inference of a list": "inference {model} --input {tmp}/x.txt --output {tmp}/out",
    "inference with boxes": "inference {model} {video} --boxes {tmp}/x.json --output {tmp}/out",
    "inference with a detector": "inference {model} {video} --detector yolo --output {tmp}/out "
    "--set inference.detection.model_path={tmp}/x.pt",
    "inference by weights": "inference {tmp}/x.pth.tar {video} --output {tmp}/out",
    "training": "train job {tmp}/x.py --output {tmp}/out",
    "pre-training": "pretrain job {tmp}/x.py --output {tmp}/out",
    "an untrained network": "initialise {tmp}/x.py {tmp}/out",
    "a submission": "submit check {tmp}/x.zip --server agora",
    "parameters": "humandata convert from-params {tmp}/x.json --images {tmp} "
    "--output {tmp}/out.npz",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_command_ends_at_once(command, kind, tmp_path, capfd):
    arguments = COMMANDS[command].format(model=MODEL, video=VIDEO, tmp=tmp_path).split()
    for suffix in ("mp4", "jpg", "txt", "json", "pt", "pth.tar", "py", "zip"):
        path = tmp_path / f"x.{suffix}"
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    before = sorted(tmp_path.iterdir())
    assert importlib.import_module(f"main.{arguments[0]}").main(arguments[1:]) == 2
    errors = capfd.readouterr().err
    assert sum(line.startswith("error: ") for line in errors.splitlines()) == 1
    assert "Traceback" not in errors
    assert [path for path in sorted(tmp_path.iterdir()) if path.suffix] == before

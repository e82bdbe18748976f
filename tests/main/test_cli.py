"""Commands answer --help at once, before anything large is loaded."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from main.cli import command_parser, run_command

ROOT = Path(__file__).parents[2]
LARGE = {"torch", "torchvision", "cv2", "scipy", "ultralytics", "av", "onnxruntime", "ray"}
COMMANDS = sorted(
    path.stem for path in (ROOT / "main").glob("*.py") if "def make_parser" in path.read_text()
)
SCRIPT = """
import json, sys
from main.{command} import main
try:
    main(["--help"])
except SystemExit as end:
    reached = {{"status": end.code, "modules": list(sys.modules)}}
    print(json.dumps(reached), file=sys.stderr)
"""


def test_there_are_commands():
    assert {"inference", "train", "test", "convert", "launch"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_at_once(command):
    script = [sys.executable, "-c", SCRIPT.format(command=command)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"main.{command}" in done.stdout
    reached = json.loads(done.stderr)
    assert reached["status"] == 0
    assert not LARGE & set(reached["modules"])


def ended_by(error, capsys):
    def work(arguments):
        raise error

    return run_command(command_parser("inference", "A command."), work, []), capsys.readouterr().err


def test_a_full_device_is_one_line(capsys):
    status, written = ended_by(torch.OutOfMemoryError("CUDA out of memory"), capsys)
    assert status == 2
    assert written == "error: the device's memory is full; choose a smaller --batch-size\n"


def test_other_runtime_errors_are_not_hidden(capsys):
    with pytest.raises(RuntimeError, match="strange"):
        ended_by(RuntimeError("strange"), capsys)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    status, written = ended_by(error, capsys)
    assert status == 2
    assert re.fullmatch(r"error: .*memory.*ulimit -v.*\n", written)


def test_other_import_errors_are_not_hidden(capsys):
    with pytest.raises(ImportError, match="no such module"):
        ended_by(ImportError("no such module"), capsys)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EMFILE, "ulimit -n"), (errno.EFBIG, "ulimit -f"), (errno.ENOSPC, "free space")],
)
def test_what_the_system_refuses_comes_with_its_remedy(number, remedy, capsys):
    status, written = ended_by(OSError(number, os.strerror(number), "a/file"), capsys)
    assert status == 2
    assert written.startswith(f"error: a/file: {os.strerror(number)}; ")
    assert remedy in written
    assert written.count("\n") == 1


def test_little_address_space_is_one_line():
    """So little that PyTorch's libraries cannot be mapped."""
    code = "import sys; from main.inference import main; sys.exit(main(['model', 'file.mp4']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)),
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*memory.*\n", done.stderr)

"""Commands answer --help at once, before anything large is loaded."""

import errno
import json
import logging
import os
import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.startup import start
from main.cli import command, command_parser
from utils.errors import OneLineFormatter, UserError

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


def made_command(work):
    return command(lambda: command_parser("inference", "A command."), work)


def ended_by(error, capsys):
    def work(arguments):
        raise error

    return made_command(work)([]), capsys.readouterr().err


def test_a_full_device_is_one_line(capsys):
    status, written = ended_by(torch.OutOfMemoryError("CUDA out of memory"), capsys)
    assert status == 2
    assert written == "error: the device's memory is full; choose a smaller --batch-size\n"


def test_other_runtime_errors_are_not_hidden(capsys):
    with pytest.raises(RuntimeError, match="strange"):
        ended_by(RuntimeError("strange"), capsys)


# ---- arguments in any order


def parsed(module, *arguments):
    return import_module(f"main.{module}").make_parser().parse_args(arguments)


INFERENCE = ("smplest_x_demo", "clip.mp4", "12.5")
ORDERS = {
    "last": (*INFERENCE, "--detector", "yolo", "--no-overlay"),
    "first": ("--no-overlay", "--detector", "yolo", *INFERENCE),
    "between": (INFERENCE[0], "--detector", "yolo", *INFERENCE[1:2], "--no-overlay", INFERENCE[2]),
    "joined and shortened": (INFERENCE[0], "--det=yolo", "clip.mp4", "--no-overl", "12.5"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_flags_stand_anywhere(order):
    arguments = parsed("inference", *ORDERS[order])
    assert (arguments.model_dir, arguments.file_name, arguments.fps) == (*INFERENCE[:2], 12.5)
    assert (arguments.detector, arguments.no_overlay) == ("yolo", True)


@pytest.mark.parametrize("verbose", [(), ("--verbose",)])
def test_flags_stand_anywhere_in_every_command(verbose):
    found = [
        parsed("test", "EHF", "--worst", "0", *verbose, "smplest_x_demo"),
        parsed("train", "job", *verbose, "--set", "train.lr=1", "configs/config_debug.py"),
        parsed("submit", *verbose, "agora", "model", "--output", "a.zip", "3"),
        parsed("submit", "--output", "a.zip", "agora", "--device", "cpu", *verbose, "model", "3"),
        parsed("submit", "--server", "agora", "check", *verbose, "a.zip"),
        parsed("humandata", "check", "a.npz", "--json", *verbose, "b.npz"),
        parsed(
            *("humandata", "--keep", "all", "convert"),
            *(*verbose, "merge", "a", "--output", "c.npz", "b"),
        ),
        parsed("score", "result", "--body-folder", "f", *verbose, "truth.npz"),
    ]
    assert all(arguments.verbose == bool(verbose) for arguments in found)
    assert (found[0].dataset, found[0].model_dir, found[0].worst_count) == (
        "EHF",
        "smplest_x_demo",
        0,
    )
    assert found[1].config_file == "configs/config_debug.py"
    assert [(one.model_dir, one.checkpoint_id) for one in found[2:4]] == [("model", "3")] * 2
    assert (found[4].command, str(found[4].file), found[4].server) == ("check", "a.zip", "agora")
    assert list(map(str, found[5].files)) == ["a.npz", "b.npz"]
    assert (list(map(str, found[6].files)), found[6].keep) == (["a", "b"], "all")
    assert str(found[7].truth) == "truth.npz"


def test_names_that_begin_with_a_dash_follow_two_dashes():
    arguments = parsed("inference", "model", "--detector", "yolo", "--", "-dash.mp4", "30")
    assert (arguments.model_dir, arguments.file_name, arguments.fps) == ("model", "-dash.mp4", 30)
    (file,) = parsed("humandata", "check", "--json", "--", "--x.npz").files
    assert str(file) == "--x.npz"


def test_launched_commands_keep_their_arguments_in_order():
    arguments = parsed("launch", "2", "main.test", "EHF", "--worst", "0", "--", "--model")
    assert (arguments.processes, arguments.module) == (2, "main.test")
    assert arguments.arguments == ["EHF", "--worst", "0", "--", "--model"]


@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        (("inference", "model", "--bogus", "clip.mp4"), "unrecognized arguments: --bogus"),
        (("inference", "model", "clip.mp4", "30", "more"), "unrecognized arguments: more"),
        (("inference", "model", "clip.mp4", "--detector"), "expected one argument"),
        (("inference", "model", "", "--output", "out"), "an argument is empty"),
        (("submit", "check", "", "--server", "agora"), "an argument is empty"),
        (("inference",), "the following arguments are required: MODEL_DIR"),
        (("submit", "agora", "model", "--bogus"), "required: --output"),
        (("submit", "model"), "invalid choice"),
        (("humandata", "check", "a.npz", "--bogus"), "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_arguments_are_named(command_line, message):
    with pytest.raises(UserError, match=message):
        parsed(*command_line)


# ---- names from outside


NAME = "a\x1b[31m\nb\x9b\u202e.mp4"
SHOWN = r"a\x1b[31m\nb\x9b\u202e.mp4"


def test_bytes_that_are_no_text_are_shown_escaped():
    """Not by way of a log: pytest-xdist cannot pass on a captured log with such a name."""
    record = logging.makeLogRecord({"msg": "left out: %s", "args": (Path("a\udcd6.mp4"),)})
    assert OneLineFormatter().format(record) == r"left out: a\udcd6.mp4"


def test_numbers_of_numpy_are_numbers_in_a_log():
    record = logging.makeLogRecord({"msg": "%d of %.1f", "args": (np.int64(3), np.float32(4))})
    assert OneLineFormatter().format(record) == "3 of 4.0"


@pytest.mark.parametrize("verbose", [(), ("--verbose",)])
def test_control_characters_of_names_are_shown_escaped(verbose, capsys):
    def work(arguments):
        log = logging.getLogger("main")
        log.warning("left out: %s and %d", Path(NAME), 3)
        log.info("%(name)s", {"name": NAME.replace("\n", "")})
        raise UserError(f"{NAME} is wrong")

    assert made_command(work)(verbose) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith(f"left out: {SHOWN} and 3")
    assert second.endswith(SHOWN.replace(r"\n", ""))
    assert third.endswith(f"error: {SHOWN} is wrong")


def test_umlauts_and_other_scripts_stay(capsys):
    _, written = ended_by(UserError("Füße 図.mp4: \u00a0no"), capsys)
    assert written == "error: Füße 図.mp4: \\xa0no\n"


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
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOSPC, "free space"),
        (errno.EEXIST, "has that name; give another path"),
        (errno.ENOTDIR, "a file, not a folder; give another path"),
    ],
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


LATE = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "ultralytics", "onnxruntime")
LATE += ("ray", "pandas", "matplotlib", "smplx", "huggingface_hub")


@pytest.fixture(scope="module")
def modules(untrained):
    return set(start(str(untrained)).modules)


def test_the_network_is_loaded_by_then(modules):
    assert {"torch", "cv2", "av", "main.pipeline.pipeline", "models.smplest_x"} <= modules


@pytest.mark.parametrize("package", LATE)
def test_what_a_network_needs_not_comes_later(modules, package):
    assert package not in modules

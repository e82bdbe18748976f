"""Processes as torchrun starts them: killed, signalled, and failing together."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from main.launch import _status
from main.launch import main as launch_command
from utils.devices import device_of_process
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "parity" / "data"
LENGTH = "data.total_data_len=24"
TIMES = ("samples_per_s", "data_wait", "memory_mib", "seconds_left")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "img").mkdir()
    (folder / "img" / "images").symlink_to(PARITY / "img")
    return folder


@pytest.fixture(scope="module")
def arguments(data_dir):
    def arguments_for(output, *changes, config="configs/config_debug.py"):
        file = (str(PARITY / "annot" / "EgoBody_Kinect.npz"),)
        sets = [
            f"data.data_dir={data_dir}",
            f"data.datasets={{'mine': {{'train': {file}, 'images': 'images'}}}}",
            "data.trainset_humandata=('mine',)",
            "data.total_data_len=8",
            "model.encoder_config.drop_path_rate=0.5",
            "train.end_epoch=2",
            "train.print_iters=1",
            "train.save_iters=1",
            *changes,
        ]
        fixed = ["job", str(config), "--output", str(output), "--device", "cpu"]
        return fixed + [f"--set={change}" for change in sets]

    return arguments_for


def start(command, **environment):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def launch(processes, arguments, **environment):
    command = [sys.executable, "-m", "main.launch", str(processes), "main.train", *arguments]
    return start(command, **environment)


def end(process, status):
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode == status, stderr
    return stderr


def lines(output):
    paths = list(Path(output).glob("train_*/log/metrics.jsonl"))
    return paths[0].read_text().splitlines() if paths else []


def losses(output):
    found = map(json.loads, lines(output))
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def workers(process):
    """Process ids of the launcher's children, by rank."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in pids:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(x.removeprefix(b"RANK=")) for x in environment if x.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = int(pid)
    return found


@pytest.fixture(scope="module")
def straight(arguments, tmp_path_factory):
    """The output of two processes that were never stopped, started by the script."""
    output = tmp_path_factory.mktemp("straight")
    job, config, *flags = arguments(output, LENGTH)
    end(start(["sh", "scripts/train.sh", job, "2", config, *flags]), 0)
    return output


@pytest.mark.slow
def test_killed_worker_carries_on_and_a_signal_to_all_saves(arguments, straight, tmp_path):
    """Two processes: never stopped; and killed, restarted, ended, taken up again."""
    output = tmp_path / "killed"
    long = arguments(output, LENGTH, "train.num_thread=1")
    process = launch(2, long, MAX_RESTARTS="1")
    wait_for(process, lambda: len(lines(output)) > 2)  # the first state is whole
    os.kill(workers(process)[random.randrange(2)], signal.SIGKILL)
    wait_for(process, lambda: len(list(output.glob("train_*/log/events*"))) == 2)
    time.sleep(random.uniform(0, 1))
    os.killpg(process.pid, signal.SIGTERM)  # as schedulers do: loader workers get it too
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode in (143, 0), stderr
    assert "continuing from" in stderr
    if process.returncode == 143:
        end(launch(2, [*long, "--set=train.continue_train=True"]), 0)
    (run,) = output.glob("train_*")
    assert (run / "model_dump" / "snapshot_1.pth.tar").is_file()
    assert losses(output) == losses(straight)
    assert len(losses(straight)) == 12


def test_script_trains_the_debug_config(straight):
    """What the run's folder says is what ran."""
    assert len(losses(straight)) == 12
    (run,) = straight.glob("train_*")
    assert "config = {" in (run / "config_base.py").read_text()


def only_error(stderr):
    assert "Traceback" not in stderr
    (line,) = [x for x in stderr.splitlines() if x.startswith("error: ")]
    return line


def test_bad_config_ends_every_process_with_one_line(arguments, tmp_path):
    stderr = end(launch(2, arguments(tmp_path, "train.lerning_rate=1")), 2)
    assert "train.lerning_rate" in only_error(stderr)


def test_failure_of_one_process_while_training(arguments, tmp_path):
    """The first process' disk is full; the other one is in the midst of an exchange."""
    script = tmp_path / "small_disk.py"
    script.write_text(
        "import os, resource, runpy, signal, sys\n"
        "if os.environ['RANK'] == '0':\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))\n"
        "sys.argv[0] = 'train'\n"
        "runpy.run_module('main.train', run_name='__main__')\n"
    )
    command = [sys.executable, "-m", "main.launch", "2", "small_disk", *arguments(tmp_path / "out")]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    stderr = end(start(command, PYTHONPATH=paths), 2)
    line = only_error(stderr)
    assert "state_0_1.pth.tar" in line
    (run,) = (tmp_path / "out").glob("train_*")
    assert [path.name for path in (run / "model_dump").iterdir()] == []


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for key, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes need a GPU each, this machine has 2"):
        device_of_process("auto")


FAILS = """
import os, signal, sys, time
import torch
from torch import distributed
from main.cli import command, command_parser
from utils.devices import one_error_report, process_group
from utils.errors import UserError

how = sys.argv[1]

def never(*_):
    time.sleep(3600)

def run(arguments):
    with process_group(torch.device("cpu")) as here, one_error_report(here):
        distributed.barrier()
        if here.rank == 0:
            distributed.monitored_barrier()  # an hour, as any collective
        distributed.destroy_process_group = never  # as with NCCL while others wait
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError("a bad row") if how == "refuse" else ValueError("a fault")

sys.exit(command(lambda: command_parser("train", "Fails."), run)([]))
"""


@pytest.mark.parametrize("how", ["raise", "refuse", "kill"])
def test_process_that_fails_while_others_wait_for_it(how, tmp_path):
    """All end within seconds, and whoever waited says no more than a line."""
    (tmp_path / "fails.py").write_text(FAILS)
    command = [sys.executable, "-m", "main.launch", "2", "fails", how]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert lines.count("ValueError: a fault") == (how == "raise"), done.stderr
    assert lines.count("error: a bad row") == (how == "refuse"), done.stderr
    assert lines.count("error: SIGKILL ended rank 1; out of memory?") == (how == "kill")
    assert done.stderr.count("Traceback") == (how == "raise"), done.stderr
    assert done.returncode in {"raise": (1, 2), "refuse": (2,), "kill": (2, 137)}[how]


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ({0: 143, 1: 1}, 1),  # torchrun ended rank 0 because rank 1 had failed
        ({0: 2, 1: 1}, 2),
        ({0: 143, 1: 143}, 143),
        ({0: 143, 1: -9}, 137),
        ({1: -9}, 137),
    ],
)
def test_status_is_that_of_a_process_that_failed_by_itself(codes, status):
    assert _status(codes) == status


def test_module_without_a_name_is_refused(capsys):
    assert launch_command(["1", ""]) == 2
    assert "MODULE is empty" in capsys.readouterr().err

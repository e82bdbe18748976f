"""A tiny network on tiny datasets, trained in this process or in several; their losses."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from main import train

PARITY = Path(__file__).parents[2] / "parity" / "data"
CONFIG = Path(__file__).parents[3] / "configs" / "config_debug.py"
DATASETS = ("EgoBody_Kinect", "UBody")
TIMES = ("samples_per_s", "data_wait", "memory_mib", "seconds_left")
EVERYTHING = (
    "model.encoder_config.drop_path_rate=0.5",
    "train.ema_decay=0.9",
    "train.layer_decay=0.75",
    "train.weight_decay=0.01",
    "train.warmup_iters=2",
    "train.clip_grad_norm=1.0",
    "train.lr=1e-3",
)
"""What makes training hard to take up exactly."""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["main.train", "torch._dynamo", "torch.utils.tensorboard"])


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny products are faster so, above all where tests run beside each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_data(folder, images=PARITY / "img"):
    """data/ with a folder of images; annotation files are named by their places."""
    (folder / "annot").mkdir(parents=True)
    (folder / "img").mkdir()
    (folder / "img" / "images").symlink_to(images)
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="session")
def command(data_dir):
    """Arguments of the command: two iterations of four samples an epoch, two epochs."""

    def arguments_for(output, *changes, job="job"):
        files = {name: (str(PARITY / "annot" / f"{name}.npz"),) for name in DATASETS}
        datasets = {
            name: {"train": file, "test": file, "images": "images"} for name, file in files.items()
        }
        sets = [
            f"data.data_dir={data_dir}",
            f"data.datasets={datasets}",
            f"data.trainset_humandata={DATASETS}",
            "data.total_data_len=8",
            "train.end_epoch=2",
            "train.train_batch_size=4",
            "train.print_iters=1",
            "train.save_iters=1",
            *changes,
        ]
        arguments = [job, str(CONFIG), "--output", str(output), "--device", "cpu"]
        return arguments + [f"--set={change}" for change in sets]

    return arguments_for


class Run:
    """A run's folder, and what it logged."""

    def __init__(self, output):
        (self.folder,) = Path(output).glob("train_*")

    def lines(self, kind="train"):
        text = (self.folder / "log" / "metrics.jsonl").read_text()
        return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]

    def losses(self):
        """Of every iteration, with the learning rate, in order."""
        return [{k: v for k, v in line.items() if k not in TIMES} for line in self.lines()]

    def log(self):
        return (self.folder / "log" / "train.log").read_text()

    def snapshot(self, name):
        return torch.load(self.folder / "model_dump" / f"{name}.pth.tar", weights_only=True)

    def dump(self):
        return {path.name for path in (self.folder / "model_dump").iterdir()}


@pytest.fixture(scope="session")
def train_here(command):
    """Train in this process."""

    def train_with(output, *changes, status=0, job="job"):
        handler = signal.getsignal(signal.SIGTERM)
        try:
            assert train.main(command(output, *changes, job=job)) == status
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Run(output) if list(Path(output).glob("train_*")) else None

    return train_with


def _process(rank, size, port, arguments, stderr):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    sys.exit(train.main(arguments))


class Started:
    """Processes of a run."""

    def __init__(self, output, arguments, size):
        self.output, self.stderr = Path(output), Path(output) / "stderr.txt"
        self.output.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = [
            PROCESSES.Process(target=_process, args=(rank, size, port, arguments, self.stderr))
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait_for_lines(self, count):
        """Until metrics.jsonl has so many iterations."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            paths = list(self.output.glob("train_*/log/metrics.jsonl"))
            if paths and len(paths[0].read_text().splitlines()) >= count:
                return
            assert any(process.is_alive() for process in self.processes), self.stderr.read_text()
            time.sleep(0.02)
        raise AssertionError("no iterations within two minutes")

    def signal(self, number, ranks=None):
        for rank, process in enumerate(self.processes):
            if (ranks is None or rank in ranks) and process.is_alive():
                os.kill(process.pid, number)

    def statuses(self):
        for process in self.processes:
            process.join(120)
        return [process.exitcode for process in self.processes]

    def run(self, status=0):
        """The run, ended with this status in all processes."""
        assert self.statuses() == [status] * len(self.processes), self.stderr.read_text()
        return Run(self.output)


@pytest.fixture(scope="session")
def start_processes(command):
    def start(output, *changes, size=2, batch_size=None):
        share = f"train.train_batch_size={batch_size or 4 // size}"
        return Started(output, command(output, share, *changes), size)

    return start


@pytest.fixture(scope="session")
def options():
    return EVERYTHING


@pytest.fixture(scope="session")
def everything(train_here, tmp_path_factory):
    """One process, every option that makes taking up hard; never stopped."""
    return train_here(tmp_path_factory.mktemp("everything"), *EVERYTHING)


@pytest.fixture(scope="session")
def plain(train_here, tmp_path_factory):
    """One process, no drawing of random numbers in the network."""
    return train_here(tmp_path_factory.mktemp("plain"), "train.lr=1e-3")

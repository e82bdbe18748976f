"""What tests of several folders share: an untrained network, and programs that run in a browser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from main.initialise import initialise

ROOT = Path(__file__).parents[2]
WEB = ROOT / "tests" / "web"


@pytest.fixture(scope="module")
def one_thread():
    """On machines with few cores the threads of small networks wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """Weights of a small network as it begins: an average person stands in every box."""
    folder = tmp_path_factory.mktemp("model") / "untrained"
    return initialise(str(ROOT / "configs" / "config_debug.py"), str(folder), seed=0)


@pytest.fixture(scope="session")
def run_web():
    """Runs a script of tests/web with node; what it prints."""
    lacking = [
        name
        for name, there in (
            ("node 18 or newer", shutil.which("node")),
            ("tests/web/node_modules", (WEB / "node_modules" / "three").is_dir()),
            ("chromium", shutil.which("chromium") or os.environ.get("CHROMIUM")),
        )
        if not there
    ]
    if lacking:
        told = f"{', '.join(lacking)} missing: sh scripts/install_web.sh"
        if os.environ.get("REQUIRE_WEB") == "1":
            pytest.fail(told)
        pytest.skip(told)

    def run(script: str, *words: object) -> str:
        command = ["node", str(WEB / script), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=480)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

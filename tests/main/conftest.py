"""What tests of several folders share: an untrained network, rows, programs in a browser."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from main.initialise import initialise
from main.motion.rows import COLUMNS, FINAL_ROW, PARAMETERS, FinalRows, RawRows

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
def final_rows_of():
    """Final rows whose values are the raw ones, of (identity, frame, score, Person)."""

    def make(people):
        rows = np.zeros(len(people), FINAL_ROW)
        for row, (identity, frame, score, person) in zip(rows, people, strict=True):
            row["person"], row["frame_index"], row["score"] = identity, frame, score
            for name in COLUMNS:
                row[name] = getattr(person, name)
            for name in PARAMETERS:
                row[f"raw_{name}"] = getattr(person, name)
        return rows

    return make


@pytest.fixture(scope="session")
def row_file(tmp_path_factory):
    """A file of raw or final rows, by their type."""
    folder = tmp_path_factory.mktemp("rows")

    def make(rows):
        file = FinalRows(folder) if rows.dtype == FINAL_ROW else RawRows(folder)
        file.append(rows)
        return file

    return make


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
        message = f"{', '.join(lacking)} missing: sh scripts/install_web.sh"
        if os.environ.get("REQUIRE_WEB") == "1":
            pytest.fail(message)
        pytest.skip(message)

    def run(script: str, *arguments: object) -> str:
        command = ["node", str(WEB / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=480)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""A rebuild from the stored topology gives the committed files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from human_models.files import STAND_IN
from open_body.build import build_environment

ROOT = Path(__file__).parents[2]
BY_HAND = {Path("README.md")}
SAME_LENGTH_M = 5e-6


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - BY_HAND


def load(path: Path) -> Any:
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            return pickle.load(file)
    with np.load(path) as arrays:
        return dict(arrays)


def assert_close(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key])
    elif hasattr(ours, "toarray"):
        assert abs(ours - theirs).max() <= SAME_LENGTH_M
    elif ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, atol=SAME_LENGTH_M, rtol=0)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_rebuild_gives_the_committed_files(tmp_path: Path):
    command = [sys.executable, "-m", "open_body.build", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ, check=True)
    assert files(tmp_path) == files(STAND_IN)
    committed = json.loads((STAND_IN / "build.json").read_text())
    # Other versions of numpy, scipy or zlib may add up or compress in another order: their
    # files differ in the last bits and bytes, but must hold the same body.
    same_tools = committed == build_environment()
    for name in sorted(files(STAND_IN) - {Path("build.json")}):
        ours, theirs = tmp_path / name, STAND_IN / name
        if same_tools:
            assert ours.read_bytes() == theirs.read_bytes(), name
        elif name.suffix == ".npy":
            np.testing.assert_array_equal(np.load(ours), np.load(theirs))
        else:
            assert_close(load(ours), load(theirs))

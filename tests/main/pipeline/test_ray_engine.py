"""Many clips on Ray's local cluster, one of two workers killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from main.initialise import initialise
from main.pipeline.clips import cores_per_worker
from utils.video_write import VideoWriter

ROOT = Path(__file__).parents[3]
MARK = "SMPLEST_X_TEST_OF_RAY"


@pytest.mark.parametrize(
    ("cores", "workers", "share"),
    [
        ([2], 2, 1),
        ([16], 8, 2),
        ([3, 3], 3, 1),
        ([4, 2], 3, 2),
        ([2], 3, 0.5),
        ([1], 8, 0.125),
        ([64, 0], 1, 64),
    ],
)
def test_cores_that_each_worker_can_have(cores, workers, share):
    assert cores_per_worker(cores, workers) == share


def processes_of(mark):
    """Numbers and titles of the processes that carry a mark in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name), (folder / "cmdline").read_text()
        except OSError:
            continue


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="finds the worker to kill in /proc, which only Linux has"
)
def test_killed_worker_costs_nothing_but_time(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    model = initialise(str(ROOT / "configs/config_debug.py"), str(tmp_path / "untrained"), seed=0)
    clips, out = tmp_path / "clips", tmp_path / "out"
    # Long enough to be killed in the middle of.
    lengths = {"a": 200, "b": 200, "c": 6, "d": 6, "e": 6}
    clips.mkdir()
    for name, length in lengths.items():
        with VideoWriter(clips / f"{name}.mp4", fps=10) as writer:
            for _ in range(length):
                writer.write(np.zeros((120, 160, 3), np.uint8))
    (clips / "bad.mp4").write_text("no video")

    mark = f"{os.getpid()}_{time.monotonic_ns()}"
    flags = ("--detector", "whole-image", "--engine", "ray", "--workers", "2")
    command = [sys.executable, "-m", "main.inference", model, "--input", clips, "--output", out]
    process = subprocess.Popen(
        [*map(str, command), *flags],
        cwd=ROOT,
        # Otherwise Ray would join a cluster that somebody else has on this machine.
        env=os.environ | {MARK: mark, "RAY_ADDRESS": "local"},
        stderr=(tmp_path / "stderr").open("w"),
    )
    try:
        deadline = time.monotonic() + 300
        while not list(out.glob(".partial_*/result_a")):
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # The longest clips come first, so both workers are busy with them.
        busy = [number for number, title in processes_of(mark) if "ClipWorker.process" in title]
        assert busy
        os.kill(busy[0], signal.SIGKILL)
        assert process.wait(300) == 1, (tmp_path / "stderr").read_text()
    finally:
        for number, _ in processes_of(mark):
            os.kill(number, signal.SIGKILL)

    report = json.loads((out / "report.json").read_text())
    assert report["failed"] == 1
    frames = {clip["clip"]: clip["frames"] for clip in report["clips"]}
    assert frames == {f"{name}.mp4": n for name, n in lengths.items()} | {"bad.mp4": None}
    expected = [f"result_{name}{end}" for name in lengths for end in ("", ".mp4")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*expected, "report.json"])
    for name, length in lengths.items():
        with np.load(out / f"result_{name}" / "person_001.npz") as file:
            assert len(file["frame_index"]) == length

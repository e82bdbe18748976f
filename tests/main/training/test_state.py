"""Snapshots: which are kept, whole or not at all, and readable by every command."""

import os
import resource
import signal
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from main import test as test_command
from main.pipeline.estimator import Estimator
from main.training import run, state
from main.training.state import Progress, Snapshots, run_folder
from models.checkpoint import read_network, to_published
from utils.devices import World
from utils.errors import UserError
from utils.files import remove_leftovers

LIMIT = 700_000
"""Bytes; less than a snapshot, more than all else that a short run writes."""


def write(snapshots, *progress, best=False, went_well=True):
    """Write a state after iterations that went well with the weights of the one before, or not."""
    if went_well:
        snapshots.confirm()
    snapshots.write({"progress": Progress(*progress)._asdict()}, best=best)
    snapshots.wait()


def names(snapshots):
    return sorted(path.name.removesuffix(".pth.tar") for path in snapshots.folder.iterdir())


def test_all_are_kept_unless_asked_otherwise(tmp_path):
    snapshots = Snapshots(tmp_path, None)
    for epoch in (1, 2, 10):
        write(snapshots, epoch)
    assert [path.name for path in snapshots.newest_first()] == [
        f"snapshot_{k}.pth.tar" for k in (9, 1, 0)
    ]


def test_newest_are_kept_and_the_best(tmp_path):
    snapshots = Snapshots(tmp_path, 2)
    write(snapshots, 1, best=True)
    for epoch in (2, 3):
        write(snapshots, epoch)
    assert names(snapshots) == ["snapshot_1", "snapshot_2", "snapshot_best"]
    write(snapshots, 3, 5)
    assert names(snapshots) == ["snapshot_1", "snapshot_2", "snapshot_best", "state_3_5"]
    write(snapshots, 3, 9)
    assert next(snapshots.newest_first()).name == "state_3_9.pth.tar"
    write(snapshots, 4, best=True)
    assert names(snapshots) == ["snapshot_2", "snapshot_3", "snapshot_best"]
    best = torch.load(tmp_path / "snapshot_best.pth.tar", weights_only=True)
    assert best["progress"]["epoch"] == 4


def test_the_last_good_state_is_never_removed(tmp_path):
    """A state's weights are known to be good once the next iteration has gone well."""
    snapshots = Snapshots(tmp_path, 1)
    write(snapshots, 0, 1)
    write(snapshots, 0, 2)
    assert names(snapshots) == ["state_0_1", "state_0_2"]
    write(snapshots, 0, 3, went_well=False)
    write(snapshots, 1, went_well=False)
    assert names(snapshots) == ["snapshot_0", "state_0_1"]
    write(snapshots, 1, 1)
    assert names(snapshots) == ["snapshot_0", "state_1_1"]
    again = Snapshots(tmp_path, 1)
    again.resumed(tmp_path / "state_1_1.pth.tar")
    write(again, 1, 2, went_well=False)
    assert names(again) == ["snapshot_0", "state_1_1", "state_1_2"]  # none is known to be good
    write(again, 1, 3)
    write(again, 2)
    assert names(again) == ["snapshot_1", "state_1_3"]


def test_what_killed_processes_began_is_removed(tmp_path):
    (tmp_path / ".partial_x").mkdir()
    (tmp_path / ".partial_x" / "snapshot_3.pth.tar").write_bytes(b"begun")
    snapshots = Snapshots(tmp_path, None)
    assert list(snapshots.newest_first()) == []
    remove_leftovers(snapshots.folder, None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk():
    """Files cannot become larger than this: as on a full disk, writing fails half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_full_disk_leaves_no_half_file(tmp_path, small_disk):
    snapshots = Snapshots(tmp_path, None)
    state = {"progress": Progress(1)._asdict(), "network": torch.zeros(LIMIT)}
    snapshots.write(state)
    with pytest.raises(OSError, match=r"snapshot_0\.pth\.tar"):
        snapshots.wait()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_by_the_iteration_after(train_here, tmp_path, small_disk, capsys):
    slow = ("train.train_batch_size=1", "train.end_epoch=3", "train.save_iters=None")
    run = train_here(tmp_path, *slow, status=2)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "snapshot_0.pth.tar" in line
    assert "free space" in line
    assert run.dump() == set()
    assert len(run.losses()) < 24


def test_snapshot_is_of_the_published_form(plain):
    state = plain.snapshot("snapshot_1")
    assert {"epoch", "network", "optimizer"} < state.keys()
    assert state["epoch"] == 1
    network = read_network(plain.folder / "model_dump" / "snapshot_1.pth.tar")
    assert {f"module.{key}" for key in to_published(network)} == state["network"].keys()


def test_estimator_reads_it(plain):
    path = plain.folder / "model_dump" / "snapshot_1.pth.tar"
    estimator = Estimator.load(str(path), device="cpu")
    (person,) = estimator(np.zeros((200, 150, 3), np.uint8), [(20, 20, 100, 150)])
    assert np.isfinite(person.joints_3d_m).all()


def test_test_command_reads_it(plain, tmp_path):
    arguments = ["EgoBody_Kinect", str(plain.folder), "1", "--worst", "0", "--device", "cpu"]
    assert test_command.main([*arguments, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "result" / "result.json").is_file()


def test_a_run_goes_on_from_the_state_that_was_written_last(tmp_path):
    """The date in a folder's name may be of a clock that was wrong, or the folder may be empty."""
    one_process = World(0, 1, 0)
    for date, states in (
        ("20260101_120000", {"state_0_5": 100, "snapshot_0": 300}),
        ("20260102_120000", {"snapshot_3": 200}),
        ("20990101_000000", {"state_0_1": 50}),
        ("20990102_000000", {}),
    ):
        folder = tmp_path / f"train_job_{date}" / "model_dump"
        folder.mkdir(parents=True)
        for name, time in states.items():
            (folder / f"{name}.pth.tar").touch()
            os.utime(folder / f"{name}.pth.tar", (time, time))
    chosen = {
        since: run_folder("train", "job", tmp_path, since=since, world=one_process).name
        for since in ("", "20260102_000000", "20990101_120000")
    }
    assert chosen == {
        "": "train_job_20260101_120000",
        "20260102_000000": "train_job_20260102_120000",
        "20990101_120000": "train_job_20990102_000000",
    }
    new = run_folder("train", "job", tmp_path, since="20990103_000000", world=one_process)
    assert new.name.startswith("train_job_20")
    assert list((new / "model_dump").iterdir()) == []


def test_older_states_go_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    """Its content, then its name, then the folder that holds the name."""
    steps = []
    replace, unlink = Path.replace, Path.unlink

    def synced(descriptor):
        steps.append(("synced", Path(f"/proc/self/fd/{descriptor}").readlink().name))

    def replaced(path, to):
        steps.append(("named", to.name))
        return replace(path, to)

    def unlinked(path, **how):
        steps.append(("removed", path.name))
        unlink(path, **how)

    for number in (1, 2):
        (tmp_path / f"state_0_{number}.pth.tar").touch()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    snapshots = Snapshots(tmp_path, keep=None)
    snapshots.resumed(tmp_path / "state_0_2.pth.tar")
    snapshots.confirm()
    snapshots.write({"progress": Progress(0, 3)._asdict()})
    snapshots.wait()
    snapshots.close()
    assert steps == [
        ("synced", "state_0_3.pth.tar"),
        ("named", "state_0_3.pth.tar"),
        ("synced", tmp_path.name),
        ("removed", "state_0_1.pth.tar"),
    ]


def test_runs_of_one_name_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Now(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(state, "datetime", Now)
    one = World(0, 1, 0)
    names = [run_folder("train", "a", tmp_path, since=None, world=one).name for _ in range(3)]
    first = "train_a_20260102_030405"
    assert names == [first, f"{first}_2", f"{first}_3"]
    assert run_folder("train", "a", tmp_path, since="", world=one).name == f"{first}_3"


def test_second_process_on_a_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_LOCK_PATIENCE_S", 0)
    one = World(0, 1, 0)
    second = run._locked(tmp_path, one)
    with run._locked(tmp_path, one), pytest.raises(UserError, match="trained by another"):
        second.__enter__()
    assert not list(tmp_path.iterdir())

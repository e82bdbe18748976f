"""Training that was stopped goes on as if it never had been: equal to the last bit."""

import os
import random
import signal
import time

import pytest

from main.training import run as run_module
from main.training.train_log import TrainLog

GO_ON = "train.continue_train=True"


@pytest.fixture
def stop_after(monkeypatch):
    """SIGTERM comes when so many iterations are logged, that is while the next one is done."""

    def stop(iterations):
        add, left = TrainLog.add, [iterations]

        def added(self, *arguments):
            add(self, *arguments)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(TrainLog, "add", added)

    return stop


def check_equal(run, expected):
    assert run.losses() == expected.losses()
    assert len(run.losses()) == 4
    ours, theirs = (one.snapshot("snapshot_1") for one in (run, expected))
    for part in ("network", "training_network"):
        for key, value in theirs[part].items():
            assert ours[part][key].equal(value), key


@pytest.mark.parametrize(("logged", "saved"), [(1, "state_0_2"), (2, "state_1_1")])
def test_sigterm_saves_and_going_on_gives_the_same(
    train_here, options, everything, tmp_path, stop_after, monkeypatch, logged, saved
):
    stop_after(logged)
    run = train_here(tmp_path, *options, status=143)
    assert f"{saved}.pth.tar" in run.dump()
    monkeypatch.undo()
    run = train_here(tmp_path, *options, GO_ON)
    check_equal(run, everything)
    assert "epochs are done" not in run.log()
    assert "all 2 epochs are done" in train_here(tmp_path, *options, GO_ON).log()


def test_sigterm_before_the_first_iteration_ends_at_once(
    train_here, options, tmp_path, monkeypatch
):
    """There is nothing to save yet, and setting up a large network takes minutes."""
    resume = run_module.resume

    def resumed(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return resume(*arguments)

    monkeypatch.setattr(run_module, "resume", resumed)
    with pytest.raises(SystemExit, match="143"):
        train_here(tmp_path, *options)
    assert not list(tmp_path.glob("train_*/model_dump/*"))


def kill_at_random(started, ranks):
    """SIGKILL at any moment after the first iteration."""
    chance = random.Random()
    started.wait_for_lines(1 + chance.randrange(3))
    time.sleep(chance.uniform(0, 0.3))
    started.signal(signal.SIGKILL, ranks)
    started.statuses()


def test_killed_process_goes_on(start_processes, train_here, options, everything, tmp_path):
    kill_at_random(start_processes(tmp_path, *options, size=1), [0])
    run = train_here(tmp_path, *options, GO_ON)
    check_equal(run, everything)
    assert not any(name.startswith(".partial") for name in run.dump())


def test_two_processes_of_which_one_is_killed_go_on(start_processes, options, tmp_path):
    expected = start_processes(tmp_path / "expected", *options).run()
    output = tmp_path / "killed"
    kill_at_random(start_processes(output, *options), [random.randrange(2)])
    run = start_processes(output, *options, GO_ON).run()
    check_equal(run, expected)


def test_damaged_snapshots(train_here, options, everything, tmp_path, capsys):
    """A newest state that is cut short is passed over; if all are, nothing is begun silently."""
    (tmp_path / "train_job_20260101_000000").mkdir()
    folder = tmp_path / "train_job_20260101_000000" / "model_dump"
    folder.mkdir()
    for name in ("snapshot_0", "snapshot_1"):
        (folder / f"{name}.pth.tar").write_bytes(
            (everything.folder / "model_dump" / f"{name}.pth.tar").read_bytes()
        )
    with (folder / "snapshot_1.pth.tar").open("r+b") as file:
        file.truncate(10_000)
    run = train_here(tmp_path, *options, GO_ON)
    assert "trying an older one" in run.log()
    assert run.losses() == everything.losses()[2:]
    for path in folder.glob("*.pth.tar"):
        path.write_bytes(b"no state")
    capsys.readouterr()
    train_here(tmp_path, *options, GO_ON, status=2)
    assert "none of its 2 snapshots" in capsys.readouterr().err


def test_another_network_is_no_state(train_here, options, everything, tmp_path, capsys):
    path = everything.folder / "model_dump" / "snapshot_0.pth.tar"
    start = (f"model.pretrained_model_path='{path}'", "train.start_over=False")
    run = train_here(tmp_path / "epoch", *options, *start)
    assert run.losses() == everything.losses()[2:]
    train_here(tmp_path / "wider", *start, "model.decoder_config.dim_out=8", status=2)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "snapshot_0.pth.tar" in line

"""Jobs on the disk and the queue that runs their tasks, one at a time, each in its own process.

A job belongs to one video or photograph. Its folder contains job.json, input/, found/ (people and
their boxes), trial/ (the first seconds), log.txt, and the results.
"""

import json
import logging
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

from pydantic import BaseModel, ValidationError

from main.app.people import FINDING, Choice, as_box_file, boxes_of, check, flags_of
from utils.errors import UserError, refusal
from utils.files import ROOT, atomic_path, exclusive, read_json, remove_folder, remove_leftovers

log = logging.getLogger(__name__)

Kind = Literal["find", "trial", "run", "again", "export"]
State = Literal["queued", "running", "cancelled", "done", "failed"]
ACTIVE: Final = ("queued", "running")
ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{16}")
RECORD: Final = "job.json"
_STOPPED: Final = "the app was stopped during this task"
_GRACE_S: Final = 1.0
"""How long a cancelled process may clean up; then it is killed, and the queue cleans up."""
_TAIL: Final = 1 << 16
"""Bytes of the end of a log that are read."""
_PROGRESS: Final = re.compile(
    r"(?P<done>\d+)(?: of (?P<total>\d+))? (?P<what>[a-z ]+), (?P<rate>[\d.]+)/s"
    r"(?:, (?P<left>\d+) s left)?"
)
STAGES: Final = {
    "frames": "Estimating",
    "frames drawn": "Drawing",
    "frames read": "Saving frames",
    "meshes": "Writing meshes",
}
"""What a command does while its log counts these items."""
_SHOWN_LINES: Final = 200


class Task(BaseModel):
    """The current or last task of a job.

    Attributes:
        arguments: of main.inference or main.export, as on a command line.
        error: one line.
    """

    kind: Kind
    arguments: list[str]
    state: State = "queued"
    queued: float
    started: float | None = None
    ended: float | None = None
    error: str | None = None


class Job(BaseModel):
    """The content of job.json.

    Attributes:
        name: of the uploaded file, as the page shows it.
        file: its safe name in input/.
        flags: the options chosen last, by name.
        found_with: the options with which people were found; None: not searched yet.
    """

    id: str
    name: str
    file: str
    created: float
    model: str
    flags: dict[str, str] = {}
    found_with: dict[str, str] | None = None
    choice: Choice = Choice()
    task: Task | None = None
    bytes: int = 0

    @property
    def result(self) -> str:
        """Name of the result folder."""
        return f"result_{Path(self.file).stem}"

    @property
    def is_active(self) -> bool:
        return self.task is not None and self.task.state in ACTIVE

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read job.json of a folder. Raises UserError if it is missing or damaged."""
        try:
            return cls.model_validate(read_json(folder / RECORD, "job"))
        except ValidationError:
            raise UserError(f"{folder / RECORD} is damaged; remove the folder") from None

    def write(self, folder: Path) -> None:
        with atomic_path(folder / RECORD) as partial:
            partial.write_text(self.model_dump_json(indent=1), encoding="utf-8")


class Jobs:
    """All jobs of a folder, and the thread that runs queued tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition(threading.RLock())
        self._process: subprocess.Popen[bytes] | None = None
        self._running: str | None = None
        self._is_cancelled = self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)

    @contextmanager
    def opened(self) -> Iterator["Jobs"]:
        """Read the jobs, remove remains of a killed server, and run the queue during the block.

        Raises:
            UserError: another server uses the folder.
        """
        busy = f"{self.folder}: another app uses it; end that one, or give --output DIR"
        with exclusive(self.folder / ".lock", busy):
            remove_leftovers(self.folder, None)
            for record in sorted(self.folder.glob(f"*/{RECORD}")):
                if ID.fullmatch(record.parent.name) and not record.parent.is_symlink():
                    self._recover(record.parent)
            self._thread.start()
            try:
                yield self
            finally:
                with self._changed:
                    self._is_closed = True
                    self._changed.notify_all()
                    self._end_process()
                self._thread.join()

    def _recover(self, folder: Path) -> None:
        try:
            job = Job.read(folder)
        except UserError as error:
            log.warning("left out: %s", error)
            return
        if job.task is not None and job.task.state == "running":
            # The process of a task ends after its server, and holds the lock until then.
            with suppress(UserError), exclusive(folder / ".running", "", patience_s=5):
                remove_leftovers(folder, None)
            job.task.state, job.task.error = "failed", _STOPPED
            job.task.ended = time.time()
            job.write(folder)
        self._jobs[job.id] = job

    def all(self) -> list[Job]:
        """Copies, the newest first."""
        with self._changed:
            jobs = sorted(self._jobs.values(), key=lambda job: job.created, reverse=True)
            return [job.model_copy(deep=True) for job in jobs]

    def get(self, job_id: str) -> Job:
        """A copy of a job. Raises KeyError if there is none."""
        with self._changed:
            return self._jobs[job_id].model_copy(deep=True)

    def path(self, job_id: str) -> Path:
        """The folder of a job. Raises KeyError if there is none."""
        return self.folder / self._jobs[job_id].id

    @contextmanager
    def new(self, name: str, file: str, model: str) -> Iterator[Path]:
        """Create a job; the block writes the input to the path that it receives."""
        unique = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(8)}"
        job = Job(id=unique, name=name, file=file, created=time.time(), model=model)
        with atomic_path(self.folder / unique) as partial:
            (partial / "input").mkdir(parents=True)
            yield partial / "input" / file
            job.bytes = _size(partial)
            job.write(partial)
        with self._changed:
            self._jobs[unique] = job

    def choose(self, job_id: str, choice: Choice) -> None:
        """Save the chosen people. Raises KeyError, or UserError while the job runs."""
        with self._changed:
            job = self._idle(job_id)
            job.choice = choice
            job.write(self.path(job_id))

    def start(
        self, job_id: str, kind: Kind, model: str, flags: dict[str, str], formats: str = ""
    ) -> None:
        """Queue a task.

        Raises:
            KeyError: there is no such job.
            UserError: it runs already, or main.inference would refuse the options.
        """
        with self._changed:
            job = self._idle(job_id)
            job.model, job.flags = model, flags
            arguments = self._arguments(job, kind, formats)
            job.task = Task(kind=kind, arguments=arguments, queued=time.time())
            job.write(self.path(job_id))
            self._changed.notify_all()

    def cancel(self, job_id: str) -> None:
        """End a task; its process gets a second to clean up. Raises KeyError."""
        with self._changed:
            job = self._jobs[job_id]
            if self._running == job_id:
                self._is_cancelled = True
                self._end_process()
            elif job.task is not None and job.task.state == "queued":
                self._finish(job, "cancelled", None)

    def delete(self, job_id: str) -> None:
        """Remove a job and all its files. Raises KeyError, or UserError while it runs."""
        with self._changed:
            job = self._idle(job_id)
            remove_folder(self.path(job.id))
            del self._jobs[job_id]

    def _idle(self, job_id: str) -> Job:
        job = self._jobs[job_id]
        if job.is_active:
            raise UserError(f"{job.name} has a running task; cancel it, or wait")
        return job

    def _arguments(self, job: Job, kind: Kind, formats: str) -> list[str]:
        """The checked arguments of the command; writes the file of boxes if one is needed."""
        folder = self.path(job.id)
        flags, source = flags_of(job.flags), str(folder / "input" / job.file)
        if kind in ("export", "again") and not (folder / job.result).is_dir():
            raise UserError("there is no result yet; run the job first")
        if kind == "export":
            check([job.model, source, f"--export={formats}"])
            return [str(folder / job.result), f"--format={formats}", f"--input={source}"]
        if kind == "find":
            check([job.model, source, *flags])
            return [job.model, source, *flags_of(job.flags, FINDING)]
        if kind == "trial":
            flags = [flag for flag in flags if not flag.startswith("--export=")]
        output = folder / "trial" if kind == "trial" else folder
        arguments = [job.model, source, f"--output={output}", *flags]
        if kind == "again":
            arguments.append("--reuse")
        elif job.choice.people == "largest":
            arguments.append("--person=largest")
        check(arguments)
        if kind != "again" and job.choice.needs_boxes:
            arguments.append(f"--boxes={_write_boxes(folder, job)}")
        return arguments

    def _work(self) -> None:
        """Run queued tasks, the oldest first, until the server ends."""
        while (started := self._start_next()) is not None:
            job, process = started
            folder = self.path(job.id)
            status = process.wait()
            _kill_group(process, signal.SIGKILL)  # processes that it may have started
            remove_leftovers(folder, None)
            with self._changed:
                self._process = self._running = None
                if self._is_cancelled:
                    self._finish(job, "cancelled", None)
                elif status == 0:
                    if job.task is not None and job.task.kind == "find":
                        names = [name for name in FINDING if name in job.flags]
                        job.found_with = {name: job.flags[name] for name in names}
                        job.choice = Choice()
                    self._finish(job, "done", None)
                else:
                    self._finish(
                        job, "failed", _STOPPED if self._is_closed else _failure(folder, status)
                    )

    def _start_next(self) -> tuple[Job, subprocess.Popen[bytes]] | None:
        """Wait for a queued task and start its process; None when the server ends."""
        with self._changed:
            while not self._is_closed:
                job = self._next()
                if job is None:
                    self._changed.wait()
                    continue
                assert job.task is not None
                self._running, self._is_cancelled = job.id, False
                job.task.state, job.task.started = "running", time.time()
                folder = self.path(job.id)
                try:
                    job.write(folder)
                    with (folder / "log.txt").open("wb") as output:
                        self._process = _start_worker(folder, output)
                    return job, self._process
                except OSError as refused:  # such as a full disk, or no permission
                    self._running = None
                    self._finish(job, "failed", refusal(refused))
        return None

    def _next(self) -> Job | None:
        queued = [job for job in self._jobs.values() if job.task and job.task.state == "queued"]
        return min(queued, key=lambda job: job.task.queued if job.task else 0, default=None)

    def _finish(self, job: Job, state: State, error: str | None) -> None:
        assert job.task is not None
        job.task.state, job.task.error, job.task.ended = state, error, time.time()
        try:
            job.bytes = _size(self.path(job.id))
            job.write(self.path(job.id))
        except OSError as failure:  # job.json stays as it was; the queue continues
            log.warning("%s: %s", job.name, refusal(failure))

    def _end_process(self) -> None:
        process = self._process
        if process is not None:
            _kill_group(process, signal.SIGTERM)
            timer = threading.Timer(_GRACE_S, _kill_group, (process, signal.SIGKILL))
            timer.daemon = True
            timer.start()


def _write_boxes(folder: Path, job: Job) -> Path:
    """Write the boxes of the chosen people, in the format of --boxes."""
    if job.found_with is None:
        raise UserError("no people have been found yet; use Find people first")
    for name in FINDING:
        if job.found_with.get(name) != job.flags.get(name):
            raise UserError(f"{name} has changed; use Find people again")
    path = folder / "chosen.boxes.json"
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(as_box_file(read_choice(folder, job))), encoding="utf-8")
    return path


def _start_worker(folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process of a task, with a group of its own; it ends when its stdin is closed."""
    return subprocess.Popen(
        **python_command("main.app.worker", str(folder)),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def python_command(module: str, *arguments: str) -> dict[str, Any]:
    """Arguments of `subprocess` to run a module of the project from any current folder."""
    return {
        "args": [sys.executable, "-P", "-m", module, *arguments],
        "cwd": ROOT,
        "env": {**os.environ, "PYTHONPATH": str(ROOT), "PROGRESS_EVERY_S": "0.5"},
    }


def _kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(process.pid, number)


def _failure(folder: Path, status: int) -> str:
    """Why a task failed: the last error of its command, or how it ended."""
    errors = [line for line in _tail(folder / "log.txt") if line.startswith("error: ")]
    if errors:
        # Users do not know the folder in which the app keeps their file.
        return errors[-1].removeprefix("error: ").replace(f"{folder / 'input'}/", "")
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the process {how}; see the log"


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def progress_of(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The progress of a running task, from its log, and the other lines of the log."""
    progress: dict[str, Any] | None = None
    lines = []
    for line in _tail(folder / "log.txt"):
        if match := _PROGRESS.fullmatch(line):
            what, *values = match.group("what", "done", "total", "rate", "left")
            numbers = (value and float(value) for value in values)
            progress = dict(zip(("done", "total", "rate", "left"), numbers, strict=True))
            progress["stage"] = STAGES.get(what, what.capitalize())
        else:
            lines.append(line)
    return progress, lines[-_SHOWN_LINES:]


def command_of(task: Task) -> str:
    """The equivalent command line, to be run in the project's folder."""
    arguments = [argument.replace(f"{ROOT}/", "") for argument in task.arguments]
    if task.kind == "export":
        return shlex.join([".venv/bin/python", "-m", "main.export", *arguments])
    return shlex.join(["sh", "scripts/inference.sh", *arguments])


def read_choice(folder: Path, job: Job) -> dict[int, dict[int, list[float]]]:
    """The boxes of the chosen people, by number and frame. Raises UserError as `boxes_of`."""
    found = read_json(folder / "found" / "boxes.json", "boxes that were found")
    people = {
        int(number): {int(frame): box for frame, box in boxes.items()}
        for number, boxes in found["people"].items()
    }
    return boxes_of(people, job.choice, found["step"])


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())

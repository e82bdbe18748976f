"""Process many clips with one model, and report what was done.

A clip is finished when its result folder exists, which is renamed to its final name as the last
step. Finished clips are skipped; where only the world is missing, it is computed from the result. A
clip that fails does not stop the others.

On Ray (docs.ray.io), on this machine or a cluster, each worker is an actor with its own model, and
each clip a task. A worker that dies is restarted, and its clip repeated up to two times. All
machines must have the project's folder, clips and output at the same paths.
"""

import codecs
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import av
import cv2

from main.motion.result_names import result_names
from main.motion.result_reader import person_files, read_summary
from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import (
    EXPORTING,
    ClipResult,
    Tools,
    export_characters,
    preview_of,
    process_clip,
)
from utils.devices import BrokenDeviceError, require_working
from utils.errors import UserError, first_line
from utils.files import ROOT, atomic_path, read_input, remove_leftovers
from utils.image import IMAGE_SUFFIXES, kinds_of
from utils.source import open_source
from utils.video_read import VIDEO_SUFFIXES

log = logging.getLogger(__name__)

Engine = Literal["local", "ray"]
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_LIST_BYTES: Final = 64 << 20
"""Largest size of a list of clips in bytes."""
REPORT_NAME: Final = "report.json"
_MAX_TABLE_LINES: Final = 200
"""Longest table that is shown in full; of longer ones, only failures. report.json has all clips."""
_CLIP_ERRORS: Final = (
    UserError,
    OSError,
    RuntimeError,  # of PyTorch, such as full memory of a GPU
    MemoryError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    av.FFmpegError,
    cv2.error,
)
"""Errors that only a single clip may cause, even by a defect of this program: others continue."""
_RETRIES: Final = 2
_CORES_PER_WORKER: Final = 2
"""Cores per worker without a GPU, by default: one for the network and one for the other steps."""

_RAY_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # send no usage statistics
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's 60 s
}


class Job(NamedTuple):
    """One clip.

    Attributes:
        label: name in reports: the path as listed, or relative to the folder.
        source: absolute path.
        output: folder for result_NAME and the files beside it.
    """

    label: str
    source: Path
    output: Path
    name: str

    @property
    def result(self) -> Path:
        return self.output / f"result_{self.name}"


class ClipReport(NamedTuple):
    """Numbers of frames and people and the time for one clip, or the reason of its failure."""

    clip: str
    status: Literal["done", "finished before", "failed"]
    frames: int | None = None
    people: int | None = None
    seconds: float | None = None
    reason: str | None = None


def process_clips(
    clips: Path,
    output: Path,
    options: InferenceOptions,
    *,
    engine: Engine = "local",
    workers: int | None = None,
) -> int:
    """Process all unfinished clips of a folder or list; exit status 1 if any failed.

    Args:
        engine: "local" for this process alone, or "ray".
        workers: number of Ray's workers; None: one per GPU, or else per two cores.

    Raises:
        UserError: there is no clip, or the model cannot be loaded.
    """
    start = time.monotonic()
    jobs = list_jobs(clips, output, preview=options.preview)
    remove_leftovers_of(jobs)
    waiting: list[Job] = []
    reports: dict[str, ClipReport] = {}
    for job in jobs:
        if is_finished(job, options):
            reports[job.label] = report_of_finished(job)
        else:
            waiting.append(job)
    log.info("%d clips, %d of them finished before", len(jobs), len(reports))
    about = {"input": str(clips), "model": options.model_dir, "engine": engine}
    try:
        with closing(_reports(waiting, options, engine, workers)) as coming:
            for count, report in enumerate(coming, start=1):
                reports[report.clip] = report
                _log_report(report, count, len(waiting))
    finally:
        remove_leftovers_of(jobs)
        there = [reports[job.label] for job in jobs if job.label in reports]
        write_report(output / REPORT_NAME, about, there, time.monotonic() - start)
    for line in table(there):
        log.info("%s", line)
    return int(any(report.status == "failed" for report in there))


def _reports(
    jobs: Sequence[Job], options: InferenceOptions, engine: Engine, workers: int | None
) -> Generator[ClipReport, None, None]:
    if not jobs:
        return
    if engine == "ray":
        yield from _ray_reports(jobs, options, workers)
    else:
        tools = Tools.load(options)
        for job in jobs:
            yield process_job(job, tools)


def process_job(job: Job, tools: Tools) -> ClipReport:
    """Process one clip, or its missing parts; a failure is reported, not raised.

    Raises:
        BrokenDeviceError: the device cannot be used any more in this process.
    """
    start = time.monotonic()
    options = tools.options
    try:
        if is_finished(job, options):
            return report_of_finished(job)
        if _lacks_world(job, options):
            result = _process_again(job, tools)
        elif job.result.is_dir() and not options.preview:  # only exports are missing
            export_characters(job.result, job.source, tools)
            return report_of_finished(job)
        else:
            result = _process(job, tools)
        return ClipReport(job.label, "done", *result, round(time.monotonic() - start, 3))
    except _CLIP_ERRORS as error:
        require_working(tools.estimator.device, error)
        log.debug("%s", job.source, exc_info=True)
        return report_of_failure(job, error, time.monotonic() - start)


def _process(job: Job, tools: Tools) -> ClipResult:
    with open_source(job.source, tools.options.fps) as source:
        return process_clip(source, job.result, tools)


def _process_again(job: Job, tools: Tools) -> ClipResult:
    """Process a clip with the estimates of its result, or with new ones if these cannot be used."""
    reusing = copy(tools)
    reusing.options = replace(tools.options, reuse=True)
    try:
        return _process(job, reusing)
    except UserError as error:
        log.info("%s: estimated again: %s", job.label, error)
        return _process(job, tools)


def list_jobs(clips: Path, output: Path, *, preview: bool = False) -> list[Job]:
    """The clips of a folder (all videos in it, at any depth) or of a list (one path per line).

    Paths in a list are relative to its folder. Results have the same relative paths in `output` as
    clips in the folder or list; those of clips outside it are relative to the file system's root.

    Raises:
        UserError: there is no clip.
    """
    clips, output = clips.resolve(), output.resolve()
    if clips.is_dir():
        if clips == output:
            raise UserError(f"--output {output}: choose another folder than that of the clips")
        sources, others = _videos_under(clips, output)
        start = clips
    else:
        sources, others = _listed(clips), []
        start = clips.parent
    if not sources:
        what = f"; it holds {kinds_of(others)}" if others else ""
        raise UserError(f"{clips}: there is no video in it{what}")
    if others:
        log.warning("%s: skipped, because they are not videos: %s", clips, kinds_of(others))
    by_folder: dict[Path, list[Path]] = {}
    for source in sources:
        by_folder.setdefault(source.parent, []).append(source)
    jobs = []
    for folder, mine in by_folder.items():
        place = output / folder.relative_to(
            start if folder.is_relative_to(start) else folder.anchor
        )
        for source, name in zip(mine, result_names(mine, place, preview=preview), strict=True):
            inside = source.is_relative_to(start)
            label = str(source.relative_to(start)) if inside else str(source)
            jobs.append(Job(label, source, place, name))
    return jobs


def _videos_under(folder: Path, left_out: Path) -> tuple[list[Path], list[Path]]:
    """The videos in a folder at any depth, and other files; files of boxes are neither."""
    videos: list[Path] = []
    others: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and Path(place, name) != left_out
        )
        for name in sorted(files):
            if name[0] == "." or name.endswith(".boxes.json"):
                continue
            (videos if name.lower().endswith(VIDEO_SUFFIXES) else others).append(Path(place, name))
    return videos, others


def _listed(file: Path) -> list[Path]:
    content = read_input(file, _MAX_LIST_BYTES).removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        what = "in UTF-16; save it as UTF-8" if content[:2] in _UTF16_MARKS else "no list of paths"
        raise UserError(f"--input {file}: this is {what}")
    names = [os.fsdecode(line.strip()) for line in content.splitlines()]
    return list(dict.fromkeys(Path(os.path.normpath(file.parent / n)) for n in names if n))


def is_finished(job: Job, options: InferenceOptions) -> bool:
    """Whether the result folder and all requested exports exist."""
    if options.preview:
        return preview_of(job.result).is_file()
    if not job.result.is_dir() or _lacks_world(job, options):
        return False
    if not options.export:
        return True
    from main.characters.export import exported_paths  # loads what few runs need

    wanted = exported_paths(job.result, person_files(job.result).values(), options.export)
    return not (job.result / EXPORTING).exists() and all(path.exists() for path in wanted)


def _lacks_world(job: Job, options: InferenceOptions) -> bool:
    """Whether a video has a result without the requested world."""
    asked = options.world and not options.preview and job.result.is_dir()
    if not asked or job.source.suffix.lower() in IMAGE_SUFFIXES:
        return False
    try:
        return read_summary(job.result).world is None
    except UserError:
        return True


def remove_leftovers_of(jobs: Iterable[Job]) -> None:
    """Remove temporary files of these clips that interrupted runs left."""
    written: dict[Path, set[str]] = {}
    for job in jobs:
        result = job.result
        names = {result.name, f"{result.name}.mp4", preview_of(result).name}
        written.setdefault(job.output, set()).update(names)
    for folder, names in written.items():
        remove_leftovers(folder, names)


def report_of_finished(job: Job) -> ClipReport:
    """The report of a finished clip, with the numbers of its summary if this can be read."""
    try:
        summary = read_summary(job.result)
    except UserError:
        return ClipReport(job.label, "finished before")
    return ClipReport(job.label, "finished before", summary.frames, len(summary.people))


def report_of_failure(job: Job, error: BaseException, seconds: float | None = None) -> ClipReport:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    took = None if seconds is None else round(seconds, 3)
    return ClipReport(job.label, "failed", seconds=took, reason=kind + first_line(error))


def _log_report(report: ClipReport, count: int, total: int) -> None:
    end = f"{report.frames} frames, {report.people} people, {report.seconds or 0:.1f} s"
    level = logging.WARNING if report.status == "failed" else logging.INFO
    log.log(level, "[%d of %d] %s: %s", count, total, report.clip, report.reason or end)


def table(reports: Sequence[ClipReport]) -> list[str]:
    """Lines with clip, frames, people, and seconds or the reason of failure; then the totals."""
    shown = reports
    if len(reports) > _MAX_TABLE_LINES:
        shown = [report for report in reports if report.status == "failed"][:_MAX_TABLE_LINES]
    width = max([len(report.clip) for report in shown], default=4)
    lines = [f"{'clip':{width}}  frames  people  seconds"] if shown else []
    for report in shown:
        counts = f"{_cell(report.frames)}  {_cell(report.people)}  "
        if report.status == "failed":
            end = f"failed: {report.reason}"
        elif report.status == "done":
            end = counts + f"{report.seconds or 0:7.1f}"
        else:
            end = counts + report.status
        lines.append(f"{report.clip:{width}}  {end}")
    counted = Counter(report.status for report in reports)
    lines.append(", ".join(f"{count} {status}" for status, count in sorted(counted.items())))
    return lines


def _cell(number: int | None) -> str:
    return f"{'-' if number is None else number:>6}"


def write_report(
    path: Path, about: dict[str, Any], reports: Sequence[ClipReport], seconds: float
) -> None:
    """Write report.json, replacing an old one only when it is complete."""
    counted = Counter(report.status for report in reports)
    content = {
        **about,
        "seconds": round(seconds, 3),
        "done": counted["done"],
        "finished_before": counted["finished before"],
        "failed": counted["failed"],
        "clips": [report._asdict() for report in reports],
    }
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class ClipWorker:
    """A worker with its own model, used as an actor of Ray."""

    def __init__(self, options: InferenceOptions, folder: str) -> None:
        os.chdir(folder)  # to which paths of the command line are relative
        self.options = options
        self.tools: Tools | None = None

    def load(self) -> str | None:
        """Load the model; the message of an error, or None."""
        try:
            self.tools = Tools.load(self.options)
        except UserError as error:
            return str(error)
        return None

    def process(self, job: Job) -> ClipReport:
        if self.tools is None:  # Ray has restarted this actor
            self.tools = Tools.load(self.options)
        try:
            return process_job(job, self.tools)
        except BrokenDeviceError:
            log.exception("%s", job.label)
            os._exit(1)  # Ray starts the actor again, in a process that can use the device


def _ray_reports(
    jobs: Sequence[Job], options: InferenceOptions, workers: int | None
) -> Generator[ClipReport, None, None]:
    """Process clips with Ray's workers; the reports in the order in which clips are finished.

    Raises:
        UserError: Ray is not installed, there are fewer GPUs than `workers`, or no model can be
            loaded.
    """
    ray = _import_ray()
    ray.init(
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        include_dashboard=False,
        log_to_driver=log.isEnabledFor(logging.DEBUG),
        logging_level=logging.WARNING,
    )
    try:
        actors = _start_actors(ray, options, workers, len(jobs))
        log.info("%d workers of Ray", len(actors))
        yield from _distribute(ray, actors, jobs)
    finally:
        ray.shutdown()


def _import_ray() -> ModuleType:
    for setting, value in _RAY_SETTINGS.items():
        os.environ.setdefault(setting, value)
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(
            "--engine ray needs Ray: .venv/bin/python -m pip install -r requirements-ray.txt"
        ) from None
    return ray


def _start_actors(
    ray: ModuleType, options: InferenceOptions, workers: int | None, most: int
) -> list[Any]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    use_gpus = options.device == "auto" or options.device.startswith("cuda")
    gpus = [int(node.get("GPU", 0)) for node in nodes] if use_gpus else []
    cores = [node.get("CPU", 0) for node in nodes]
    if sum(gpus):
        workers = workers or sum(gpus)
        if workers > sum(gpus):
            raise UserError(f"--workers {workers}: there are {sum(gpus)} GPUs, one per worker")
        share = min(c / g for c, g in zip(cores, gpus, strict=True) if g)
        resources = {"num_gpus": 1, "num_cpus": int(share) if share >= 1 else share}
    else:
        workers = workers or max(1, sum(int(count) // _CORES_PER_WORKER for count in cores))
        resources = {"num_cpus": cores_per_worker(cores, workers)}
    actor = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **resources)(ClipWorker)
    return [actor.remote(options, os.getcwd()) for _ in range(min(workers, most))]  # noqa: PTH109


def cores_per_worker(cores: Sequence[float], workers: int) -> float:
    """The largest number of cores per worker with which all workers fit on the machines."""
    sizes = chain(range(int(max(cores)), 0, -1), (0.5**k for k in range(1, 20)))
    return next(size for size in sizes if sum(count // size for count in cores) >= workers)


def _distribute(
    ray: ModuleType, actors: Sequence[Any], jobs: Sequence[Job]
) -> Generator[ClipReport, None, None]:
    """Load all actors, and give each one clip at a time, so that a slow clip delays no others."""
    waiting = iter(jobs)
    running: dict[Any, tuple[Any, Job | None]] = {
        actor.load.remote(): (actor, None) for actor in actors
    }
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor, job = running.pop(done)
        try:
            outcome = ray.get(done)
        except ray.exceptions.RayError as error:
            if job is None:
                raise UserError(f"a worker of Ray cannot start: {first_line(error)}") from None
            outcome = report_of_failure(job, UserError(_what_happened(ray, error)))
        if job is not None:
            yield outcome
        elif outcome is not None:
            raise UserError(outcome)
        following = next(waiting, None)
        if following is not None:
            running[actor.process.remote(following)] = (actor, following)


def _what_happened(ray: ModuleType, error: Exception) -> str:
    if isinstance(error, ray.exceptions.RayTaskError):
        return first_line(error.cause)
    return f"its worker died, {_RETRIES + 1} times"

"""Many clips: what is finished is passed over, one that fails never stops the others."""

import argparse
import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Final

from main.batch.jobs import Job, list_jobs, remove_leftovers
from main.batch.report import ClipReport, table, write_report
from main.batch.work import do_clip, finished_before, is_finished
from main.session import Session
from utils.errors import UserError

log = logging.getLogger(__name__)

REPORT_NAME: Final = "report.json"


def run_batch(words: argparse.Namespace) -> int:
    """Do every clip of --input that is not finished; exit status 1 if any failed.

    Raises:
        UserError: flags do not go together, there is no clip, or the model cannot be loaded.
    """
    _check(words)
    start = time.monotonic()
    jobs = list_jobs(words.input, words.output)
    remove_leftovers(jobs)
    waiting: list[Job] = []
    reports: dict[str, ClipReport] = {}
    for job in jobs:
        if is_finished(words, job):
            reports[job.label] = finished_before(job)
        else:
            waiting.append(job)
    log.info("%d clips, %d of them finished before", len(jobs), len(reports))
    about = {"input": str(words.input), "model": words.model_dir, "engine": words.engine}
    try:
        with closing(_reports(words, waiting)) as coming:
            for count, report in enumerate(coming, start=1):
                reports[report.clip] = report
                _tell(report, count, len(waiting))
    finally:
        remove_leftovers(jobs)
        there = [reports[job.label] for job in jobs if job.label in reports]
        write_report(words.output / REPORT_NAME, about, there, time.monotonic() - start)
    log.info("%s", table(there))
    return int(any(report.status == "failed" for report in there))


def _check(words: argparse.Namespace) -> None:
    if words.file_name is not None:
        raise UserError("FILE_NAME and --input: give one of them (the frame rate is --fps here)")
    if words.output is None:
        raise UserError("--input needs --output FOLDER")
    if words.boxes is not None:
        raise UserError("--boxes is for one input; put NAME.boxes.json beside each clip")


def _reports(words: argparse.Namespace, jobs: Sequence[Job]) -> Generator[ClipReport, None, None]:
    if not jobs:
        return
    if words.engine == "ray":
        from main.batch.ray_engine import ray_reports

        with closing(ray_reports(words, jobs)) as reports:
            yield from reports
        return
    session = Session.load(words)
    for job in jobs:
        yield do_clip(session, job)


def _tell(report: ClipReport, count: int, of: int) -> None:
    end = f"{report.frames} frames, {report.people} people, {report.seconds or 0:.1f} s"
    level = logging.WARNING if report.status == "failed" else logging.INFO
    log.log(level, "[%d of %d] %s: %s", count, of, report.clip, report.reason or end)

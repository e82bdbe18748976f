"""One clip, whatever happens in it."""

import argparse
import logging
import time
from typing import Final

import av
import cv2

from main.batch.jobs import Job, found_before
from main.batch.report import ClipReport
from main.result_files import person_files
from main.session import Session, export_formats, preview_of
from utils.errors import UserError, first_line
from utils.media import open_media

log = logging.getLogger(__name__)

_OF_A_CLIP: Final = (
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
"""What a strange clip may cause: a fault of ours in one must not cost the others."""


def do_clip(session: Session, job: Job) -> ClipReport:
    """Infer one clip, or what of it is not done; what fails is told in the report."""
    start = time.monotonic()
    words = session.arguments
    try:
        if not is_finished(words, job):
            if job.result.is_dir() and not words.preview:
                session.export(job.result, job.source)
            else:
                with open_media(job.source, words.rate) as media:
                    found = session.media(media, job.output, job.name)
                seconds = round(time.monotonic() - start, 3)
                return ClipReport(job.label, "done", found.frames, found.people, seconds)
    except _OF_A_CLIP as error:
        log.debug("%s", job.source, exc_info=True)
        return failed(job, error, time.monotonic() - start)
    return finished_before(job)


def is_finished(words: argparse.Namespace, job: Job) -> bool:
    """Whether all that a command line asks for is there: the folder of results, and characters."""
    if words.preview:
        return preview_of(job.result).is_file()
    if not job.result.is_dir():
        return False
    people = len(person_files(job.result))
    wanted = people * len(export_formats(words.export))
    return wanted == 0 or len(list(job.result.glob("export/[!.]*"))) >= wanted


def finished_before(job: Job) -> ClipReport:
    return ClipReport(job.label, "finished before", *found_before(job))


def failed(job: Job, error: BaseException, seconds: float | None = None) -> ClipReport:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    took = None if seconds is None else round(seconds, 3)
    return ClipReport(job.label, "failed", seconds=took, reason=kind + first_line(error))

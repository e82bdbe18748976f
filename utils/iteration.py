"""Iterators that threads compute in advance, and display of progress."""

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

LOG_EVERY_S: Final = float(os.environ.get("PROGRESS_EVERY_S", "10"))
"""Interval of log lines; the local app sets a shorter one, because it reads them."""
_POLL_S: Final = 0.1


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield `items` in order, while a thread computes up to `depth` of them in advance.

    An exception of the iterator is raised here. If the consumer stops early, the thread ends and
    the iterator is closed.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_POLL_S)
                return

    def produce() -> None:
        iterator = iter(items)
        error = None
        try:
            for item in iterator:
                put(item)
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            put(_End(error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Generator[R, None, None]:
    """Yield `function` of each item in order, computed by `workers` threads in advance.

    The consumer's thread reads `items`, at most twice as many in advance as there are workers. An
    exception of the function is raised in place of its result. If the consumer stops early,
    running calls are waited for and the iterator is closed.
    """
    running: deque[Future[R]] = deque()
    iterator = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="parallel_map")
    try:
        for item in iterator:
            running.append(pool.submit(function, item))
            if len(running) >= 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def with_progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Yield `items` and show their number, the rate and the remaining time on stderr.

    A terminal shows a progress bar; else a line is logged every LOG_EVERY_S seconds.

    Args:
        total: expected number of items; None if unknown.
        what: name of the items in the plural.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_log(items, total, what)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:.1f}/s" if task.speed else ""


def _with_log(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    start = logged = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - logged >= LOG_EVERY_S:
            logged, rate = now, count / (now - start)
            of_total = f" of {total}" if total else ""
            left = f", {max(0, total - count) / rate:.0f} s left" if total else ""
            log.info("%d%s %s, %.1f/s%s", count, of_total, what, rate, left)

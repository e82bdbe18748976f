"""How far along: a bar on a terminal, a line now and then in a log."""

import logging
import time
from collections.abc import Iterable, Iterator
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

T = TypeVar("T")

log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 10.0


def with_progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Yield `items` and show on stderr how many there were, the rate and the time left.

    Args:
        total: how many to expect; None if unknown.
        what: their name in the plural.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from _with_bar(items, total, what, console)
    else:
        yield from _with_log(items, total, what)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:.1f}/s" if task.speed else ""


def _with_bar(items: Iterable[T], total: int | None, what: str, console: Console) -> Iterator[T]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total)


def _with_log(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    start = told = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - told >= LOG_EVERY_S:
            told, rate = now, count / (now - start)
            of_total = f" of {total}" if total else ""
            left = f", {max(0, total - count) / rate:.0f} s left" if total else ""
            log.info("%d%s %s, %.1f/s%s", count, of_total, what, rate, left)

"""Run an iterator ahead of its consumer, in a thread of its own, by a bounded number of items."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.1


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield `items` in order while a thread computes up to `depth` of them ahead.

    An exception of the iterator is raised here. When the consumer stops early, the thread ends
    and the iterator is closed.
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

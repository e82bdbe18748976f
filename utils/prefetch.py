"""Run iterators ahead of their consumers, in threads, by a bounded number of items."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

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


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Generator[R, None, None]:
    """Yield `function` of each item, in order, while `workers` threads compute those that follow.

    Items are taken in the consumer's thread; twice as many as there are workers are under way at
    most. An exception of the function is raised here in its item's turn. When the consumer stops
    early, what is under way is waited for and the iterator is closed.
    """
    under_way: deque[Future[R]] = deque()
    iterator = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="parallel_map")
    try:
        for item in iterator:
            under_way.append(pool.submit(function, item))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

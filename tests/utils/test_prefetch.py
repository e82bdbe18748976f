"""Items come in order from another thread, errors come through, and nothing is left running."""

import threading
import time

import pytest

from utils.prefetch import prefetch


def test_order():
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))


def test_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("lost")

    ahead = prefetch(items(), 2)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="lost"):
        next(ahead)


def test_runs_no_further_ahead_than_asked():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(items(), 3)
    next(ahead)
    time.sleep(0.3)
    assert len(made) <= 6
    ahead.close()


def test_stopping_early_closes_the_iterator_and_ends_the_thread():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    ahead = prefetch(items(), 2)
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert threading.active_count() == before

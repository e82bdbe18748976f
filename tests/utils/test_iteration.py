"""Items come in order from another thread, errors come through, nothing keeps running; progress."""

import threading
import time

import pytest

from utils import iteration
from utils.iteration import parallel_map, prefetch, with_progress


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


def test_parallel_map_keeps_the_order_and_works_at_the_same_time():
    barrier = threading.Barrier(3, timeout=20)

    def slow_if_even(number):
        if number < 3:
            barrier.wait()  # passes only if three are under way at once
        time.sleep(0.02 * (number % 2 == 0))
        return number * 10

    assert list(parallel_map(slow_if_even, range(9), workers=3)) == [n * 10 for n in range(9)]


def test_parallel_map_takes_no_more_than_it_needs():
    taken = []
    results = parallel_map(lambda n: n, (taken.append(n) or n for n in range(100)), workers=2)
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()
    assert len(taken) <= 4


def test_parallel_map_raises_in_turn_and_closes_its_source():
    closed = []

    def source():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def fail_at_three(number):
        if number == 3:
            raise ValueError("three")
        return number

    given = []
    with pytest.raises(ValueError, match="three"):
        given.extend(parallel_map(fail_at_three, source(), workers=2))
    assert closed == [True]
    assert not [thread for thread in threading.enumerate() if "parallel_map" in thread.name]


def test_parallel_map_of_nothing():
    assert list(parallel_map(str, [], workers=2)) == []


def test_items_pass_and_the_log_tells(monkeypatch, caplog):
    monkeypatch.setattr(iteration, "LOG_EVERY_S", 0.0)
    with caplog.at_level("INFO", logger="utils.iteration"):
        assert list(with_progress(range(3), 4, "frames")) == [0, 1, 2]
    assert caplog.messages[1].startswith("2 of 4 frames, ")
    assert caplog.messages[1].endswith(" s left")


def test_unknown_total(monkeypatch, caplog):
    monkeypatch.setattr(iteration, "LOG_EVERY_S", 0.0)
    with caplog.at_level("INFO", logger="utils.iteration"):
        assert list(with_progress(iter("ab"), None, "frames")) == ["a", "b"]
    assert "left" not in caplog.text


def test_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(with_progress(range(3), 3, "frames")) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err

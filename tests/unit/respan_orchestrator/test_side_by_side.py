"""Threads that end when the block around them does."""

import threading
from contextlib import closing

import pytest

from respan_orchestrator.side_by_side import (
    StoppedError,
    Threads,
    check_stopped,
    each,
    is_stopped,
    pause,
    when_stopped,
)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_every_item_is_done_and_never_more_at_once_than_told(at_once):
    working, most = threading.Semaphore(at_once), []

    def work(item):
        assert working.acquire(blocking=False)
        most.append(item)
        pause(0.01)
        working.release()
        return item * item

    assert sorted(each(work, range(7), at_once)) == [(item, item * item) for item in range(7)]


def test_results_come_when_they_are_there():
    second_is_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_is_done.wait(20)
        return item

    with closing(each(work, range(2), 2)) as done:
        assert next(done) == (1, 1)
        second_is_done.set()
        assert next(done) == (0, 0)


def test_what_one_raises_ends_all():
    stopped = []

    def work(item):
        if item == 1:
            raise KeyError("oops")
        try:
            pause(20)
        except StoppedError:
            stopped.append(item)
            raise

    with pytest.raises(KeyError, match="oops"):
        list(each(work, range(9), 3))
    assert sorted(stopped) == [0, 2]


def test_leaving_stops_whatever_waits_or_asks():
    called, begun = threading.Event(), threading.Barrier(3)

    def waits():
        begun.wait(20)
        pause(60)

    def calls():
        with when_stopped(called.set):
            begun.wait(20)
            assert called.wait(20)
        check_stopped()

    with Threads() as threads:
        threads.begin(waits)
        threads.begin(calls)
        begun.wait(20)
    ends = [threads.next_ended(20) for _ in range(2)]
    assert [type(ended.error) for ended in ends] == [StoppedError, StoppedError]
    assert not is_stopped()


def test_what_is_stopped_stops_what_it_has_begun():
    begun, inner = threading.Event(), []

    def innermost():
        begun.set()
        try:
            pause(60)
        except StoppedError as error:
            inner.append(error)
            raise

    def outer():
        with Threads() as threads:
            threads.begin(innermost)
            threads.next_ended().value()

    with Threads() as threads:
        threads.begin(outer)
        assert begun.wait(20)
    assert isinstance(threads.next_ended(20).error, StoppedError)
    assert len(inner) == 1


def test_who_waits_can_be_woken():
    with Threads() as threads:
        threads.begin(lambda: pause(60))
        threads.wake()
        assert threads.next_ended(60) is None
        assert threads.running == 1

"""What a worker does between stages; stages themselves are tested with a real server."""

from __future__ import annotations

import time
from multiprocessing import Pipe

import pytest

from respan_common import gpu_lease, worker


@pytest.fixture
def connection():
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, theirs


def test_an_idle_process_ends_after_its_time(connection):
    started = time.monotonic()
    assert not worker._has_work(connection[0], 0.2)
    assert time.monotonic() - started >= 0.2


def test_a_task_is_work(connection):
    connection[1].send("task")
    assert worker._has_work(connection[0], 0)


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_holder_takes_a_task_though_it_may_not_idle(connection, monkeypatch, has_gpu):
    monkeypatch.setattr(gpu_lease, "holds_gpu", lambda: has_gpu)
    connection[1].send("task")
    assert worker._has_work(connection[0], 0)


def test_a_holder_whose_turn_is_over_leaves_the_next_task_to_another_process(
    connection, monkeypatch
):
    monkeypatch.setattr(gpu_lease, "is_wanted", lambda *, after_turn=False: after_turn)
    connection[1].send("task")
    assert not worker._has_work(connection[0], 60)

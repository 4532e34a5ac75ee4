from __future__ import annotations

import time

import pytest

from respan_common.errors import CancelledError
from respan_common.events import Accepted, Progress, Reporter, SilentReporter


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    hands = Clock()
    monkeypatch.setattr(time, "monotonic", hands)
    return hands


@pytest.fixture
def sent():
    return []


@pytest.fixture
def report(sent, clock):
    return Reporter(sent.append, lambda: False)


def test_a_million_steps_are_few_messages_and_the_last_one_is_sent(report, sent, clock):
    for step in range(1, 10_001):
        clock.now = step * 0.001
        report.progress(step, 10_000)
    assert len(sent) <= 10 / Reporter.least_interval_s + 2
    assert sent[-1] == Progress(10_000, 10_000, 0.0)


def test_the_time_left_follows_from_the_pace(report, sent, clock):
    for done in range(5):
        clock.now = 10.0 + 3.0 * done
        report.progress(done, 10)
    assert [event.seconds_left for event in sent] == [None, 27.0, 24.0, 21.0, 18.0]


def test_a_resumed_stage_is_not_taken_for_a_fast_one(report, sent, clock):
    report.progress(90, 100)
    clock.now = 10.0
    report.progress(91, 100)
    assert sent[-1].seconds_left == pytest.approx(90.0)


def test_a_new_count_starts_a_new_estimate(report, sent, clock):
    report.progress(50, 100)
    clock.now = 1.0
    report.progress(0, 10)
    clock.now = 3.0
    report.progress(1, 10)
    assert sent[-1].seconds_left == pytest.approx(18.0)


def test_every_call_raises_when_the_caller_is_gone(sent):
    report = Reporter(sent.append, lambda: True)
    for call in (lambda: report.progress(1, 2), report.check, lambda: report.accepted(Accepted())):
        with pytest.raises(CancelledError):
            call()
    assert sent == []


def test_the_silent_reporter_is_never_cancelled():
    SilentReporter().progress(1, 1)

"""What a running stage tells its caller: accepted, progress, result; and how it hears "stop"."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from respan_common.errors import CancelledError


@dataclass(frozen=True)
class Accepted:
    """What the stage understood, before it starts to work."""

    shape: tuple[int, ...] = ()
    spacing_um: tuple[float, ...] = ()
    model_digest: str = ""
    device: str = "cpu"
    blocks: int = 1
    blocks_done: int = 0


@dataclass(frozen=True)
class Progress:
    """How far the work is."""

    done: int
    total: int
    seconds_left: float | None = None
    message: str = ""


@dataclass(frozen=True)
class StageResult:
    """What was published, and small numbers about it."""

    written: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    skipped: bool = False
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuHeld:
    """The process that works has taken GPUs for itself; for the server alone."""

    gpus: tuple[str, ...]
    waited_s: float


Event = Accepted | Progress | StageResult


class Reporter:
    """A stage's line to its caller.

    Parameters
    ----------
    send
        Takes each event (and GpuHeld). Progress is thinned out: a million steps cost nothing.
    cancelled
        Whether the caller has gone away or asked to stop.
    """

    least_interval_s = 0.2

    def __init__(self, send: Callable[[Any], None], cancelled: Callable[[], bool]) -> None:
        self._send = send
        self._cancelled = cancelled
        self._first: tuple[float, int] | None = None
        self._last_sent = float("-inf")

    def accepted(self, accepted: Accepted) -> None:
        """Say what was understood."""
        self.check()
        self._send(accepted)

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Say how far the work is; the time left follows from the pace so far.

        Raises
        ------
        CancelledError
            If the caller is gone: the stage must let this pass through.
        """
        self.check()
        now = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = (now, done)
        if done < total and now - self._last_sent < self.least_interval_s:
            return
        self._last_sent = now
        self._send(Progress(done, total, self._seconds_left(now, done, total), message))

    def waiting(self, message: str) -> None:
        """Say what the stage waits for; no measure of its pace.

        Raises
        ------
        CancelledError
            If the caller is gone.
        """
        self.check()
        self._send(Progress(0, 0, message=message))

    def gpu_held(self, held: GpuHeld) -> None:
        """Say which GPUs this process has taken."""
        self._send(held)

    def check(self) -> None:
        """Raise CancelledError if the caller is gone; cheap enough for every step of a loop."""
        if self._cancelled():
            raise CancelledError("the caller went away or asked to stop")

    def _seconds_left(self, now: float, done: int, total: int) -> float | None:
        if self._first is None or done <= self._first[1]:
            return None
        started, done_at_start = self._first
        return (now - started) / (done - done_at_start) * (total - done)


class SilentReporter(Reporter):
    """Tells nobody and is never cancelled."""

    def __init__(self) -> None:
        super().__init__(send=lambda event: None, cancelled=lambda: False)

"""Work in threads that ends when it is stopped.

Only the main thread hears of Ctrl-C and SIGTERM. It leaves `Threads` then, and everything that
works or waits in them learns of it here.

    with Threads() as threads:
        threads.begin(work)
        ended = threads.next_ended()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LOOK_S = 1.0
_LEAVE_S = 5.0
"""How long threads may take to leave once they are stopped; then they are left behind."""


class StoppedError(BaseException):
    """Work was stopped. No Exception, as it is nobody's failure."""


class _Stop:
    def __init__(self) -> None:
        self._is_set = threading.Event()
        self._acts: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            self._is_set.set()
            acts = list(self._acts)
        for act in acts:
            act()

    def wait(self, seconds: float) -> bool:
        return self._is_set.wait(seconds)

    @contextmanager
    def calling(self, act: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._acts.append(act)
            is_late = self._is_set.is_set()
        if is_late:
            act()
        try:
            yield
        finally:
            with self._lock:
                self._acts.remove(act)


_here: ContextVar[_Stop | None] = ContextVar("respan_stop", default=None)


def is_stopped() -> bool:
    """Whether the work that this thread is a part of was stopped."""
    stop = _here.get()
    return stop is not None and stop.wait(0)


def check_stopped() -> None:
    """Raise StoppedError if the work that this thread is a part of was stopped."""
    if is_stopped():
        raise StoppedError


def pause(seconds: float) -> None:
    """Wait; raises StoppedError as soon as the work is stopped."""
    stop = _here.get()
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        raise StoppedError


@contextmanager
def when_stopped(act: Callable[[], object]) -> Iterator[None]:
    """Have a function called, in another thread, if the work is stopped inside the block."""
    stop = _here.get()
    if stop is None:
        yield
        return
    with stop.calling(act):
        yield


@dataclass(frozen=True)
class Ended(Generic[R]):
    """What became of one thread's work."""

    number: int
    result: R | None = None
    error: BaseException | None = None

    def value(self) -> R:
        """The result; raises the error if there was one."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # without an error it is one


class Threads(Generic[R]):
    """Threads that work for one block of code; leaving it stops those that still go on."""

    def __init__(self) -> None:
        self._stop = _Stop()
        self._ended: SimpleQueue[Ended[R] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._heard = 0

    @property
    def running(self) -> int:
        """Threads whose end has not been told yet."""
        return len(self._threads) - self._heard

    def begin(self, work: Callable[[], R]) -> int:
        """Start a thread in the names and traces that hold here; gives its number."""
        number, context = len(self._threads), copy_context()

        def run() -> None:
            _here.set(self._stop)
            try:
                self._ended.put(Ended(number, work()))
            except BaseException as error:
                self._ended.put(Ended(number, error=error))

        # A daemon: one that does not listen must not keep the process from ending.
        thread = threading.Thread(target=context.run, args=(run,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return number

    def next_ended(self, timeout_s: float | None = None) -> Ended[R] | None:
        """The next one that ends; None if none does in time, or if `wake` was called."""
        try:
            ended = self._ended.get(timeout=timeout_s)
        except Empty:
            return None
        self._heard += ended is not None
        return ended

    def wake(self) -> None:
        """Have whoever waits in `next_ended` look up; for use in any thread."""
        self._ended.put(None)

    def __enter__(self) -> Threads[R]:
        self._outer = when_stopped(self._stop.set)
        self._outer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outer.__exit__(None, None, None)
        self._stop.set()
        end = time.monotonic() + _LEAVE_S
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))


def each(
    work: Callable[[T], R], items: Sequence[T], at_once: int
) -> Generator[tuple[int, R], None, None]:
    """Results of work on every item, with the item's index, in the order in which they come.

    What a work raises ends all others, and so does whoever closes the iterator.
    """
    if at_once == 1:  # in the main thread, where signals arrive
        for index, item in enumerate(items):
            yield index, work(item)
        return
    with Threads[R]() as threads:
        for item in items[:at_once]:
            threads.begin(partial(work, item))
        begun = min(at_once, len(items))
        while threads.running:
            # Not for ever: a signal that came to another thread is noticed between two looks.
            ended = threads.next_ended(_LOOK_S)
            if ended is None:
                continue
            value = ended.value()
            if begun < len(items):
                threads.begin(partial(work, items[begun]))
                begun += 1
            yield ended.number, value

"""One owner at a time, across processes: a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.2


@contextmanager
def exclusive(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path`.

    Waits for another holder and calls `check` meanwhile, which may raise to give up. The kernel
    frees the lock of a killed process, so there are no stale locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _taken(file.fileno()):
            check()
            time.sleep(_POLL_S)
        yield


@contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` if it is free; gives whether it is held. Never waits.

    Its folder must exist: what is done with is not brought back by asking for it.
    """
    with path.open("a") as file:
        yield _taken(file.fileno())


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Wait until something is so, and not a moment longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def becomes_true(condition: Callable[[], Any], within_s: float, every_s: float = 0.02) -> bool:
    """Whether a condition holds before the time is over."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def all_gone(pids: Iterable[int], within_s: float) -> bool:
    """Whether processes have ended before the time is over."""
    return becomes_true(lambda: all(map(is_gone, pids)), within_s)

"""Processes that end with the one that started them, and a crew of them for pieces of one job."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from respan_common.errors import CapacityError

logger = logging.getLogger(__name__)

Work = Callable[[str, int], None]
"""Does one numbered piece of a step, and leaves its result on disk."""

_POLL_S = 0.2

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def die_with_parent() -> None:
    """Have the kernel end this process when its parent dies, however that dies (Linux only)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        logger.debug("this system cannot tie this process's life to its parent's")


def give_memory_back() -> None:
    """Have this process return what it frees to the system at once (glibc only).

    Blocks come and go in many sizes; glibc would keep up to twice as much as is needed at a time.
    Measured: 0.38 instead of 0.71 GB per process, 8 % slower.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, 2**20)
        library.mallopt(_M_MMAP_THRESHOLD, 2**17)
        library.mallopt(_M_ARENA_MAX, 2)
    except (OSError, AttributeError):
        logger.debug("this system's memory allocator cannot be told to give memory back")


class Crew:
    """Workers for the pieces of one job: this process alone, or several that it starts.

    Parameters
    ----------
    prepare
        Called once in every worker with `site`; gives the function that does a step's piece. It is
        module-level, so that a new process finds it.
    site
        Picklable: all that a worker must know.
    size
        Processes; 1: the work is done here.
    """

    def __init__(self, prepare: Callable[[Any], Work], site: Any, size: int) -> None:
        self._prepare, self._site = prepare, site
        self._here: Work | None = None
        self._peaks_mb: dict[int, float] = {}
        self._pool: ProcessPoolExecutor | None = None
        if size > 1:
            self._pool = ProcessPoolExecutor(
                size,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(prepare, site),
            )

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        if error is not None:  # nobody waits for what is still running
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        _peak_of_crews.mb = max(_peak_of_crews.mb, sum(self._peaks_mb.values()))

    def done(self, step: str, pieces: Iterable[int], check: Callable[[], None]) -> Iterator[int]:
        """Do these pieces of a step, in any order; gives each number once it is finished.

        Parameters
        ----------
        check
            Called several times a second while others work; may raise to stop everything.

        Raises
        ------
        CapacityError
            If a process was killed, most likely for lack of memory.
        """
        if self._pool is None:
            if self._here is None:
                self._here = self._prepare(self._site)
            for piece in pieces:
                check()
                self._here(step, piece)
                yield piece
            return
        running = {self._pool.submit(_do, step, piece): piece for piece in pieces}
        while running:
            finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            check()
            for future in finished:
                try:
                    process, peak_mb = future.result()
                except BrokenProcessPool as error:
                    raise CapacityError(
                        "a process of this stage was killed, most likely for lack of memory: "
                        "give it fewer threads (RESPAN_THREADS) or more memory; finished blocks "
                        "are kept"
                    ) from error
                self._peaks_mb[process] = peak_mb
                yield running.pop(future)


_do_piece: Work | None = None


def _start(prepare: Callable[[Any], Work], site: Any) -> None:
    global _do_piece
    die_with_parent()
    with suppress(ValueError):  # Ctrl-C is the parent's to handle
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _do_piece = prepare(site)


def _do(step: str, piece: int) -> tuple[int, float]:
    assert _do_piece is not None
    _do_piece(step, piece)
    return os.getpid(), peak_rss_mb()


@dataclass
class _Peak:
    mb: float = 0.0


_peak_of_crews = _Peak()


def peak_rss_mb() -> float:
    """Most memory that this process and its crews held since `forget_peak_memory`.

    Each process counts with its own worst moment.
    """
    return _own_peak_mb() + _peak_of_crews.mb


def _own_peak_mb() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak_memory() -> None:
    """Start the measurement of `peak_rss_mb` anew."""
    _peak_of_crews.mb = 0.0
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        logger.debug("the peak memory is that of the whole process, not of one stage")

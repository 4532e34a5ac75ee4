"""Stages that behave well or badly on demand, to see what a server makes of it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from respan_common import errors
from respan_common.events import Accepted, Reporter, StageResult
from respan_common.gpu_lease import hold_gpu
from respan_common.settings import Runtime
from respan_common.worker import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to do; `word` is the behavior's own affair."""

    behavior: str
    word: str
    runtime: Runtime = field(default_factory=Runtime)


def run(job: Job, report: Reporter) -> StageResult:
    """Say who works, then behave."""
    logger.info("behaves: %s", job.behavior)
    report.accepted(Accepted((1, 2, 3), (0.3, 0.1, 0.1), str(os.getpid()), "cpu", 4, 1))
    return _BEHAVIORS[job.behavior](job, report)


def _work(job: Job, report: Reporter) -> StageResult:
    seconds = float(job.word or 0)
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        report.check()
        time.sleep(0.02)
    report.progress(1, 1, "done")
    return StageResult(("labels/classes",), {"spines": 3.0}, warnings=("look here",))


def _deaf(job: Job, report: Reporter) -> StageResult:
    ctypes.PyDLL(None).sleep(1000)  # keeps Python's own lock: no other thread runs either
    return StageResult()


def _spin(job: Job, report: Reporter) -> StageResult:
    while True:
        report.check()


def _talk(job: Job, report: Reporter) -> StageResult:
    while True:
        report.progress(1, 2, "x" * 10_000)
        report.accepted(Accepted())


def _raise(job: Job, report: Reporter) -> StageResult:
    raise getattr(errors, job.word)(f"{job.word}: said by the stage")


def _bug(job: Job, report: Reporter) -> StageResult:
    raise ValueError("a secret of the implementation")


def _die(job: Job, report: Reporter) -> StageResult:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _start_another(job: Job, report: Reporter) -> StageResult:
    child = subprocess.Popen(["sleep", "1000"], close_fds=False)
    report.progress(1, 2, str(child.pid))
    return _BEHAVIORS[job.word](job, report)


def _fork_and_die(job: Job, report: Reporter) -> StageResult:
    if os.fork() == 0:  # inherits the worker's end of the pipe, as a data loader does
        time.sleep(1000)
    return _die(job, report)


def _allocate(job: Job, report: Reporter) -> StageResult:
    return StageResult(numbers={"sum": float(np.ones(2**24).sum())})  # 128 MiB


def _gpu(job: Job, report: Reporter) -> StageResult:
    """Use a GPU for some seconds; the word is "<name of the service> <seconds>"."""
    name, _, seconds = job.word.partition(" ")
    hold_gpu(name, job.runtime, report)
    _fill_the_gpu()
    report.progress(0, 1, "computes")
    started = time.monotonic()
    while time.monotonic() - started < float(seconds):
        report.check()
        time.sleep(0.02)
    return StageResult()


def _on_the_processor(job: Job, report: Reporter) -> StageResult:
    hold_gpu("quantification", job.runtime, report)
    return StageResult()


_memory: list[int] = []


def _fill_the_gpu() -> None:
    """Take all memory of a GPU that is a file; like a real one's, it is free when the process is
    gone."""
    if not _memory:
        path = Path(os.environ["FAKE_GPU"])
        _memory.append(os.open(path, os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(_memory[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.CapacityError("CUDA out of memory") from error


def _run_out(job: Job, report: Reporter) -> StageResult:
    raise {
        "memory": MemoryError(),
        "disk": OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        "permission": PermissionError(errno.EACCES, "Permission denied", "/data/x"),
        "file": FileNotFoundError(errno.ENOENT, "No such file", "/data/x"),
    }[job.word]


_BEHAVIORS: dict[str, Callable[[Job, Reporter], StageResult]] = {
    "work": _work,
    "deaf": _deaf,
    "spin": _spin,
    "talk": _talk,
    "raise": _raise,
    "bug": _bug,
    "die": _die,
    "start another": _start_another,
    "fork and die": _fork_and_die,
    "allocate": _allocate,
    "run out": _run_out,
    "gpu": _gpu,
    "on the processor": _on_the_processor,
}
STAGE: Stage = run

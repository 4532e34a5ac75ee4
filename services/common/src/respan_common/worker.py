"""Run stages in a child process that can be stopped at any moment.

A stage may sit in a library call for minutes, hold gigabytes of a GPU, or be killed for memory.
None of that may take the server with it: the server stays light and answers health checks, while
the worker process does the work, one stage at a time, stays warm between stages with its models
loaded, and goes when it has been idle.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from respan_common import call_context, gpu_lease
from respan_common.errors import (
    BusyError,
    CancelledError,
    CapacityError,
    InputError,
    RespanError,
)
from respan_common.events import Accepted, Event, GpuHeld, Reporter, StageResult
from respan_common.logs import configure_logging
from respan_common.processes import die_with_parent, forget_peak_memory, peak_rss_mb
from respan_common.records import StageRecord

logger = logging.getLogger(__name__)

Stage = Callable[[Any, Reporter], StageRecord | StageResult]
"""Takes a picklable job and a line to the caller; module-level, so that a new process finds it."""

_POLL_S = 0.1
_WANTED_POLL_S = 0.5
"""How often an idle process that owns a GPU looks whether another one waits for it."""
_STOP_GRACE_S = 1.2
_START_TIMEOUT_S = 120.0


class WorkerLostError(RespanError):
    """The worker process died in the middle of a stage; its finished blocks are kept."""


@dataclass(frozen=True)
class _Task:
    stage: Stage
    job: Any
    about: dict[str, str] = field(default_factory=call_context.about)


@dataclass(frozen=True)
class _Bug:
    text: str


class StageWorker:
    """One child process, and the queue in front of it.

    Parameters
    ----------
    keep_alive_s
        How long an idle process stays.
    log_level, log_json
        How the process logs.
    queue_limit
        Stages that may wait while one runs.
    """

    def __init__(
        self,
        keep_alive_s: float = 300.0,
        log_level: str = "INFO",
        log_json: bool = False,
        queue_limit: int = 16,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._options = (keep_alive_s, log_level, log_json)
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self.starts = 0
        """Worker processes that were started."""
        self.losses = 0
        """Worker processes that died in the middle of a stage."""
        self._queue_limit = queue_limit
        self._gpu: GpuHeld | None = None
        self.lease_wait_total_s = 0.0
        """Time that stages of this service have waited for a GPU and then got it, in all."""
        self._process: SpawnProcess | None = None
        self._last: Accepted | None = None
        self._connection: Connection | None = None
        # A bare byte, not an Event: a worker that is killed while it asks an Event keeps its lock
        # for ever, and the server would wait for it.
        self._stop: Any = self._context.RawValue(ctypes.c_bool, False)

    @property
    def is_busy(self) -> bool:
        """Whether a stage runs."""
        return self._turn.locked()

    @property
    def queue_length(self) -> int:
        """Stages that wait for their turn."""
        return self._waiting

    @property
    def device(self) -> str:
        """Device of the last stage; empty before the first one."""
        return self._last.device if self._last else ""

    @property
    def pid(self) -> int | None:
        """The worker process; absent while there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    @property
    def loaded_models(self) -> list[str]:
        """Digests of the models that the process holds."""
        if not self._is_alive or self._last is None or not self._last.model_digest:
            return []
        return [self._last.model_digest]

    @property
    def holds_gpu(self) -> bool:
        """Whether the process has a GPU, or several, for itself."""
        return self._is_alive and self._gpu is not None

    @property
    def lease_wait_s(self) -> float:
        """How long the process waited for the GPU that it got last."""
        return self._gpu.waited_s if self._gpu else 0.0

    @property
    def _is_alive(self) -> bool:
        process = self._process
        return process is not None and process.is_alive()

    def run(self, stage: Stage, job: Any, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Events of one stage, ending with its StageResult.

        Raises
        ------
        BusyError
            If too many stages wait already, or others use the GPU for too long.
        CancelledError
            Within two seconds of `cancelled()` becoming true, whatever the stage is doing.
        WorkerLostError
            If the process died.
        RespanError
            What the stage raised.
        RuntimeError
            A bug in the stage, with its traceback.
        """
        with self._my_turn(cancelled):
            self._begin(_Task(stage, job), cancelled)
            finished = False
            try:
                for message in self._messages(cancelled):
                    if isinstance(message, RespanError):
                        finished = True
                        raise message
                    if isinstance(message, _Bug):
                        finished = True
                        raise RuntimeError(message.text)
                    if isinstance(message, GpuHeld):
                        self._gpu = message
                        self.lease_wait_total_s += message.waited_s
                        continue
                    if isinstance(message, Accepted):
                        self._last = message
                    finished = isinstance(message, StageResult)
                    yield message
            finally:
                if not finished:
                    self._interrupt()

    def close(self) -> None:
        """End the process, and those that it started."""
        process, self._process = self._process, None
        if process is not None and process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()

    @contextmanager
    def _my_turn(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        with self._counting:
            if (self.is_busy or self._waiting) and self._waiting >= self._queue_limit:
                raise BusyError(
                    f"one stage runs here and {self._waiting} wait for their turn already, as "
                    "many as may (RESPAN_QUEUE_LIMIT); try again later"
                )
            self._waiting += 1
        try:
            while not self._turn.acquire(timeout=_POLL_S):
                if cancelled():
                    raise CancelledError("the caller went away while it waited for its turn")
        finally:
            with self._counting:
                self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    def _begin(self, task: _Task, cancelled: Callable[[], bool]) -> None:
        self._stop.value = False
        for _ in range(2):  # an idle process may leave in the very moment that it gets a task
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._connection is not None
            try:
                self._connection.send(task)
                if self._is_taken(self._connection, cancelled):
                    return
            except (EOFError, OSError):
                logger.debug("the worker process left before it took its task")
            self.close()
        raise WorkerLostError("the worker process does not start; see the service's log")

    def _is_taken(self, connection: Connection, cancelled: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not connection.poll(_POLL_S):
            if cancelled():
                self.close()
                raise CancelledError("the caller went away while the worker started")
            if time.monotonic() > deadline:
                return False
        connection.recv()  # "taken"
        return True

    def _start(self) -> None:
        # Threads that wait must not spin: on a shared machine that costs ten times the work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._stop, *self._options), name="stage worker"
        )
        self._gpu = None
        self._process.start()
        self.starts += 1
        theirs.close()

    def _messages(self, cancelled: Callable[[], bool]) -> Iterator[Any]:
        assert self._connection is not None
        assert self._process is not None
        message: Any = None
        while not isinstance(message, (StageResult, RespanError, _Bug)):
            if cancelled():
                raise CancelledError("the caller went away or asked to stop")
            # Asked first: what the process said before it died is still heard. Its end of the pipe
            # may stay open in processes that it started, so that silence alone proves nothing.
            was_alive = self._process.is_alive()
            try:
                if self._connection.poll(_POLL_S):
                    message = self._connection.recv()
                elif was_alive:
                    continue
                else:
                    raise EOFError
            except (EOFError, OSError) as error:
                self.losses += 1
                raise WorkerLostError(self._obituary()) from error
            yield message

    def _interrupt(self) -> None:
        """Ask the stage to stop; end the process if it does not listen."""
        self._stop.value = True
        deadline = time.monotonic() + _STOP_GRACE_S
        while self._process is not None and self._process.is_alive():
            assert self._connection is not None
            try:
                if self._connection.poll(_POLL_S):
                    message = self._connection.recv()
                    if isinstance(message, (StageResult, RespanError, _Bug)):
                        return
            except (EOFError, OSError):
                break
            if time.monotonic() > deadline:
                break
        self.close()

    def _obituary(self) -> str:
        assert self._process is not None
        self._process.join(5)
        code = self._process.exitcode
        reason = "killed, most likely for lack of memory" if code == -signal.SIGKILL else "died"
        return f"the worker process was {reason} (exit code {code}); finished blocks are kept"


def _serve(
    connection: Connection, stop: Any, keep_alive_s: float, log_level: str, log_json: bool
) -> None:
    """Life of the worker process."""
    die_with_parent()
    # A group of its own: Ctrl-C is the server's to handle, and what a stage starts ends with it.
    os.setpgrp()
    configure_logging(log_level, log_json)
    while _has_work(connection, keep_alive_s):
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send("taken")
        call_context.concern(task.about)
        connection.send(_outcome(task, Reporter(connection.send, lambda: bool(stop.value))))


def _has_work(connection: Connection, keep_alive_s: float) -> bool:
    """Wait for a task; false when the process should end instead.

    That is when it has been idle for too long, or when others wait for its GPU. A task that comes
    in the very moment of its leaving is given to the next process.
    """
    if gpu_lease.is_wanted(after_turn=True):
        return False
    if not gpu_lease.holds_gpu():
        return connection.poll(keep_alive_s)
    end = time.monotonic() + keep_alive_s
    while (left := end - time.monotonic()) > 0:
        if connection.poll(min(_WANTED_POLL_S, left)):
            return True
        if gpu_lease.is_wanted():
            return False
    return connection.poll(0)


def _outcome(task: _Task, report: Reporter) -> StageResult | RespanError | _Bug:
    started = time.monotonic()
    forget_peak_memory()
    try:
        result = _as_result(task.stage(task.job, report), started)
    except BusyError as error:
        return BusyError(str(error), error.retry_after_s)
    except RespanError as error:
        return type(error)(str(error))
    except MemoryError:
        return CapacityError("not enough memory for this volume on this machine")
    except OSError as error:
        return _os_error(error)
    except BaseException:
        return _Bug(traceback.format_exc())
    return result


def _as_result(outcome: StageRecord | StageResult, started: float) -> StageResult:
    seconds = time.monotonic() - started
    if isinstance(outcome, StageResult):
        return StageResult(
            outcome.written,
            outcome.numbers,
            outcome.skipped,
            seconds,
            peak_rss_mb(),
            outcome.warnings,
        )
    return StageResult(
        written=tuple(outcome.outputs),
        numbers=dict(outcome.numbers),
        skipped=outcome.is_old,
        seconds=seconds,
        peak_rss_mb=peak_rss_mb(),
        warnings=tuple(outcome.warnings),
    )


def _os_error(error: OSError) -> RespanError | _Bug:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(f"the disk is full{where}: free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(
            f"not allowed to write or read{where}: make the folder writable for this user"
        )
    return _Bug(traceback.format_exc())

"""One process at a time uses a GPU: a file lock that dies with its holder.

Every process that is going to use a GPU takes the lock named after it, in a folder that all of them
share, before it touches CUDA, and keeps it for life: only the end of a process gives all of a GPU's
memory back. Whoever waits says so by a second lock. A holder that has nothing to do sees that, and
ends. The folder must be on a local disk, where the kernel knows every holder.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from respan_common.errors import BusyError, CapacityError
from respan_common.events import GpuHeld, Reporter
from respan_common.gpus import visible_gpus
from respan_common.settings import Runtime

_POLL_S = 0.2
_TELL_S = 5.0
_RETRY_AFTER_S = 15.0
_TURN_S = 120.0
"""A busy holder goes after its stage, too, if somebody waits and it has held for longer than this.
Its next stage pays for a new process: some ten seconds for loading libraries and models."""


@dataclass
class _Held:
    folder: Path
    files: dict[str, int] = field(default_factory=dict)
    """Descriptor of the lock by GPU. Never closed: the kernel does it."""
    since: float = field(default_factory=time.monotonic)


_held: _Held | None = None


def hold_gpu(service: str, runtime: Runtime, report: Reporter, *, most: int | None = 1) -> None:
    """Have this process own the GPU that it is going to use, from now on to its end.

    Waits while others use it, and tells the caller so. Nothing is taken where nothing is shared or
    used: without a lease folder, on processors, without a GPU. A process holds what it took first.
    Stages call this before they take any other lock: two that wait for each other would be stuck.

    Parameters
    ----------
    service
        Who asks; others that wait are told.
    most
        How many GPUs to take of those that are free; None: all of them. At least one.

    Raises
    ------
    BusyError
        If no GPU became free in the runtime's `gpu_wait_s`.
    CancelledError
        If the caller went away meanwhile.
    CapacityError
        If the folder cannot be used.
    """
    global _held
    if runtime.gpu_lease_folder is None or runtime.device == "cpu" or _held is not None:
        return
    gpus = visible_gpus()
    if not gpus:
        return
    started = time.monotonic()
    held = _Held(runtime.gpu_lease_folder)
    try:
        _make(held.folder)
        if not _take(held, gpus, most):
            _wait(held, gpus, most, runtime.gpu_wait_s, report)
        _sign(held, service)
    except OSError as error:
        for descriptor in held.files.values():
            os.close(descriptor)
        raise CapacityError(
            f"the folder of GPU leases, {held.folder}, cannot be used ({error}): make it writable "
            "for this user, or name another one in RESPAN_GPU_LEASE_FOLDER"
        ) from error
    _held = held
    if len(held.files) < len(gpus) or "CUDA_VISIBLE_DEVICES" in os.environ:
        # By name: CUDA's numbers are not nvidia-smi's where the cards differ.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held.files)
    report.gpu_held(GpuHeld(tuple(held.files), time.monotonic() - started))


def holds_gpu() -> bool:
    """Whether this process owns a GPU."""
    return _held is not None


def is_wanted(*, after_turn: bool = False) -> bool:
    """Whether somebody waits for a GPU of this process (and it has had a fair turn, if asked)."""
    if _held is None or (after_turn and time.monotonic() - _held.since < _TURN_S):
        return False
    return any(_is_locked(_wish(_held.folder, gpu)) for gpu in _held.files)


def _wait(
    held: _Held, gpus: Sequence[str], most: int | None, wait_s: float, report: Reporter
) -> None:
    started, told = time.monotonic(), float("-inf")
    with _wishing(held.folder, gpus):
        while not _take(held, gpus, most):
            now = time.monotonic()
            if now - started >= wait_s:
                raise BusyError(
                    f"the GPU is in use: held by {_holders(held.folder, gpus)}. Waited "
                    f"{wait_s:g} s for it (RESPAN_GPU_WAIT_S); try again later",
                    _RETRY_AFTER_S,
                )
            if now - told >= _TELL_S:
                report.waiting(f"waits for the GPU, held by {_holders(held.folder, gpus)}")
                told = now
            report.check()
            time.sleep(_POLL_S)


def _take(held: _Held, gpus: Sequence[str], most: int | None) -> bool:
    """Take free ones, never waiting for one while holding another: nobody can be stuck."""
    for gpu in gpus:
        if most is not None and len(held.files) >= most:
            break
        descriptor = _opened(held.folder / gpu)
        if _locked(descriptor, fcntl.LOCK_EX):
            held.files[gpu] = descriptor
        else:
            os.close(descriptor)
    return bool(held.files)


def _sign(held: _Held, service: str) -> None:
    """Say who holds, for people: the lock alone decides."""
    name = {
        "service": service,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.time(),
    }
    for descriptor in held.files.values():
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(name).encode(), 0)


def _holders(folder: Path, gpus: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(_holder(folder / gpu) for gpu in gpus))


def _holder(path: Path) -> str:
    try:
        name = json.loads(path.read_text())
        since = time.strftime("%H:%M:%S UTC", time.gmtime(name["since"]))
        return f"{name['service']} since {since} (process {name['pid']} on {name['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not said its name"


@contextmanager
def _wishing(folder: Path, gpus: Sequence[str]) -> Iterator[None]:
    """Let the holders of GPUs see that somebody waits; the wish dies with this process."""
    with ExitStack() as stack:
        for gpu in gpus:
            descriptor = _opened(_wish(folder, gpu))
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # a holder that looks is done in no time
        yield


def _wish(folder: Path, gpu: str) -> Path:
    return folder / f"{gpu}.wanted"


def _is_locked(path: Path) -> bool:
    with suppress(OSError):
        descriptor = _opened(path)
        try:
            return not _locked(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
    return False


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # another service made it
            folder.chmod(0o1777)


def _opened(path: Path) -> int:
    """Descriptor of a file that services of every user may lock and write."""
    # Never O_CREAT on a file that is there: in a folder that all may write to, the kernel refuses
    # that to anybody but the file's owner (fs.protected_regular).
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        with suppress(FileNotFoundError, FileExistsError):
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
            if flags & os.O_CREAT:
                os.fchmod(descriptor, 0o666)  # whatever the umask says
            return descriptor
    raise FileNotFoundError(path)

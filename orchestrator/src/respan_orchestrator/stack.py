"""The local stack: services, Prefect's server and page, and a worker, kept running on this machine.

`respan up` starts it, `respan down` stops it, and `respan run` uses it when it is there. Which
processes it consists of stands in a state file, so that any later command finds them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from respan_common.errors import CapacityError, InputError
from respan_common.health import is_serving
from respan_common.records import write_text_durably
from respan_orchestrator.settings import SERVICES, OrchestratorSettings

_PREFECT_PORT = 4200
_FIRST_SERVICE_PORT = 50051
_KEEP_RUNS_DAYS = 90
_START_TIMEOUT_S = 300.0  # Prefect's server makes its database first, on a slow disk in minutes
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class StackProcess:
    """One process of the stack."""

    name: str
    pid: int
    address: str
    """host:port, a URL, or empty for the worker, which listens to nobody."""

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"respan_" in command or b"prefect" in command

    @property
    def answers(self) -> bool:
        """Whether it is alive and healthy."""
        return self.is_alive and _is_healthy(self)


def state_folder() -> Path:
    """Where the state file and the logs lie."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("RESPAN_STATE_FOLDER") or Path(base) / "respan")


def processes() -> list[StackProcess]:
    """Processes of the stack as they were started; empty if it is down."""
    try:
        content = json.loads((state_folder() / "stack.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [StackProcess(**process) for process in content]


def start(data_roots: Sequence[Path], device: str) -> list[StackProcess]:
    """Start the stack and wait until all of it answers.

    Parameters
    ----------
    data_roots
        Folders with experiments that the services may open.
    device
        auto, cpu or cuda.

    Raises
    ------
    InputError
        If it is up already.
    CapacityError
        If a process does not come up; the others are stopped again.
    """
    if any(process.is_alive for process in processes()):
        raise InputError("the stack is up already; `respan status` shows it, `respan down` ends it")
    missing = [str(root) for root in data_roots if not root.is_dir()]
    if missing:
        raise InputError(f"not a folder: {', '.join(missing)}")
    started: list[StackProcess] = []

    def keep(process: StackProcess) -> None:
        started.append(process)
        _record(started)

    for number, service in enumerate(SERVICES):
        keep(_start_service(service, _FIRST_SERVICE_PORT + number, data_roots, device))
    keep(_start_prefect())
    try:
        _wait_for(started)
    except CapacityError:
        stop()
        raise
    keep(_start_worker(started))
    return started


def _record(started: Sequence[StackProcess]) -> None:
    content = json.dumps([asdict(process) for process in started])
    write_text_durably(state_folder() / "stack.json", content)


def stop() -> list[StackProcess]:
    """Stop the stack, the worker first and Prefect's server after it; returns what was stopped."""
    alive = [process for process in reversed(processes()) if process.is_alive]
    for process in alive:
        _end(process)
    (state_folder() / "stack.json").unlink(missing_ok=True)
    return alive


def environment() -> dict[str, str]:
    """What makes this process use the stack: addresses of what answers; empty if it is down."""
    found = {}
    for process in processes():
        if process.name == "prefect" and process.answers:
            found["PREFECT_API_URL"] = f"{process.address}/api"
        elif process.name in SERVICES and process.answers:
            found[f"RESPAN_{process.name.upper()}_ADDRESS"] = process.address
    return found


def _start_service(
    service: str, port: int, data_roots: Sequence[Path], device: str
) -> StackProcess:
    models = OrchestratorSettings().model_roots
    variables = {
        "RESPAN_PORT": str(port),
        "RESPAN_METRICS_PORT": str(_metrics_port(service)),
        "RESPAN_DEVICE": device,
        "RESPAN_DATA_ROOTS": os.pathsep.join(str(path.resolve()) for path in data_roots),
        "RESPAN_MODEL_ROOTS": os.pathsep.join(str(path.resolve()) for path in models),
    }
    pid = _spawn(service, ["-m", f"respan_{service}"], variables)
    return StackProcess(service, pid, f"127.0.0.1:{port}")


def _metrics_port(service: str) -> int:
    """RESPAN_METRICS_PORT is the first service's; each further one has the next."""
    first = int(os.environ.get("RESPAN_METRICS_PORT") or 0)
    return first + SERVICES.index(service) if first else 0


def _start_prefect() -> StackProcess:
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    days = os.environ.get("RESPAN_KEEP_RUNS_DAYS") or _KEEP_RUNS_DAYS
    variables = {
        # Runs that ended long ago go, with their logs.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"P{days}D",
    }
    pid = _spawn("prefect", [*command, "--port", str(_PREFECT_PORT)], variables)
    return StackProcess("prefect", pid, f"http://127.0.0.1:{_PREFECT_PORT}")


def _start_worker(started: Sequence[StackProcess]) -> StackProcess:
    variables = {
        "PREFECT_API_URL": f"http://127.0.0.1:{_PREFECT_PORT}/api",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",  # else a run may wait ten seconds to be noticed
    }
    for process in started:
        if process.name in SERVICES:
            variables[f"RESPAN_{process.name.upper()}_ADDRESS"] = process.address
    pid = _spawn("worker", ["-m", "respan_orchestrator.deployments"], variables)
    return StackProcess("worker", pid, "")


def _spawn(name: str, arguments: list[str], variables: dict[str, str]) -> int:
    logs = state_folder() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | variables,
            start_new_session=True,  # outlives this command and its terminal
        )
    return process.pid


def _wait_for(started: Sequence[StackProcess]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    waiting = list(started)
    while waiting:
        waiting = [process for process in waiting if not process.answers]
        dead = [process.name for process in waiting if not process.is_alive]
        late = [process.name for process in waiting] if time.monotonic() > deadline else []
        if dead or late:
            raise CapacityError(_failed_start(dead, late))
        time.sleep(0.3)


def _failed_start(dead: Sequence[str], late: Sequence[str]) -> str:
    """What to tell when processes ended at once, or did not answer for long."""
    why = "ended at once (is a port taken?)" if dead else f"not ready in {_START_TIMEOUT_S:.0f} s"
    names = dead or late
    logs = state_folder() / "logs"
    said = [
        f"{name} said: {words}" for name in names if (words := _last_words(logs / f"{name}.log"))
    ]
    return f"{', '.join(names)} did not come up: {'; '.join([why, *said, f'logs in {logs}'])}"


def _last_words(log: Path) -> str:
    """The log's last three lines as one: Prefect breaks its sentences."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return " ".join([line.strip() for line in lines if line.strip()][-3:])


def _is_healthy(process: StackProcess) -> bool:
    checks: dict[bool, Callable[[str], bool]] = {True: is_serving, False: _serves_http}
    return not process.address or checks[process.name in SERVICES](process.address)


def _serves_http(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: StackProcess) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    _signal(process, signal.SIGTERM)
    while process.is_alive and time.monotonic() < deadline:
        time.sleep(0.1)
    if process.is_alive:
        _signal(process, signal.SIGKILL)


def _signal(process: StackProcess, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
        if number is signal.SIGTERM:
            os.waitpid(process.pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass

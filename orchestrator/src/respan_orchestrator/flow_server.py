"""A server of Prefect's API for one run, on this machine and for nobody else.

Prefect starts one by itself where it finds none. That one outlives a run that is killed, gives up
on a busy machine, and writes to the terminal; so a run brings its own, which does none of that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from respan_common.errors import CapacityError
from respan_common.locks import exclusive

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 5.0
_APP = "prefect.server.api.server:create_app"
_ENVIRONMENT = {
    # Neither page nor schedules: only what a run needs.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Several runs share one SQLite file, and wait for one another.
    "PREFECT_API_DATABASE_TIMEOUT": "60",
    "PREFECT_API_DATABASE_CONNECTION_TIMEOUT": "60",
}


_private_url = ""


def is_private(url: str | None) -> bool:
    """Whether the server with this address is this process's own, which nobody else uses."""
    return bool(url) and url == _private_url


@contextmanager
def flow_server() -> Iterator[None]:
    """Prefect's API while a flow runs; the environment's own server, if it names one, is used.

    Prefect reads its settings when it is first imported: import flows inside only.

    Raises
    ------
    CapacityError
        If the server does not come up.
    """
    global _private_url
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with tempfile.TemporaryFile() as log, socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        with exclusive(_lock(), lambda: None):  # only one at a time may make the database
            child = _start(listener, log)
            try:
                _wait_for(url, child, log)
            except BaseException:
                _stop(child)
                raise
        os.environ["PREFECT_API_URL"] = _private_url = url
        try:
            yield
        finally:
            _private_url = ""
            del os.environ["PREFECT_API_URL"]
            _stop(child)


def main() -> None:
    """Serve on the socket of the given number until standard input ends."""
    import uvicorn

    config = uvicorn.Config(_APP, factory=True, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)

    def leave() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_STOP_TIMEOUT_S)
        os._exit(0)  # nobody is there to care

    threading.Thread(target=leave, daemon=True).start()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        server.run(sockets=[listener])


def _start(listener: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "respan_orchestrator.flow_server", str(listener.fileno())],
        stdin=subprocess.PIPE,  # its end is the server's end: it never outlives this process
        stdout=log,
        stderr=log,
        pass_fds=[listener.fileno()],
        env=os.environ | _ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is this process's to handle
    )


def _wait_for(url: str, child: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _is_healthy(f"{url}/health"):
        if child.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            raise CapacityError(
                "Prefect's server does not start; the end of its log:\n" + "\n".join(lines[-15:])
            )
        time.sleep(0.1)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _lock() -> Path:
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    return home.expanduser() / "respan.lock"


if __name__ == "__main__":
    main()

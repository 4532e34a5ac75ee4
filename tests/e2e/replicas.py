"""Stage services as processes, several of a kind, as many machines would run them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.command_line import becomes_true


@dataclass(frozen=True)
class RunningService:
    """One process of a service."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def calls(self, method: str) -> int:
        """Calls of a method that have ended well, as its metrics say."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10
        ) as answer:
            lines = answer.read().decode().splitlines()
        counted = [line for line in lines if line.startswith("respan_requests_total{")]
        ended = [line for line in counted if f'/{method}"' in line or f'"{method}"' in line]
        return sum(int(float(line.split()[-1])) for line in ended if 'status="OK"' in line)


def address_of(services: Sequence[RunningService]) -> str:
    """All of them, as the orchestrator's settings take them."""
    return ",".join(service.address for service in services)


@contextmanager
def running_services(
    service: str, count: int, folder: Path, roots: Sequence[Path], **settings: str
) -> Iterator[list[RunningService]]:
    """So many processes of one service; their logs and port files go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield [
            stack.enter_context(_running(service, folder / f"{service}{number}", roots, settings))
            for number in range(count)
        ]


@contextmanager
def _running(
    service: str, stem: Path, roots: Sequence[Path], settings: dict[str, str]
) -> Iterator[RunningService]:
    port_file, log = stem.with_suffix(".port"), stem.with_suffix(".log")
    port_file.unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    environment = {
        "RESPAN_PORT": "0",
        "RESPAN_METRICS_PORT": str(metrics_port),
        "RESPAN_PORT_FILE": str(port_file),
        "RESPAN_DATA_ROOTS": os.pathsep.join(map(str, roots)),
        "RESPAN_DEVICE": "cpu",
        "RESPAN_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", f"respan_{service}"],
            env=os.environ | environment,
            stdout=lines,
            stderr=lines,
        )
    try:
        assert becomes_true(lambda: port_file.exists() or process.poll() is not None, 90)
        assert process.poll() is None, log.read_text()
        yield RunningService(process, int(port_file.read_text()), metrics_port)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

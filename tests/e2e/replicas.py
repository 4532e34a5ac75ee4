"""Stage services, several of a kind, as many machines would run them."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stage_services import StageService, stage_service


@dataclass(frozen=True)
class RunningService(StageService):
    """One process of a service, with its metrics."""

    metrics_port: int

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
    told = {"RESPAN_DATA_ROOTS": os.pathsep.join(map(str, roots)), **settings}
    with ExitStack() as stack:
        yield [
            stack.enter_context(_running(service, folder / f"{service}{number}", told))
            for number in range(count)
        ]


@contextmanager
def _running(service: str, stem: Path, settings: dict[str, str]) -> Iterator[RunningService]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with stage_service(service, stem, RESPAN_METRICS_PORT=str(port), **settings) as running:
        yield RunningService(running.process, running.port, port)

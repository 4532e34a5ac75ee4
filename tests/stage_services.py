"""Stage services as processes of their own, as `python -m` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from tests.waiting import becomes_true

_ON_ONE_THREAD = {"RESPAN_DEVICE": "cpu", "RESPAN_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class StageService:
    """A service that runs."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def stage_service(service: str, stem: Path, **settings: str) -> Iterator[StageService]:
    """A service on the processor; its port and its log are files that begin with `stem`."""
    port_file, log = stem.with_suffix(".port"), stem.with_suffix(".log")
    port_file.unlink(missing_ok=True)
    own = {"RESPAN_PORT": "0", "RESPAN_PORT_FILE": str(port_file)}
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", f"respan_{service}"],
            env=os.environ | _ON_ONE_THREAD | own | settings,
            stdout=lines,
            stderr=lines,
        )
    try:
        assert becomes_true(lambda: port_file.exists() or process.poll() is not None, 90)
        assert process.poll() is None, log.read_text()
        yield StageService(process, int(port_file.read_text()))
    finally:
        _stop(process)


@contextmanager
def stage_channel(service: str, root: Path, name: str = "") -> Iterator[grpc.Channel]:
    """A connection to a service with its data in `root` and its models in `root/models`.

    It must end in order. Several of a kind have names.
    """
    settings = {"RESPAN_DATA_ROOTS": str(root), "RESPAN_MODEL_ROOTS": str(root / "models")}
    with stage_service(service, root / (name or service), **settings) as running:
        with grpc.insecure_channel(running.address) as connection:
            yield connection
        assert _stop(running.process) == 0


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

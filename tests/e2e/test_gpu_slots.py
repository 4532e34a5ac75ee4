"""Prefect's limit on the GPU, with a real server, a real worker, and runs that are killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.flow.fake_services import FakeServices, served
from tests.waiting import becomes_true

USER = Path(__file__).with_name("gpu_slot_user.py")

pytestmark = pytest.mark.slow


@contextmanager
def running(*arguments: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str], words: str) -> bool:
    return any(words in line for line in process.stdout)


@pytest.fixture
def prefect(tmp_path) -> Iterator[dict[str, str]]:
    """Environment with a Prefect server that stays up, and a service that has a GPU."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    fake = FakeServices()
    fake.device = "cuda"
    own = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "NO_COLOR": "1",
    }
    arguments = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    with (
        served(fake) as address,
        open(os.devnull, "w") as nowhere,
        subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | own, stdout=nowhere, stderr=nowhere
        ) as server,
    ):
        try:
            assert becomes_true(lambda: answer(own, "health") is not None, 180)
            yield own | {"RESPAN_SEGMENTATION_ADDRESS": address}
        finally:
            server.terminate()
            server.wait(30)


def answer(environment: dict[str, str], path: str) -> object:
    """What the server answers; None if it does not, or knows nothing by that name."""
    try:
        found = httpx.get(f"{environment['PREFECT_API_URL']}/{path}", timeout=5)
    except httpx.HTTPError:
        return None
    return found.json() if found.status_code == 200 else None


def slots(environment: dict[str, str]) -> tuple[int, int] | None:
    """Slots that are taken, and all there are; None without a limit."""
    limit = answer(environment, "v2/concurrency_limits/gpu")
    return (limit["active_slots"], limit["limit"]) if isinstance(limit, dict) else None


def test_a_killed_run_gives_its_slot_back_and_the_next_one_waits_for_that(prefect):
    worker = ("-m", "respan_orchestrator.deployments")
    with running(*worker, environment=prefect | {"RESPAN_GPU_SLOTS": "1"}):
        assert becomes_true(lambda: slots(prefect) == (0, 1), 120)
    with running(str(USER), "1000", environment=prefect) as first:
        assert heard(first, "has the GPU")
        assert slots(prefect) == (1, 1)
    assert slots(prefect) == (1, 1), "nobody has given it back"
    with running(str(USER), "0", environment=prefect) as second:
        assert heard(second, "has the GPU")
        assert second.wait(60) == 0
    assert slots(prefect) == (0, 1)

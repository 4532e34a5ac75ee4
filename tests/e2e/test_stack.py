"""The local stack: up, used by a run and by Prefect's own interface, and down without a trace."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.command_line import CommandLine, all_gone, descendants

PORTS = (4200, *range(50051, 50055))

pytestmark = pytest.mark.slow


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
def respan(private, tmp_path) -> Iterator[CommandLine]:
    """`respan` whose stack is down in the end, whatever happened."""
    taken = [port for port in PORTS if not is_free(port)]
    if taken:
        pytest.skip(f"ports {taken} are taken by others")
    command = CommandLine(private | {"RESPAN_STATE_FOLDER": str(tmp_path / "state")})
    yield command
    command("down")


def test_the_stack_serves_runs_and_leaves_nothing(respan, model, make_experiment, tmp_path):
    experiment = make_experiment(tmp_path / "MyExperiment")
    up = respan("up", "--data", tmp_path)
    pids = {process["pid"] for process in up.content["processes"]}
    assert respan("status").content["status"] == "up"
    assert respan("up", "--data", tmp_path).code == 2

    own_model = Path(shutil.copytree(model, tmp_path / "model"))  # under --data
    with respan.running("run", experiment, "--model", own_model) as run:
        own = descendants(run.pid)
        stdout, _ = run.communicate(timeout=120)
    assert {image["status"] for image in json.loads(stdout)["images"]} == {"done"}
    assert not own

    request = {"experiment": str(experiment), "model": str(own_model), "only": ["cell1"]}
    ordered = order(respan, request | {"restart_from": "quantification"})
    assert "Completed" in ordered
    assert limits() == ["gpu"]

    pids |= {child for pid in pids for child in descendants(pid)}
    assert len(respan("down").content["stopped"]) == 6
    assert all_gone(pids, 10)
    assert all(map(is_free, PORTS))
    assert respan("status").content["status"] == "down"


def limits() -> list[str]:
    """Names of the concurrency limits of Prefect's server."""
    url = "http://127.0.0.1:4200/api/v2/concurrency_limits/filter"
    return [limit["name"] for limit in httpx.post(url, json={}, timeout=30).json()]


def order(respan: CommandLine, request: dict[str, object]) -> str:
    """Have Prefect's worker do an analysis, as its page does."""
    prefect = Path(sys.executable).with_name("prefect")
    parameter = f"request={json.dumps(request)}"
    done = subprocess.run(
        [prefect, "deployment", "run", "analyze/analyze", "--param", parameter, "--watch"],
        env=os.environ | respan.environment | {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done.stdout + done.stderr

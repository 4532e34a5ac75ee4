"""The local stack: up, used by a run and by Prefect's own interface, and down without a trace."""

from __future__ import annotations

import importlib.metadata
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
from tests.e2e.command_line import CommandLine, descendants
from tests.waiting import all_gone

from respan_common import __version__
from respan_orchestrator.settings import SERVICES

PORTS = (4200, *range(50051, 50055))
LOGIN = "respan:open-sesame"
"""Prefect's page and API ask for it; everything of ours must show it."""

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
    mine = {
        "RESPAN_STATE_FOLDER": str(tmp_path / "state"),
        "RESPAN_TOKEN": "open-sesame",
        "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
        "PREFECT_API_AUTH_STRING": LOGIN,
    }
    command = CommandLine(private | mine)
    yield command
    command("down")


def test_the_stack_serves_runs_and_leaves_nothing(respan, model, make_experiment, tmp_path):
    experiment = make_experiment(tmp_path / "MyExperiment")
    up = respan("up", "--data", tmp_path)
    assert up.code == 0, up.content
    pids = {process["pid"] for process in up.content["processes"]}
    check_status(respan)
    check_doctor(respan)
    check_strangers(respan)
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


def test_a_stack_that_cannot_come_up_says_why_and_leaves_nothing(respan, tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", PORTS[0]))
        taken.listen()
        up = respan("up", "--data", tmp_path)
    assert up.code == 2
    assert "prefect did not come up: ended at once" in up.content["error"]
    assert "4200" in up.content["error"]  # what Prefect said of it
    assert all(map(is_free, PORTS))
    assert respan("status").content["status"] == "down"


def check_status(respan: CommandLine) -> None:
    """All is up, and says what it is and does."""
    status = respan("status").content
    assert status["status"] == "up"
    details = {state["name"]: state for state in status["details"]}
    assert details["prefect"]["version"] == importlib.metadata.version("prefect")
    assert details["segmentation"]["version"] == __version__
    assert details["segmentation"]["device"]
    assert (details["segmentation"]["busy"], details["segmentation"]["queue_length"]) == (False, 0)


def check_doctor(respan: CommandLine) -> None:
    """Nothing of the stack is amiss, and no secret is shown."""
    doctor = respan("doctor")
    states = {finding["subject"]: finding["state"] for finding in doctor.content["findings"]}
    assert {states[f"Service {name}"] for name in SERVICES} == {states["Prefect"]} == {"ok"}
    assert "sesame" not in json.dumps(doctor.content) + doctor.stderr


def check_strangers(respan: CommandLine) -> None:
    """Who does not know the token and the password is told so."""
    assert httpx.get("http://127.0.0.1:4200/api/admin/version", timeout=30).status_code == 401
    stranger = CommandLine(
        respan.environment | {"RESPAN_TOKEN": "mine", "PREFECT_API_AUTH_STRING": ""}
    )
    refused = stranger("doctor")
    problems = {f["subject"] for f in refused.content["findings"] if f["state"] == "problem"}
    assert (refused.code, problems) == (2, {"Prefect", *(f"Service {name}" for name in SERVICES)})


def limits() -> list[str]:
    """Names of the concurrency limits of Prefect's server."""
    login = httpx.BasicAuth(*LOGIN.split(":"))
    url = "http://127.0.0.1:4200/api/v2/concurrency_limits/filter"
    return [limit["name"] for limit in httpx.post(url, json={}, timeout=30, auth=login).json()]


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

"""What Prefect's server keeps in order: runs whose process is gone, and runs of long ago."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.e2e.command_line import descendants
from tests.flow.fake_services import FakeServices, served
from tests.waiting import becomes_true

ROOT = Path(__file__).parents[2]
HEARTBEAT_S, LOST_AFTER_S = 30, 45
"""Prefect takes no shorter heartbeats."""
STAGES = {"ingest", "segmentation", "quantification", "export"}

pytestmark = pytest.mark.slow


class Prefect:
    """A server of Prefect's, as its API shows it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def post(self, path: str, lines: list[Any] | None = None, **content: Any) -> Any:
        """Answer to a request."""
        answer = self._asked("POST", path, content if lines is None else lines)
        return answer.json() if answer.content else None

    def change(self, path: str, **content: Any) -> None:
        """Change something."""
        self._asked("PATCH", path, content)

    def runs(self) -> dict[str, str]:
        """State of every run, by the run's id."""
        return {run["id"]: run["state"]["name"] for run in self._runs()}

    def states(self) -> dict[str, str]:
        """State of every run, by the run's name."""
        return {run["name"]: run["state"]["name"] for run in self._runs()}

    def _runs(self) -> list[dict[str, Any]]:
        """All runs but those caught while Prefect clears them away: their states go first."""
        return [run for run in self.post("/flow_runs/filter") if run["state"] is not None]

    def automations(self) -> list[dict[str, Any]]:
        """All automations."""
        return list(self.post("/automations/filter"))

    def slots_taken(self) -> int:
        """Slots that are taken of all limits together."""
        limits = self.post("/v2/concurrency_limits/filter")
        return sum(limit["active_slots"] for limit in limits)

    def deployment(self, name: str) -> dict[str, Any]:
        """A flow that is on offer."""
        return dict(self._asked("GET", f"/deployments/name/{name}/{name}").json())

    def _asked(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """Answer, asked for anew while SQLite is busy (503), as Prefect's own clients do."""
        for _ in range(6):
            answer = self._client.request(method, path, json=content)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer

    def is_healthy(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/health").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """What the server of `compose.yaml` is told, but for its database and its pace."""
    shipped = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prefect"]
    told = {
        name: value.replace("${RESPAN_KEEP_RUNS_DAYS:-90}", "90")
        for name, value in shipped["environment"].items()
        if "VACUUM" in name or "ANALYTICS" in name
    }
    return told | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "5",
    }


@pytest.fixture(scope="module")
def prefect(environment) -> Iterator[Prefect]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _started(["-m", *command], environment):
        server = Prefect(f"http://127.0.0.1:{port}/api")
        assert becomes_true(server.is_healthy, 120)
        yield server
        server.close()


@contextmanager
def _started(
    arguments: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    log = Path(environment["PREFECT_HOME"]) / f"{arguments[1]}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill(process.pid)
        process.wait()


def kill(pid: int) -> None:
    """End a process and all that it started, at once."""
    for one in (*descendants(pid), pid):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


class SlowServices(FakeServices):
    """Segmentation takes until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def Segment(self, request: Any, context: Any) -> Iterator[Any]:
        while not self.released.wait(0.2) and context.is_active():
            pass
        yield from super().Segment(request, context)


@pytest.fixture
def worker(prefect, environment, model, private):
    """Starts workers, whose services are slow, and says what they need to know."""
    services = SlowServices()
    with served(services) as address:
        variables = private | environment
        variables |= {f"RESPAN_{n}_ADDRESS": address for n in ("SEGMENTATION", "QUANTIFICATION")}
        variables |= {
            "PREFECT_API_URL": prefect.url,
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            "RESPAN_LOG_JSON": "true",
            "RESPAN_LOST_AFTER_S": str(LOST_AFTER_S),
            "RESPAN_MODEL_ROOTS": str(model.parent),
        }
        module = "respan_orchestrator.deployments"
        log = Path(environment["PREFECT_HOME"]) / f"{module}.log"
        yield services, lambda: _started(["-m", module], variables), log
        services.released.set()


def on_offer(prefect: Prefect) -> bool:
    try:
        return prefect.deployment("analyze")["status"] == "READY"
    except httpx.HTTPStatusError:
        return False


@pytest.mark.timeout(900)
def test_a_run_whose_process_is_gone_becomes_crashed_and_makes_room(
    prefect, worker, make_experiment, tmp_path
):
    services, start, log = worker
    request = {"experiment": str(make_experiment(tmp_path / "MyExperiment")), "only": ["cell1"]}

    def order() -> str:
        analyze = prefect.deployment("analyze")["id"]
        path = f"/deployments/{analyze}/create_flow_run"
        return str(prefect.post(path, parameters={"request": request})["id"])

    with start() as process:
        assert becomes_true(lambda: on_offer(prefect), 120)
        prefect.change(f"/deployments/{prefect.deployment('analyze')['id']}", concurrency_limit=1)
        lost = order()
        assert becomes_true(lambda: list(prefect.states().values()) == ["Running"] * 2, 120)
        assert prefect.slots_taken() == 1
        time.sleep(LOST_AFTER_S + 15)
        assert prefect.runs()[lost] == "Running", "a run that lives was ended"
        kill(process.pid)
    assert becomes_true(lambda: "Running" not in prefect.states().values(), 3 * LOST_AFTER_S)
    assert prefect.runs()[lost] == "Crashed"
    assert prefect.slots_taken() == 0
    with start():
        services.released.set()
        next_one = order()
        assert becomes_true(lambda: prefect.runs()[next_one] == "Completed", 120)
    assert len(prefect.automations()) == 1, "a second worker made a second one"
    stages = [line for line in json_lines(log) if line["logger"] == "respan_orchestrator.watching"]
    assert {line["stage"] for line in stages if line["run"] == next_one} == STAGES
    assert {line["image"] for line in stages} == {"cell1"}


def json_lines(log: Path) -> list[dict[str, Any]]:
    """Lines of the worker and of the runs that it started, all of which are JSON."""
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_old_runs_and_their_logs_go_and_young_ones_stay(prefect, environment):
    flow = prefect.post("/flows/", name="kept")["id"]
    ended = {days: finished_run(prefect, flow, f"{days} days ago") for days in (1, 80, 100)}
    with sqlite3.connect(Path(environment["PREFECT_HOME"]) / "prefect.db", timeout=30) as database:
        for days in ended:  # no request can say so
            age, name = f"-{days} days", f"{days} days ago"
            database.execute(
                "UPDATE flow_run SET end_time = datetime('now', ?) WHERE name = ?", (age, name)
            )

    def logged() -> set[str]:
        return {line["flow_run_id"] for line in prefect.post("/logs/filter")}

    assert becomes_true(lambda: ended[100] not in prefect.runs(), 60)
    assert becomes_true(lambda: ended[100] not in logged(), 30)
    assert {ended[1], ended[80]} <= set(prefect.runs())
    assert {ended[1], ended[80]} <= logged()


def finished_run(prefect: Prefect, flow: str, name: str) -> str:
    """A run that has ended, with a line in its log."""
    run = str(prefect.post("/flow_runs/", flow_id=flow, name=name)["id"])
    now = datetime.now(UTC).isoformat()
    line = {"name": "x", "level": 20, "message": "y", "timestamp": now, "flow_run_id": run}
    prefect.post("/logs/", [line])
    state = {"type": "COMPLETED", "name": "Completed"}
    prefect.post(f"/flow_runs/{run}/set_state", state=state, force=True)
    return run

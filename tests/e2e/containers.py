"""The containers of `compose.yaml`, as a Compose project of the tests' own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.waiting import becomes_true

ROOT = Path(__file__).parents[2]
ME = os.getuid()
OWNER = ME or 10002
"""Owner of the data: somebody whom no image knows, never root."""
PAGE_PORT = 4299
STAGES = ("restoration", "segmentation", "quantification", "training")
CPU_FILES = "compose.yaml:deploy/compose.cpu.yaml"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Stack:
    """One Compose project; `docker` and COMPOSE_FILE are taken from the environment."""

    def __init__(self, folder: Path, project: str = "respan-test") -> None:
        self.data = folder / "data"
        self.data.mkdir()
        folder.chmod(0o755)
        os.chown(self.data, OWNER, -1)
        self.environment = (
            {"COMPOSE_FILE": CPU_FILES}
            | os.environ
            | {
                "COMPOSE_PROJECT_NAME": project,
                "RESPAN_DATA": str(self.data),
                "RESPAN_MODELS": str(ROOT / "models"),
                "RESPAN_USER": f"{OWNER}:{OWNER}",
                "RESPAN_TOKEN": "secret",
                "RESPAN_THREADS": "1",
                "RESPAN_PAGE_PORT": str(PAGE_PORT),
            }
        )

    def seen_by(self, **variables: str) -> Stack:
        """The same containers, as another .env describes them."""
        other = copy.copy(self)
        other.environment = self.environment | variables
        return other

    def files(self, *more: str) -> str:
        """COMPOSE_FILE with further files."""
        return ":".join([self.environment["COMPOSE_FILE"], *more])

    def compose(
        self, *arguments: str, files: str = "", timeout: float = 300, **variables: str
    ) -> str:
        """Standard output of a `docker compose` command, which must succeed."""
        if files:
            variables["COMPOSE_FILE"] = files
        return self.command("docker", "compose", *arguments, timeout=timeout, **variables)

    def docker(self, *arguments: str, timeout: float = 300) -> str:
        """Standard output of a `docker` command, which must succeed."""
        return self.command("docker", *arguments, timeout=timeout)

    def command(self, *command: str, timeout: float = 300, **variables: str) -> str:
        """Standard output of any command in the project's environment, which must succeed."""
        done = self.attempt(*command, timeout=timeout, **variables)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(
        self, *command: str, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Likewise, whether it succeeds or not."""
        environment = self.environment | variables
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )

    def up(self, *options: str, files: str = "", **variables: str) -> None:
        """Start what does not run, from the images that are there, and wait until all is well."""
        arguments = ("up", "--detach", "--no-build", "--wait", *options)
        self.compose(*arguments, files=files, timeout=600, **variables)

    def config(self, files: str = "") -> dict[str, Any]:
        """The project as Compose understands it."""
        return json.loads(self.compose("config", "--format", "json", files=files))["services"]

    def inside(self, service: str, *command: str, timeout: float = 300) -> str:
        """Standard output of a command in a running container."""
        return self.compose("exec", "-T", service, *command, timeout=timeout)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container, running or not."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(self.docker("inspect", container))[0]

    def is_healthy(self, service: str) -> bool:
        """Whether a service's health check passes."""
        return self.inspect(service)["State"].get("Health", {}).get("Status") == "healthy"

    def kill(self, service: str) -> None:
        """Kill a container's first process from outside, as a crash would: Docker knows nothing."""
        process = self.inspect(service)["State"]["Pid"]
        shell = ("--user", "0", "--pid", "host", "--entrypoint", "sh", "respan/orchestrator:0.1.0")
        self.docker("run", "--rm", *shell, "-c", f"kill -9 {process}")

    def ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """Answer of Prefect's API, by the way that a browser takes."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{PAGE_PORT}/api{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def order(self, flow: str, request: dict[str, Any]) -> str:
        """Order a run of a deployment as the page's form does; its id."""
        deployment = self.ask(f"/deployments/name/{flow}/{flow}")["id"]
        parameters = {"parameters": {"request": request}}
        return str(self.ask(f"/deployments/{deployment}/create_flow_run", parameters)["id"])

    def state_of(self, run: str) -> str:
        """PENDING, RUNNING, COMPLETED, …"""
        return str(self.ask(f"/flow_runs/{run}")["state_type"])

    def finished(self, run: str, within_s: float) -> str:
        """Its state once it has ended."""
        eventually(lambda: self.state_of(run) in FINAL, f"the end of run {run}", within_s)
        return self.state_of(run)


def eventually(condition: Callable[[], Any], what: str, within_s: float = 120) -> None:
    """Wait until a condition holds."""
    assert becomes_true(condition, within_s, every_s=1), f"{what}: not within {within_s:g} s"

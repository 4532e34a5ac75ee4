"""The whole system in containers, as `docker compose up` starts it, without a GPU.

`deploy/test_containers.sh` brings an engine where there is none; `docker` and COMPOSE_FILE are
taken from the environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.nnunet_models import write_random_model

ROOT = Path(__file__).parents[2]
OWNER = 10002
"""Somebody whom no image knows, as the owner of the data."""
SERVICES = ("restoration", "segmentation", "quantification", "training")
GPU_SERVICES = {"restoration", "segmentation", "training"}

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

DESCRIBE_ALL = """
from respan_orchestrator.clients import opened_channel
from respan_orchestrator.settings import SERVICES, OrchestratorSettings
from respan.v1 import restoration_pb2_grpc, segmentation_pb2_grpc, quantification_pb2_grpc
from respan.v1 import stage_pb2, training_pb2_grpc

settings = OrchestratorSettings()
metadata = [("authorization", f"Bearer {settings.token.get_secret_value()}")]
for service in SERVICES:
    stub = getattr(globals()[f"{service}_pb2_grpc"], f"{service.capitalize()}ServiceStub")
    with opened_channel(settings.address_of(service), settings) as channel:
        answer = stub(channel).Describe(stage_pb2.DescribeRequest(), timeout=10, metadata=metadata)
    print(answer.service, answer.device)
"""


class Stack:
    """One Compose project of these tests' own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        folder.chmod(0o755)
        os.chown(self.data, OWNER, OWNER)
        files = "compose.yaml:deploy/compose.cpu.yaml"
        self._environment = (
            {"COMPOSE_FILE": files}
            | os.environ
            | {
                "COMPOSE_PROJECT_NAME": "respan-test",
                "RESPAN_DATA": str(self.data),
                "RESPAN_USER": f"{OWNER}:{OWNER}",
                "RESPAN_TOKEN": "secret",
                "RESPAN_THREADS": "1",
                "RESPAN_PAGE_PORT": "4299",
            }
        )

    def compose(self, *arguments: str, files: str = "", timeout: float = 300) -> str:
        """Standard output of a `docker compose` command, which must succeed."""
        environment = self._environment | ({"COMPOSE_FILE": files} if files else {})
        return self._run(["docker", "compose", *arguments], environment, timeout)

    def config(self, files: str = "") -> dict[str, Any]:
        """The project as Compose understands it."""
        return json.loads(self.compose("config", "--format", "json", files=files))["services"]

    def inside(self, service: str, *command: str, timeout: float = 300) -> str:
        """Standard output of a command in a running container."""
        return self.compose("exec", "-T", service, *command, timeout=timeout)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container, running or not."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(self._run(["docker", "inspect", container], self._environment, 60))[0]

    def _run(self, command: list[str], environment: dict[str, str], timeout: float) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Stack:
    """Not built, not started."""
    return Stack(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def stack(project) -> Iterator[Stack]:
    stack = project
    try:
        stack.compose("build", timeout=1800)
        stack.compose("up", "--detach", "--no-build", "--wait", timeout=600)
        yield stack
    finally:
        log = stack.compose("logs", "--no-color")
        Path(os.environ.get("RESPAN_TEST_LOG", os.devnull)).write_text(log)
        stack.compose("down", "--volumes", "--timeout", "20")


def is_healthy(container: dict[str, Any]) -> bool:
    return container["State"].get("Health", {}).get("Status") == "healthy"


def gpus_of(service: dict[str, Any]) -> list[Any]:
    reservations = service.get("deploy", {}).get("resources", {}).get("reservations", {})
    return reservations.get("devices", [])


def test_three_services_reserve_the_gpu_and_none_without_one(project):
    with_gpu = project.config("compose.yaml")
    without = project.config("compose.yaml:deploy/compose.cpu.yaml")
    assert {name for name, service in with_gpu.items() if gpus_of(service)} == GPU_SERVICES
    assert not any(gpus_of(service) for service in without.values())


def test_every_health_check_passes(stack):
    assert all(is_healthy(stack.inspect(name)) for name in (*SERVICES, "prefect", "postgres"))


def test_the_worker_reaches_every_service_by_its_name(stack):
    answers = stack.inside("worker", "python", "-c", DESCRIBE_ALL)
    assert answers.split() == [word for name in SERVICES for word in (name, "cpu")]


def test_a_stranger_without_the_token_is_refused(stack):
    command = ["env", "RESPAN_TOKEN=wrong", "respan", "synth", "/data/refused", "--json"]
    with pytest.raises(AssertionError, match="token"):
        stack.inside("worker", *command)


def test_phantoms_appear_in_the_data_folder_and_belong_to_its_owner(stack):
    shape = ["--shape", "16,96,96", "--kind", "two-photon"]
    answer = json.loads(stack.inside("worker", "respan", "synth", "/data/made", *shape, "--json"))
    images = list((stack.data / "made" / "images").glob("*.tif"))
    assert answer["status"] == "done"
    assert [image.stat().st_uid for image in images] == [OWNER]


def test_no_container_of_ours_runs_as_root_or_writes_outside_its_folders(stack):
    for name in (*SERVICES, "worker", "prefect"):
        assert stack.inside(name, "id", "-u").strip() == str(OWNER)
        for folder in ("/opt/respan", "/models", "/etc"):
            assert "no" in stack.inside(name, "sh", "-c", f"test -w {folder} || echo no")


def test_only_the_page_is_reachable_from_outside_and_only_from_this_machine(stack):
    published = {
        (name, port["HostIp"])
        for name in (*SERVICES, "worker", "prefect", "postgres")
        for ports in stack.inspect(name)["NetworkSettings"]["Ports"].values()
        for port in ports or []
    }
    assert published == {("prefect", "127.0.0.1")}


def test_the_page_offers_every_flow(stack):
    for flow in ("analyze", "train_nnunet", "synthesize"):
        inspect = ["prefect", "deployment", "inspect", f"{flow}/{flow}"]
        eventually(partial(stack.inside, "worker", *inspect), "entrypoint")


def test_a_run_asked_for_on_the_page_is_done_by_the_worker(stack):
    request = {
        "out": "/data/ordered",
        "params": {"kind": "two-photon", "shape": [16, 96, 96]},
    }
    order = ["prefect", "deployment", "run", "synthesize/synthesize", "--watch"]
    stack.inside("worker", *order, "--param", f"request={json.dumps(request)}")
    assert list((stack.data / "ordered" / "images").glob("*.tif"))


def test_an_experiment_is_analyzed_across_the_containers(stack):
    folder = stack.data / "MyExperiment" / "Animal_A"
    stack.inside("worker", "mkdir", "-p", "/data/MyExperiment/Animal_A")
    stack.inside("worker", "sh", "-c", "cp /data/made/images/*.tif /data/MyExperiment/Animal_A")
    (folder / "Analysis_Settings.yml").write_text("Parameters:\n  neuron_channel: 1\n")
    write_random_model(stack.data / "model")
    command = ["respan", "run", "/data/MyExperiment", "--model", "/data/model", "--json"]
    answer = json.loads(stack.inside("worker", *command, timeout=1200))
    assert [image["status"] for image in answer["images"]] == ["done"], answer
    assert list((folder / "Tables").glob("*_detected_spines.csv"))


def test_a_service_that_dies_comes_back(stack):
    os.kill(stack.inspect("quantification")["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: str(stack.inspect("quantification")["RestartCount"]), "1")
    eventually(lambda: str(is_healthy(stack.inspect("quantification"))), "True")


def test_services_stop_in_order(stack):
    stack.compose("stop", *SERVICES)
    assert [stack.inspect(name)["State"]["ExitCode"] for name in SERVICES] == [0] * len(SERVICES)


def eventually(read: Any, wanted: str, within_s: float = 120) -> str:
    """What `read` returns once it contains `wanted`."""
    end = time.monotonic() + within_s
    while wanted not in (found := read()):
        assert time.monotonic() < end, f"{wanted!r} never came: {found}"
        time.sleep(1)
    return found

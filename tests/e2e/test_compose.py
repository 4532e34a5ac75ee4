"""The whole system in containers, as `docker compose up` starts it, without a GPU.

`deploy/test_containers.sh` brings an engine where there is none; `docker` and COMPOSE_FILE are
taken from the environment.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from tests.e2e.containers import CPU_FILES, OWNER, ROOT, STAGES, eventually

GPU_STAGES = {"restoration", "segmentation", "training"}

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


def gpus_of(service: dict[str, Any]) -> list[Any]:
    reservations = service.get("deploy", {}).get("resources", {}).get("reservations", {})
    return reservations.get("devices", [])


def packages_of(bill: dict[str, Any]) -> set[str]:
    """Packages of a CycloneDX document, spelled as in a lock and without `+cpu` in versions."""
    return {
        f"{re.sub('[-_.]+', '-', part['name']).lower()}=={part['version'].split('+')[0]}"
        for part in bill["components"]
    }


def locked(image: str) -> set[str]:
    return set((ROOT / "locks" / f"{image}.txt").read_text().split())


def test_three_services_reserve_the_gpu_and_none_without_one(project):
    with_gpu = project.config("compose.yaml")
    without = project.config(CPU_FILES)
    assert {name for name, service in with_gpu.items() if gpus_of(service)} == GPU_STAGES
    assert not any(gpus_of(service) for service in without.values())


def test_without_a_gpu_the_default_file_says_what_is_missing(stack):
    if "nvidia" in stack.docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine offers NVIDIA's GPUs")
    up = ["docker", "compose", "--project-name", "respan-test-gpu"]
    try:
        done = stack.attempt(
            *up, "up", "--detach", "--no-build", "restoration", COMPOSE_FILE="compose.yaml"
        )
        assert done.returncode != 0
        assert 'could not select device driver "nvidia"' in done.stderr
    finally:
        stack.command(*up, "down", "--volumes", COMPOSE_FILE="compose.yaml")


@pytest.mark.parametrize("image", ["orchestrator", *STAGES])
def test_an_image_says_what_it_is_and_what_is_in_it(stack, image):
    name = f"respan/{image}:0.1.0"
    config = json.loads(stack.docker("inspect", name))[0]["Config"]
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in config["Labels"].items()
    }
    assert labels["title"] == f"RESPAN {image}"
    assert labels["version"] == "0.1.0"
    assert labels["revision"] == os.environ.get("RESPAN_REVISION", "unknown")
    assert labels["licenses"] == "Apache-2.0"
    assert config["User"] == "10001"
    assert config["Healthcheck"]
    bill = stack.docker(
        "run", "--rm", "--entrypoint", "cat", name, "/usr/share/sbom/respan.cdx.json"
    )
    assert packages_of(json.loads(bill)) == locked(image) | {
        "respan-protos==0.1.0",
        "respan-common==0.1.0",
        f"respan-{image}==0.1.0",
    }


def test_every_health_check_passes(stack):
    assert all(map(stack.is_healthy, (*STAGES, "worker", "prefect", "postgres")))


def test_the_worker_reaches_every_service_by_its_name(stack):
    answers = stack.inside("worker", "python", "-c", DESCRIBE_ALL)
    assert answers.split() == [word for name in STAGES for word in (name, "cpu")]


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
    closed = ("/opt/respan", "/models", "/etc")
    script = "id -u; for folder; do test -w $folder || echo $folder; done"
    for name in (*STAGES, "worker", "prefect"):
        said = stack.inside(name, "sh", "-c", script, "sh", *closed)
        assert said.split() == [str(OWNER), *closed]


def test_only_the_page_is_reachable_from_outside_and_only_from_this_machine(stack):
    published = {
        (name, port["HostIp"])
        for name in (*STAGES, "worker", "prefect", "postgres")
        for ports in stack.inspect(name)["NetworkSettings"]["Ports"].values()
        for port in ports or []
    }
    assert published == {("prefect", "127.0.0.1")}


def test_the_page_offers_every_flow(stack):
    for flow in ("analyze", "train_nnunet", "synthesize"):
        assert stack.ask(f"/deployments/name/{flow}/{flow}")["status"] == "READY"


def test_a_run_asked_for_on_the_page_is_done_by_the_worker(stack):
    request = {
        "out": "/data/ordered",
        "params": {"kind": "two-photon", "shape": [16, 96, 96]},
    }
    order = ["prefect", "deployment", "run", "synthesize/synthesize", "--watch"]
    stack.inside("worker", *order, "--param", f"request={json.dumps(request)}")
    assert list((stack.data / "ordered" / "images").glob("*.tif"))


def test_a_service_that_dies_comes_back(stack):
    stack.kill("quantification")
    eventually(lambda: stack.inspect("quantification")["RestartCount"] == 1, "the restart")
    eventually(lambda: stack.is_healthy("quantification"), "health")


def test_services_stop_in_order(stack):
    stack.compose("stop", *STAGES)
    assert [stack.inspect(name)["State"]["ExitCode"] for name in STAGES] == [0] * len(STAGES)
    stack.up()

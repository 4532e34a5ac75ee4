"""Kubernetes runs what `docker compose up` runs; what differs stands here, with the reason."""

import re
from typing import Any

import pytest
import yaml
from tests.manifests.rendering import ROOT, rendered, workload

pytestmark = pytest.mark.manifests

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
STAGES = {"restoration", "segmentation", "quantification", "training"}
TLS = "only clusters have an authority for certificates at hand"
MORE: dict[str, dict[str, str]] = {
    "stages": {
        "RESPAN_GRACE_S": "a node is emptied more often than a workstation is shut down",
        "RESPAN_LOG_JSON": "a cluster's logs are collected and searched",
        "RESPAN_METRICS_PORT": "a cluster's Prometheus asks for it",
        "RESPAN_TLS_CERTIFICATE": TLS,
        "RESPAN_TLS_KEY": TLS,
        "RESPAN_TLS_CLIENT_CA": TLS,
    },
    "worker": {
        "RESPAN_LOG_LEVEL": "as in the stages",
        "RESPAN_LOST_AFTER_S": "pods are moved and killed more often than containers",
        "RESPAN_LOG_JSON": "a cluster's logs are collected and searched",
        "RESPAN_TLS_CA": TLS,
        "RESPAN_TLS_CLIENT_CERTIFICATE": TLS,
        "RESPAN_TLS_CLIENT_KEY": TLS,
        "PREFECT_API_AUTH_STRING": "the page is reachable from outside, so it has a password",
        "PREFECT_RUNNER_SERVER_ENABLE": "the probe asks it",
        "PREFECT_RUNNER_SERVER_HOST": "likewise",
        "PREFECT_RUNNER_SERVER_PORT": "likewise",
    },
    "prefect": {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "the database's volume does not grow",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "likewise",
        "PREFECT_SERVER_API_AUTH_STRING": "the page is reachable from outside",
        "RESPAN_DATABASE_PASSWORD": "becomes a part of the connection's address",
    },
    "postgres": {"PGDATA": "a fresh volume's file system is not empty"},
}
"""Variables that Kubernetes may have alone."""
LESS = {
    "RESPAN_GPU_LEASE_FOLDER": "a pod of a cluster has a card of its own; gpu-shared sets it",
    "RESPAN_GPU_WAIT_S": "likewise",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "the collector is the cluster's: added in an overlay",
}
"""Variables that Compose alone may have."""


def variables(service: dict[str, Any]) -> set[str]:
    given = service.get("environment", {})
    return set(given) if isinstance(given, dict) else {one.partition("=")[0] for one in given}


def image(text: str) -> str:
    """With defaults in place of Compose's variables."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


def addresses(environment: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Variable, service and port of whatever names another service."""
    return {
        (name, *place)
        for name, value in environment.items()
        for place in re.findall(r"(?:^|//|@)([a-z]+):(\d+)(?:/|$)", str(value))
    }


def targets(service: dict[str, Any]) -> set[str]:
    """Where volumes of people's data are mounted, and which are read only."""
    mounts = [one for one in service.get("volumes", []) if isinstance(one, dict)]
    return {one["target"] for one in mounts if one.get("type") == "bind"}


@pytest.mark.parametrize("name", COMPOSE)
def test_every_container_of_compose_has_a_workload_with_its_image(name):
    container = workload(rendered("cluster"), name).containers[0]
    assert container["image"] == image(COMPOSE[name]["image"])


@pytest.mark.parametrize("name", COMPOSE)
def test_a_workload_has_the_variables_of_its_container(name):
    manifests = rendered("cluster")
    ours = set(manifests.variables(workload(manifests, name).containers[0]))
    more = MORE["stages" if name in STAGES else name]
    theirs = variables(COMPOSE[name])
    assert theirs - LESS.keys() <= ours
    assert ours - theirs <= more.keys()


@pytest.mark.parametrize("name", COMPOSE)
def test_a_workload_calls_the_services_and_ports_that_its_container_calls(name):
    manifests = rendered("cluster")
    ours = manifests.environment(workload(manifests, name).containers[0])
    assert addresses(ours) == addresses(COMPOSE[name].get("environment", {}))


def test_a_service_stands_for_each_name_that_containers_call():
    called = {
        (host, int(port))
        for service in COMPOSE.values()
        for _, host, port in addresses(service.get("environment", {}))
    }
    offered = {
        (service["metadata"]["name"], port["port"])
        for service in rendered("cluster").of("Service")
        for port in service["spec"]["ports"]
    }
    assert called <= offered


@pytest.mark.parametrize("name", COMPOSE)
def test_a_workload_sees_the_folders_that_its_container_sees(name):
    mounts = workload(rendered("cluster"), name).containers[0]["volumeMounts"]
    ours = {mount["mountPath"] for mount in mounts if mount["name"] in ("data", "models")}
    assert ours == targets(COMPOSE[name])


def test_prefect_is_started_by_the_same_command():
    container = workload(rendered("cluster"), "prefect").containers[0]
    assert container["command"] == COMPOSE["prefect"]["entrypoint"]

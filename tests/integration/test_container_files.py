"""What can be known of images and compose files without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.compose_files import read_compose

from respan_common.settings import ServiceSettings
from respan_orchestrator.settings import OrchestratorSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OVERRIDES = sorted(path.name for path in DEPLOY.glob("compose.*.yaml"))
PYTHON_SERVICES = ("restoration", "segmentation", "quantification", "training", "worker", "prefect")
STAGES = PYTHON_SERVICES[:4]
SHARED_DISK = "containers of one machine share /data"
CHILD = "for processes that `respan` starts"
NOT_FOR_COMPOSE = {
    "RESPAN_VOLUMES": SHARED_DISK,
    "RESPAN_SCRATCH": SHARED_DISK,
    "RESPAN_PORT_FILE": CHILD,
    "RESPAN_ENDS_WITH_INPUT": CHILD,
    "RESPAN_GRACE_S": "Compose's own stop_grace_period would have to follow it",
    "RESPAN_GPU_LEASE_FOLDER": "stages with a GPU have it, by a test of its own",
    "RESPAN_GPU_WAIT_S": "likewise",
}
"""Settings that a container keeps as they are, with the reason."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return read_compose(ROOT / "compose.yaml")["services"]


def images(services: dict[str, Any]) -> set[str]:
    return {
        service["build"]["args"]["SERVICE"] for service in services.values() if "build" in service
    }


def handed_on(services: dict[str, Any]) -> set[str]:
    """Variables that containers have as .env has them, if at all."""
    return {
        name
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_has_its_base_and_its_lock(services):
    gpu = read_compose(DEPLOY / "compose.quantification-gpu.yaml")["services"]
    for image in images(services) | images(gpu):
        assert re.search(rf"^FROM \S+ AS for-{image}$", DOCKERFILE, re.MULTILINE), image
        assert (ROOT / "locks" / f"{image}.txt").is_file()


def test_every_locked_package_has_one_version():
    for lock in (ROOT / "locks").glob("*.txt"):
        if lock.name not in ("constraints.txt", "overrides.txt"):
            loose = [line for line in lock.read_text().split() if "==" not in line]
            assert not loose, f"{lock}: {loose}"


def test_no_image_asks_for_gpus_by_itself():
    assert not re.search(r"^[^#]*NVIDIA_VISIBLE_DEVICES", DOCKERFILE, re.MULTILINE)


def test_containers_of_ours_are_confined(services):
    for name in PYTHON_SERVICES:
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith(("0", "root")), name


def test_every_container_comes_back_after_a_reboot(services):
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


@pytest.mark.parametrize("file", ["../compose.yaml", *OVERRIDES])
def test_every_published_port_is_for_this_machine_alone(file):
    for service in read_compose(DEPLOY / file)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_gpus_are_reserved_by_driver_and_the_processor_override_drops_every_reservation(services):
    reserving = {name for name, service in services.items() if "deploy" in service}
    for name in reserving:
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    cpu = read_compose(DEPLOY / "compose.cpu.yaml")["services"]
    assert reserving == {name for name, service in cpu.items() if "deploy" in service}
    assert set(cpu) == set(STAGES)


def test_whoever_has_the_gpu_shares_the_lock_on_it(services):
    gpu = read_compose(DEPLOY / "compose.quantification-gpu.yaml")["services"]
    for service in [*services.values(), *gpu.values()]:
        if "deploy" in service:
            assert "/run/gpu-lease" in [volume["target"] for volume in service["volumes"]]
            assert service["environment"]["RESPAN_GPU_LEASE_FOLDER"] == "/run/gpu-lease"


def test_every_variable_of_the_compose_files_is_in_the_example():
    example = (DEPLOY / "env.example").read_text()
    files = [ROOT / "compose.yaml", *DEPLOY.glob("compose.*.yaml")]
    used = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    used |= {name for file in files for name in handed_on(read_compose(file)["services"])}
    assert not {name for name in used if not re.search(rf"^#?{name}=", example, re.MULTILINE)}


@pytest.mark.parametrize("name", ["worker", *STAGES])
def test_every_setting_of_a_process_can_be_given_to_its_container(services, name):
    kind = OrchestratorSettings if name == "worker" else ServiceSettings
    wanted = {f"RESPAN_{field.upper()}" for field in kind.model_fields}
    encrypted = read_compose(DEPLOY / "compose.tls.yaml")["services"]
    given = {*services[name]["environment"], *encrypted[name]["environment"]}
    in_the_image = set(re.findall(r"RESPAN_\w+(?==)", DOCKERFILE))
    assert wanted - given - in_the_image <= NOT_FOR_COMPOSE.keys()

"""What can be known of images and compose files without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OVERRIDES = sorted(path.name for path in DEPLOY.glob("compose.*.yaml"))
PYTHON_SERVICES = ("restoration", "segmentation", "quantification", "training", "worker", "prefect")
STAGES = PYTHON_SERVICES[:4]


class ComposeLoader(yaml.SafeLoader):
    """YAML with the tags that Compose adds to it: !reset, !override."""


ComposeLoader.add_multi_constructor("!", lambda loader, tag, node: tag)


def compose(path: Path) -> dict[str, Any]:
    content = yaml.load(path.read_text(), Loader=ComposeLoader)
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose(ROOT / "compose.yaml")["services"]


def images(services: dict[str, Any]) -> set[str]:
    return {
        service["build"]["args"]["SERVICE"] for service in services.values() if "build" in service
    }


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_has_its_base_and_its_lock(services):
    gpu = compose(DEPLOY / "compose.quantification-gpu.yaml")["services"]
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
    for service in compose(DEPLOY / file)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_gpus_are_reserved_by_driver_and_the_processor_override_drops_every_reservation(services):
    reserving = {name for name, service in services.items() if "deploy" in service}
    for name in reserving:
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    cpu = compose(DEPLOY / "compose.cpu.yaml")["services"]
    assert reserving == {name for name, service in cpu.items() if "deploy" in service}
    assert set(cpu) == set(STAGES)


def test_whoever_has_the_gpu_shares_the_lock_on_it(services):
    gpu = compose(DEPLOY / "compose.quantification-gpu.yaml")["services"]
    for service in [*services.values(), *gpu.values()]:
        if "deploy" in service:
            assert "/run/gpu-lease" in [volume["target"] for volume in service["volumes"]]
            assert service["environment"]["RESPAN_GPU_LEASE_FOLDER"] == "/run/gpu-lease"


def test_every_variable_of_the_compose_files_is_in_the_example():
    example = (DEPLOY / "env.example").read_text()
    files = [ROOT / "compose.yaml", *DEPLOY.glob("compose.*.yaml")]
    used = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    assert not {name for name in used if not re.search(rf"^#?{name}=", example, re.MULTILINE)}

"""What containers may do, and who can reach them: every service of every compose file."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from tests.compose_files import read_compose

from respan_common.settings import ServiceSettings
from respan_orchestrator.settings import OrchestratorSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
OVERRIDES = sorted(DEPLOY.glob("compose.*.yaml"))
STAGES = ("restoration", "segmentation", "quantification", "training")
PAGES = {
    "prefect": 4200,
    "prometheus": 9090,
    "grafana": 3000,
    "jaeger": 16686,
}
"""What people look at, with the port inside."""
COMMAND_LINE = "compose.host.yaml"
"""Publishes the stages for `respan` on the same machine."""
BECOMES_ANOTHER_USER = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}


def merged(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Services of all files together: mappings are merged, everything else replaced."""
    return reduce(_merge, (read_compose(path)["services"] for path in files), {})


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result


ALL = merged([ROOT / "compose.yaml", *OVERRIDES])


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_container_is_confined(name):
    service = ALL[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert not {"pid", "ipc", "network_mode", "devices", "userns_mode"} & set(service)
    added = set(service.get("cap_add", []))
    assert added <= (BECOMES_ANOTHER_USER if name == "postgres" else set())


@pytest.mark.parametrize("name", sorted(ALL))
def test_containers_of_ours_are_not_root(name):
    if "build" in ALL[name]:
        assert not str(ALL[name]["user"]).startswith(("0", "root"))


@pytest.mark.parametrize("path", [ROOT / "compose.yaml", *OVERRIDES], ids=lambda path: path.name)
def test_only_pages_are_published_and_only_on_this_machine(path):
    for name, service in read_compose(path)["services"].items():
        for port in service.get("ports") or []:
            assert port.startswith("127.0.0.1:")
            if path.name == COMMAND_LINE and name in STAGES:
                continue
            assert int(port.rpartition(":")[2]) == PAGES[name]


def test_the_database_and_the_stages_are_reachable_from_no_outside():
    services = read_compose(ROOT / "compose.yaml")["services"]
    assert [name for name, service in services.items() if service.get("ports")] == ["prefect"]


def test_no_container_sees_dockers_socket():
    for path in (ROOT / "compose.yaml", *OVERRIDES):
        assert "docker.sock" not in path.read_text()


def test_no_compose_file_holds_a_token():
    for path in (ROOT / "compose.yaml", *OVERRIDES):
        for value in re.findall(r"(?:TOKEN|AUTH_STRING):[ \t]*(\S*)", path.read_text()):
            assert value in ("", '""') or value.startswith("${")


@pytest.fixture
def tls() -> dict[str, Any]:
    return read_compose(DEPLOY / "compose.tls.yaml")


@pytest.mark.parametrize("name", [*STAGES, "worker"])
def test_with_tls_each_side_gets_the_files_that_its_settings_name(tls, name):
    service = tls["services"][name]
    kind = OrchestratorSettings if name == "worker" else ServiceSettings
    given = [one if isinstance(one, dict) else {"source": one} for one in service["secrets"]]
    mounted = {f"/run/secrets/{one.get('target', one['source'])}": one["source"] for one in given}
    paths = {k: v for k, v in service["environment"].items() if str(v).startswith("/")}
    assert set(paths.values()) == set(mounted)
    for variable in paths:
        assert variable.removeprefix("RESPAN_").lower() in kind.model_fields
    assert {f"{name}-certificate", f"{name}-key", "authority", "token"} == set(mounted.values())
    assert service["environment"]["RESPAN_TOKEN"] == ""


def test_the_files_of_tls_are_those_that_the_script_makes(tls):
    for name, secret in tls["secrets"].items():
        folder, _, file = secret["file"].rpartition("/")
        assert folder == "${RESPAN_CERTIFICATES:-./certificates}"
        made = {"authority": "authority.pem", "token": "token"}
        service, _, kind = name.rpartition("-")
        assert file == made.get(name, f"{service}.{'pem' if kind == 'certificate' else 'key'}")


def test_keys_and_passwords_are_not_committed():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/certificates/", "/deploy/k8s/secrets/*.env"} <= set(ignored)


def test_page_and_worker_have_the_same_password_or_none():
    services = read_compose(ROOT / "compose.yaml")["services"]
    # An empty value would be a password that nobody can give.
    assert services["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] is None
    assert services["worker"]["environment"]["PREFECT_API_AUTH_STRING"] is None
    example = (DEPLOY / "env.example").read_text()
    assert "#PREFECT_API_AUTH_STRING=${PREFECT_SERVER_API_AUTH_STRING}" in example

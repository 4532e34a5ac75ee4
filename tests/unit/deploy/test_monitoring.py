"""The files that Prometheus, Grafana and Compose read; their metrics: tests/integration."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"
ALERTS_TEST = Path(__file__).with_name("alerts_test.yaml")


def read(path: Path) -> Any:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    return [rule for group in read(MONITORING / "alerts.yaml")["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(read(MONITORING / "grafana-dashboard.json"))


def test_every_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rules):
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "action"}


def test_every_alert_is_tried_by_an_example(rules):
    tried = {
        case["alertname"] for test in read(ALERTS_TEST)["tests"] for case in test["alert_rule_test"]
    }
    assert tried == {rule["alert"] for rule in rules}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_its_files_and_alerts_fire_when_they_should(tmp_path):
    for path in (MONITORING / "prometheus.yml", MONITORING / "alerts.yaml", ALERTS_TEST):
        shutil.copy(path, tmp_path)
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_a_row_for_each_concern(dashboard):
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    concerns = ["Overview", "Queue", "Throughput", "Memory", "GPU", "Errors", "Disk"]
    assert rows == concerns


def test_every_panel_asks_the_source_that_is_provisioned(dashboard):
    (source,) = read(MONITORING / "grafana" / "datasources" / "prometheus.yaml")["datasources"]
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert {panel["datasource"]["uid"]} == {source["uid"]}
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_prometheus_reads_every_service_on_the_port_that_containers_offer():
    (respan, _) = read(MONITORING / "prometheus.yml")["scrape_configs"]
    (names,) = respan["dns_sd_configs"]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    (port,) = re.findall(r"RESPAN_METRICS_PORT=(\d+)", dockerfile)
    assert str(names["port"]) == port
    assert set(names["names"]) == {"restoration", "segmentation", "quantification", "training"}
    assert set(names["names"]) <= set(read(ROOT / "compose.yaml")["services"])


def test_pages_are_open_to_this_machine_only_and_grafana_has_no_password_of_ours():
    services = read(ROOT / "deploy" / "compose.monitoring.yaml")["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["image"].startswith("${"), name
    assert ":?" in services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]


def test_files_that_compose_mounts_are_there():
    services = read(ROOT / "deploy" / "compose.monitoring.yaml")["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(files) == 4
    assert all((ROOT / name).exists() for name in files)

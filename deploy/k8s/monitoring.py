"""Write the Prometheus Operator's objects: `python -m deploy.k8s.monitoring`.

Alerts and dashboard lie in deploy/monitoring as Prometheus and Grafana read them themselves.
Kustomize can neither reach nor wrap them, so what wraps them is committed, and a test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TARGET = Path(__file__).parent / "components" / "monitoring" / "made.yaml"
_OF_KUBERNETES = TARGET.with_name("kubernetes-alerts.yaml")
_EVERYWHERE = Path(__file__).parents[1] / "monitoring"


class _Dumper(yaml.SafeDumper):
    """Text of several lines as it is."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def text() -> str:
    """Everything that is made, as one YAML text."""
    head = "# Made by `python -m deploy.k8s.monitoring`; change deploy/monitoring instead.\n"
    objects = [_rules(), *_dashboards()]
    return head + yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100)


def _rules() -> dict[str, Any]:
    files = [path for path in (_EVERYWHERE / "alerts.yaml", _OF_KUBERNETES) if path.exists()]
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "respan"},
        "spec": {"groups": groups},
    }


def _dashboards() -> list[dict[str, Any]]:
    files = sorted(_EVERYWHERE.glob("*dashboard*.json"))
    data = {path.name: path.read_text() for path in files}
    label = {"grafana_dashboard": "1"}  # what kube-prometheus-stack's Grafana looks for
    metadata = {"name": "respan-dashboard", "labels": label}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    return [config] if data else []


if __name__ == "__main__":
    TARGET.write_text(text())

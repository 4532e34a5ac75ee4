"""Rendered manifests, and who belongs to whom in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
SECRETS = Path(__file__).parents[1] / "secrets"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def loaded(text: str) -> list[Object]:
    """Objects of a YAML text with any number of documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def title(thing: Object) -> str:
    """Kind and name, as messages have it."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def expected_secrets() -> dict[str, set[str]]:
    """Keys of the secrets that people make by hand, from their examples."""
    return {
        path.name.removesuffix(".env.example"): {
            line.partition("=")[0] for line in path.read_text().splitlines() if "=" in line
        }
        for path in SECRETS.glob("*.env.example")
    }


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels fit a selector; an empty one fits all."""
    if set(selector) - {"matchLabels"}:
        raise ValueError(f"these checks know matchLabels only, not {sorted(selector)}")
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


@dataclass(frozen=True)
class Workload:
    """What runs pods, and the pod that it runs."""

    object: Object

    @property
    def title(self) -> str:
        """Kind and name."""
        return title(self.object)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of its pods."""
        return dict(self.object["spec"]["template"]["metadata"].get("labels", {}))

    @property
    def pod(self) -> Object:
        """Specification of its pods."""
        return dict(self.object["spec"]["template"]["spec"])

    @property
    def containers(self) -> list[Object]:
        """Those that stay."""
        return list(self.pod["containers"])

    @property
    def all_containers(self) -> list[Object]:
        """Also those that come before."""
        return [*self.pod.get("initContainers", []), *self.containers]

    @property
    def ports(self) -> dict[str, int]:
        """Numbers of the ports, by name."""
        return {
            port.get("name", str(port["containerPort"])): port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }

    def number_of(self, port: int | str) -> int | None:
        """Number of a port given by name or number; None if the pod has no such port."""
        if isinstance(port, int):
            return port if port in self.ports.values() else None
        return self.ports.get(port)


class Manifests:
    """Everything that one overlay renders."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, *kinds: str) -> list[Object]:
        """Objects of these kinds."""
        return [thing for thing in self.objects if thing["kind"] in kinds]

    def find(self, kind: str, name: str) -> Object | None:
        """The object of this kind and name."""
        found = [thing for thing in self.of(kind) if thing["metadata"]["name"] == name]
        return found[0] if found else None

    @cached_property
    def workloads(self) -> list[Workload]:
        """What runs pods."""
        return [Workload(thing) for thing in self.of(*WORKLOADS)]

    def selected(self, selector: Mapping[str, Any]) -> list[Workload]:
        """Workloads whose pods a selector fits."""
        return [workload for workload in self.workloads if matches(selector, workload.labels)]

    def behind(self, service: Object) -> list[Workload]:
        """Workloads whose pods a Service stands for."""
        return self.selected({"matchLabels": service["spec"].get("selector", {})})

    @cached_property
    def secrets(self) -> dict[str, set[str]]:
        """Keys of every secret that there will be: made by hand, or by cert-manager."""
        made = {
            certificate["spec"]["secretName"]: {"tls.crt", "tls.key", "ca.crt"}
            for certificate in self.of("Certificate")
        }
        for ingress in self.of("Ingress"):
            if "cert-manager.io/cluster-issuer" in ingress["metadata"].get("annotations", {}):
                made |= {tls["secretName"]: {"tls.crt"} for tls in ingress["spec"].get("tls", [])}
        return expected_secrets() | made

    def environment(self, container: Object) -> dict[str, str]:
        """Variables of a container whose values stand in the manifests."""
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                config = self.find("ConfigMap", source["configMapRef"]["name"]) or {}
                values |= config.get("data", {})
        return values | {
            variable["name"]: variable["value"]
            for variable in container.get("env", [])
            if "value" in variable
        }

    def variables(self, container: Object) -> Iterator[str]:
        """Names of all variables of a container, secret ones included."""
        yield from self.environment(container)
        for source in container.get("envFrom", []):
            yield from self.secrets.get(source.get("secretRef", {}).get("name", ""), ())
        yield from (variable["name"] for variable in container.get("env", []))

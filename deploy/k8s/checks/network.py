"""Who can talk to whom: those who must, and nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deploy.k8s.checks.objects import Manifests, Object, Workload, matches, title

DOORS = {"prefect"}
"""Services that may be reached from outside."""
_ADDRESS = re.compile(r"(?:^|//|@)([a-z][a-z0-9-]*):(\d+)(?:$|/)")
"""host:port of a Service of the same namespace, alone or in a URL."""


@dataclass(frozen=True)
class Call:
    """A connection that a variable asks for."""

    caller: Workload
    variable: str
    value: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.caller.title}: {self.variable}={self.value}"


def calls(manifests: Manifests) -> Iterator[Call]:
    """Connections that pods are told to make."""
    for workload in manifests.workloads:
        for container in workload.containers:
            for name, value in manifests.environment(container).items():
                for host, port in _ADDRESS.findall(value):
                    yield Call(workload, name, value, host, int(port))


def addresses(manifests: Manifests) -> Iterator[str]:
    """Addresses in variables lead to Services, and policies let the calls through."""
    for call in calls(manifests):
        service = manifests.find("Service", call.host)
        if service is None:
            yield f"{call}: no Service/{call.host}"
            continue
        numbers = {port["port"]: port for port in service["spec"]["ports"]}
        if call.port not in numbers:
            yield f"{call}: Service/{call.host} has no port {call.port}"
            continue
        if call.value.startswith("dns:") and service["spec"].get("clusterIP") != "None":
            yield f"{call}: Service/{call.host} hides its replicas: clusterIP: None shows them"
        target = numbers[call.port].get("targetPort", call.port)
        for callee in manifests.behind(service):
            number = callee.number_of(target)
            if number is not None:
                yield from _refusals(manifests, call, callee, number)


def policies(manifests: Manifests) -> Iterator[str]:
    """Every policy and every peer finds pods; ports are there; names can be looked up."""
    for policy in manifests.of("NetworkPolicy"):
        selected = manifests.selected(policy["spec"]["podSelector"])
        if not selected:
            yield f"{title(policy)}: selects no pod"
        for rule in policy["spec"].get("ingress", []):
            yield from _peers(manifests, policy, rule.get("from", []))
            yield from _ports(policy, rule, selected)
        for rule in policy["spec"].get("egress", []):
            yield from _peers(manifests, policy, rule.get("to", []))
    for workload in manifests.workloads:
        if not _is_open(_binding(manifests, workload, "Egress"), "egress", "to", None, 53):
            yield f"{workload.title}: no policy lets it look up names"


def doors(manifests: Manifests) -> Iterator[str]:
    """Only the page can be reached from outside, and only encrypted."""
    for service in manifests.of("Service"):
        if (
            service["spec"].get("type", "ClusterIP") != "ClusterIP"
            or "externalIPs" in service["spec"]
        ):
            yield f"{title(service)}: can be reached from outside"
    for ingress in manifests.of("Ingress"):
        hosts = {host for tls in ingress["spec"].get("tls", []) for host in tls.get("hosts", [])}
        for rule in ingress["spec"]["rules"]:
            if rule.get("host") not in hosts:
                yield f"{title(ingress)}: {rule.get('host')} is not encrypted"
            for path in rule["http"]["paths"]:
                yield from _door(manifests, ingress, path["backend"]["service"])
        yield from _page_address(manifests, ingress)


def _door(manifests: Manifests, ingress: Object, backend: Object) -> Iterator[str]:
    name, port = backend["name"], backend["port"]
    service = manifests.find("Service", name)
    if name not in DOORS:
        yield f"{title(ingress)}: lets people reach {name}"
    if service is None:
        yield f"{title(ingress)}: no Service/{name}"
    elif not any(port.items() <= _known(known).items() for known in service["spec"]["ports"]):
        yield f"{title(ingress)}: Service/{name} has no port {port}"


def _known(port: Object) -> Object:
    return {"name": port.get("name"), "number": port["port"]}


def _page_address(manifests: Manifests, ingress: Object) -> Iterator[str]:
    hosts = {rule.get("host") for rule in ingress["spec"]["rules"]}
    for workload in manifests.workloads:
        for container in workload.containers:
            url = manifests.environment(container).get("PREFECT_UI_API_URL")
            if url and urlsplit(url).hostname not in hosts:
                yield f"{workload.title}: PREFECT_UI_API_URL={url} is not at {title(ingress)}"


def _refusals(manifests: Manifests, call: Call, callee: Workload, port: int) -> Iterator[str]:
    leaving = _binding(manifests, call.caller, "Egress")
    if not _is_open(leaving, "egress", "to", callee, port):
        yield f"{call}: no policy lets it out"
    arriving = _binding(manifests, callee, "Ingress")
    if not _is_open(arriving, "ingress", "from", call.caller, port):
        yield f"{call}: no policy lets it into {callee.title}"


def _binding(manifests: Manifests, workload: Workload, direction: str) -> list[Object]:
    return [
        policy
        for policy in manifests.of("NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], workload.labels)
    ]


def _is_open(
    policies: list[Object], rules: str, peers: str, other: Workload | None, port: int
) -> bool:
    """Whether policies let a connection through; `other` is None for somebody outside."""
    return not policies or any(
        _fits_port(rule, port) and _fits_peer(rule.get(peers, []), other)
        for policy in policies
        for rule in policy["spec"].get(rules, [])
    )


def _fits_port(rule: Object, port: int) -> bool:
    return "ports" not in rule or any(given.get("port") == port for given in rule["ports"])


def _fits_peer(peers: list[Any], other: Workload | None) -> bool:
    if not peers:
        return True
    if other is None:
        return any("podSelector" not in peer for peer in peers)
    return any(
        "namespaceSelector" not in peer
        and "podSelector" in peer
        and matches(peer["podSelector"], other.labels)
        for peer in peers
    )


def _peers(manifests: Manifests, policy: Object, peers: list[Any]) -> Iterator[str]:
    for peer in peers:
        is_ours = "podSelector" in peer and "namespaceSelector" not in peer
        if is_ours and not manifests.selected(peer["podSelector"]):
            yield f"{title(policy)}: names a peer that is not there: {peer['podSelector']}"


def _ports(policy: Object, rule: Object, selected: list[Workload]) -> Iterator[str]:
    for port in rule.get("ports", []):
        if not any(workload.number_of(port["port"]) for workload in selected):
            yield f"{title(policy)}: opens port {port['port']}, which nobody listens on"

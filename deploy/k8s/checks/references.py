"""Whether everything that an object names is there, and fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from deploy.k8s.checks.objects import Manifests, Object, Workload, title

_ACCESS_MODES = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
_BY_CLUSTER = {"Namespace"}
"""Kinds that lie in no namespace."""


def names(manifests: Manifests) -> Iterator[str]:
    """Each object once, and all in the one namespace."""
    counts = Counter((thing["kind"], thing["metadata"]["name"]) for thing in manifests.objects)
    yield from (f"{kind}/{name}: is there twice" for (kind, name), n in counts.items() if n > 1)
    home = [namespace["metadata"]["name"] for namespace in manifests.of("Namespace")]
    for thing in manifests.objects:
        namespace = thing["metadata"].get("namespace")
        if thing["kind"] not in _BY_CLUSTER and [namespace] != home:
            yield f"{title(thing)}: lies in namespace {namespace}, not in {home}"


def selectors(manifests: Manifests) -> Iterator[str]:
    """Every selector finds a pod, a workload's finds its own."""
    for workload in manifests.workloads:
        own = workload.object["spec"].get("selector", {})
        if workload not in manifests.selected(own):
            yield f"{workload.title}: its selector misses its own pods"
        if len(manifests.selected(own)) > 1:
            yield f"{workload.title}: its selector finds the pods of others"
    for service in manifests.of("Service"):
        if not manifests.behind(service):
            yield f"{title(service)}: selects no pod"
    for thing in manifests.of("PodDisruptionBudget", "PodMonitor"):
        if not manifests.selected(thing["spec"]["selector"]):
            yield f"{title(thing)}: selects no pod"


def ports(manifests: Manifests) -> Iterator[str]:
    """Services and monitors lead to ports that are there."""
    for service in manifests.of("Service"):
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            yield from _lacking(service, manifests.behind(service), target)
    for monitor in manifests.of("PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            watched = manifests.selected(monitor["spec"]["selector"])
            yield from _lacking(monitor, watched, endpoint["port"])


def governors(manifests: Manifests) -> Iterator[str]:
    """A StatefulSet's Service is there and shows each pod."""
    for stateful in manifests.of("StatefulSet"):
        name = stateful["spec"]["serviceName"]
        service = manifests.find("Service", name)
        if service is None or service["spec"].get("clusterIP") != "None":
            yield f"{title(stateful)}: no headless Service/{name}"


def mentions(manifests: Manifests) -> Iterator[str]:
    """Claims, settings, secrets and accounts that pods name."""
    for workload in manifests.workloads:
        account = workload.pod.get("serviceAccountName", "default")
        if manifests.find("ServiceAccount", account) is None:
            yield f"{workload.title}: no ServiceAccount/{account}"
        for volume in workload.pod.get("volumes", []):
            yield from _volume(manifests, workload, volume)
        for container in workload.all_containers:
            yield from _sources(manifests, workload, container)


def claims(manifests: Manifests) -> Iterator[str]:
    """Claims have access modes that exist, and are used by somebody."""
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for workload in manifests.workloads
        for volume in workload.pod.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    for claim in manifests.of("PersistentVolumeClaim"):
        unknown = set(claim["spec"]["accessModes"]) - _ACCESS_MODES
        if unknown:
            yield f"{title(claim)}: unknown access mode {sorted(unknown)}"
        if claim["metadata"]["name"] not in used:
            yield f"{title(claim)}: nobody uses it"


def scaling(manifests: Manifests) -> Iterator[str]:
    """Scalers have something to scale, and the last word about it."""
    for scaler in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        reference = scaler["spec"]["scaleTargetRef"]
        kind, name = reference.get("kind", "Deployment"), reference["name"]
        target = manifests.find(kind, name)
        if target is None:
            yield f"{title(scaler)}: no {kind}/{name}"
        elif "replicas" in target["spec"]:
            yield f"{title(scaler)}: {kind}/{name} says its replicas itself"


def disruption(manifests: Manifests) -> Iterator[str]:
    """No budget keeps a node from being emptied."""
    for budget in manifests.of("PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable", 0) in (0, "0%"):
            yield f"{title(budget)}: blocks the draining of nodes: say maxUnavailable: 1"


def issuers(manifests: Manifests) -> Iterator[str]:
    """Who signs certificates is there, and has what it signs with."""
    for certificate in manifests.of("Certificate"):
        issuer = certificate["spec"]["issuerRef"]
        if issuer["kind"] == "Issuer" and manifests.find("Issuer", issuer["name"]) is None:
            yield f"{title(certificate)}: no Issuer/{issuer['name']}"
    for issuer in manifests.of("Issuer"):
        secret = issuer["spec"].get("ca", {}).get("secretName")
        if secret and secret not in manifests.secrets:
            yield f"{title(issuer)}: no Secret/{secret}"


def certificates(manifests: Manifests) -> Iterator[str]:
    """A server's certificate bears the names that it is called by."""
    of_secret = {thing["spec"]["secretName"]: thing for thing in manifests.of("Certificate")}
    for service in manifests.of("Service"):
        name = service["metadata"]["name"]
        for workload in manifests.behind(service):
            for volume in workload.pod.get("volumes", []):
                certificate = of_secret.get(volume.get("secret", {}).get("secretName"))
                if certificate and name not in certificate["spec"].get("dnsNames", []):
                    yield f"{title(certificate)}: is not for {name}, as its users are called"


def _lacking(thing: Object, workloads: list[Workload], port: int | str) -> Iterator[str]:
    for workload in workloads:
        if workload.number_of(port) is None:
            yield f"{title(thing)}: {workload.title} has no port {port}"


def _volume(manifests: Manifests, workload: Workload, volume: Object) -> Iterator[str]:
    wanted = {
        "PersistentVolumeClaim": volume.get("persistentVolumeClaim", {}).get("claimName"),
        "ConfigMap": volume.get("configMap", {}).get("name"),
    }
    for kind, name in wanted.items():
        if name and manifests.find(kind, name) is None:
            yield f"{workload.title}: no {kind}/{name}"
    secret = volume.get("secret", {}).get("secretName")
    if secret and secret not in manifests.secrets:
        yield f"{workload.title}: no Secret/{secret}"


def _sources(manifests: Manifests, workload: Workload, container: Object) -> Iterator[str]:
    for source in container.get("envFrom", []):
        yield from _source(manifests, workload, source.get("configMapRef"), None)
        yield from _source(manifests, workload, None, source.get("secretRef"))
    for variable in container.get("env", []):
        if "value" in variable and "valueFrom" in variable:
            yield f"{workload.title}: {variable['name']} has two values"
        value = variable.get("valueFrom", {})
        yield from _source(
            manifests, workload, value.get("configMapKeyRef"), value.get("secretKeyRef")
        )


def _source(manifests: Manifests, workload: Workload, config: Any, secret: Any) -> Iterator[str]:
    if config:
        found = manifests.find("ConfigMap", config["name"])
        if found is None:
            yield f"{workload.title}: no ConfigMap/{config['name']}"
        elif "key" in config and config["key"] not in found.get("data", {}):
            yield f"{workload.title}: ConfigMap/{config['name']} has no {config['key']}"
    if secret:
        keys = manifests.secrets.get(secret["name"])
        if keys is None:
            yield f"{workload.title}: no Secret/{secret['name']}"
        elif "key" in secret and secret["key"] not in keys:
            yield f"{workload.title}: Secret/{secret['name']} has no {secret['key']}"

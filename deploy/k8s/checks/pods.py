"""Whether pods can start, are watched, are stopped in order, and may do no more than they must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from deploy.k8s.checks.objects import Manifests, Object, Workload, title

_GPU = "nvidia.com/gpu"
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTPE]i?)?")
_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGTPE", 1)
    for suffix, base in (("i", 2.0**10), ("", 1e3))
}


def images(manifests: Manifests) -> Iterator[str]:
    """Every image has a version."""
    for workload in manifests.workloads:
        for container in workload.all_containers:
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield f"{workload.title}: image {image} has no version"


def probes(manifests: Manifests) -> Iterator[str]:
    """Who listens is watched, on a port that is there, in a way that it can answer."""
    for workload in manifests.workloads:
        for container in workload.containers:
            listens = bool(container.get("ports"))
            for name in _PROBES:
                if name in container:
                    yield from _probe(manifests, workload, container, name)
                elif listens:
                    yield f"{workload.title}: no {name}"


def mounts(manifests: Manifests) -> Iterator[str]:
    """Every mount has a volume, every volume a mount, every path one volume."""
    for workload in manifests.workloads:
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        volumes |= {
            claim["metadata"]["name"]
            for claim in workload.object["spec"].get("volumeClaimTemplates", [])
        }
        mounted = set()
        for container in workload.all_containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            mounted |= {mount["name"] for mount in container.get("volumeMounts", [])}
            if len(set(paths)) < len(paths):
                yield f"{workload.title}: two mounts at one path"
        yield from (f"{workload.title}: no volume {name}" for name in sorted(mounted - volumes))
        yield from (f"{workload.title}: nobody mounts {name}" for name in sorted(volumes - mounted))


def resources(manifests: Manifests) -> Iterator[str]:
    """Every container says what it needs, in quantities that mean something."""
    for workload in manifests.workloads:
        for container in workload.all_containers:
            yield from _resources(workload, container)
        for volume in workload.pod.get("volumes", []):
            yield from _sizes(workload.title, volume.get("emptyDir", {}), "sizeLimit")
    for claim in manifests.of("PersistentVolumeClaim"):
        yield from _sizes(title(claim), claim["spec"]["resources"]["requests"], "storage")


def security(manifests: Manifests) -> Iterator[str]:
    """What pod security "restricted" asks for, a read-only root file system, no account."""
    for workload in manifests.workloads:
        pod, context = workload.pod, workload.pod.get("securityContext", {})
        wanted = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "a runAsUser other than root": context.get("runAsUser", 0) != 0,
            "seccompProfile RuntimeDefault": context.get("seccompProfile")
            == {"type": "RuntimeDefault"},
            "automountServiceAccountToken: false": pod.get("automountServiceAccountToken") is False,
            "enableServiceLinks: false": pod.get("enableServiceLinks") is False,
            "no namespaces of the host": not any(
                pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")
            ),
            "no folders of the host": not any("hostPath" in v for v in pod.get("volumes", [])),
        }
        yield from (f"{workload.title}: not {name}" for name, ok in wanted.items() if not ok)
        for container in workload.all_containers:
            yield from _container_security(workload, container)


def draining(manifests: Manifests) -> Iterator[str]:
    """Kubernetes waits longer than the service does, and does not kill what stops in order."""
    for workload in manifests.workloads:
        for container in workload.containers:
            grace = manifests.environment(container).get("RESPAN_GRACE_S")
            waits = workload.pod.get("terminationGracePeriodSeconds", 30)
            if grace is not None and waits <= float(grace):
                yield f"{workload.title}: is killed after {waits} s, RESPAN_GRACE_S is {grace}"


def tls_files(manifests: Manifests) -> Iterator[str]:
    """Certificates are where the variables say."""
    for workload in manifests.workloads:
        secrets = {
            volume["name"]: volume["secret"]["secretName"]
            for volume in workload.pod.get("volumes", [])
            if "secret" in volume
        }
        for container in workload.containers:
            files = {
                str(PurePosixPath(mount["mountPath"]) / key)
                for mount in container.get("volumeMounts", [])
                for key in manifests.secrets.get(secrets.get(mount["name"], ""), ())
            }
            for name, value in manifests.environment(container).items():
                if name.startswith("RESPAN_TLS_") and value not in files:
                    yield f"{workload.title}: {name}={value} is no file of a mounted secret"


def quantity(text: object) -> float | None:
    """Number that a quantity such as 500Mi stands for; None if it is none."""
    found = _QUANTITY.fullmatch(str(text))
    return (
        float(found[1]) * _FACTORS[found[2] or ""]
        if found and (found[2] or "") in _FACTORS
        else None
    )


def _probe(manifests: Manifests, workload: Workload, container: Object, name: str) -> Iterator[str]:
    probe = container[name]
    for how in ("grpc", "httpGet", "tcpSocket"):
        if how in probe and workload.number_of(probe[how]["port"]) is None:
            yield f"{workload.title}: {name} asks a port that is not there: {probe[how]['port']}"
    if "grpc" in probe and "RESPAN_TLS_CERTIFICATE" in manifests.environment(container):
        yield f"{workload.title}: {name} by gRPC knows no TLS"


def _resources(workload: Workload, container: Object) -> Iterator[str]:
    given = container.get("resources", {})
    requests, limits = given.get("requests", {}), given.get("limits", {})
    for name, value in [*requests.items(), *limits.items()]:
        if quantity(value) is None:
            yield f"{workload.title}: {value} of {name} is no quantity"
    for place, name in ((requests, "cpu"), (requests, "memory"), (limits, "memory")):
        if name not in place:
            yield f"{workload.title}: {container['name']} does not say its {name}"
    for name in set(requests) & set(limits):
        if (quantity(requests[name]) or 0) > (quantity(limits[name]) or 0):
            yield f"{workload.title}: asks for more {name} than its limit"
    if requests.get(_GPU) != limits.get(_GPU):
        yield f"{workload.title}: {_GPU} is not the same in requests and limits"


def _sizes(where: str, place: Object, key: str) -> Iterator[str]:
    if key in place and quantity(place[key]) is None:
        yield f"{where}: {place[key]} of {key} is no quantity"


def _container_security(workload: Workload, container: Object) -> Iterator[str]:
    context = container.get("securityContext", {})
    wanted = {
        "allowPrivilegeEscalation: false": context.get("allowPrivilegeEscalation") is False,
        "readOnlyRootFilesystem: true": context.get("readOnlyRootFilesystem") is True,
        "drop [ALL]": context.get("capabilities") == {"drop": ["ALL"]},
        "privileged: false": not context.get("privileged"),
    }
    for name, is_so in wanted.items():
        if not is_so:
            yield f"{workload.title}: {container['name']}: not {name}"

"""Whether objects are what a version of Kubernetes understands: no unknown or misspelt field."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import jsonschema
from deploy.k8s.checks.objects import Manifests, Object, title
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "advanced", "fallback", "maxReplicaCount", "minReplicaCount", "pollingInterval",
        "scaleTargetRef", "triggers",
    },
    ("cert-manager.io/v1", "Certificate"): {
        "commonName", "dnsNames", "duration", "isCA", "issuerRef", "privateKey", "renewBefore",
        "secretName", "usages",
    },
    ("cert-manager.io/v1", "Issuer"): {"ca", "selfSigned"},
    ("monitoring.coreos.com/v1", "PodMonitor"): {"jobLabel", "podMetricsEndpoints", "selector"},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups"},
}  # fmt: skip
"""Kinds of other programs, and those of their fields that are used: Kubernetes has no schema."""


def schemas(manifests: Manifests, version: str) -> Iterator[str]:
    """Faults that the strict schema of a version such as 1.34 finds."""
    for thing in manifests.objects:
        own = CUSTOM.get((thing["apiVersion"], thing["kind"]))
        faults = _against(thing, version) if own is None else _unknown(thing, own)
        yield from (f"{title(thing)}: {fault}" for fault in faults)


def _unknown(thing: Object, fields: set[str]) -> Iterator[str]:
    for name in sorted(set(thing["spec"]) - fields):
        yield f"spec.{name} is no field of {thing['kind']}"


def _against(thing: Object, version: str) -> Iterator[str]:
    validator = _validator(version, thing["apiVersion"], thing["kind"])
    if validator is None:
        yield f"Kubernetes {version} has no {thing['kind']} of {thing['apiVersion']}"
        return
    for error in validator.iter_errors(thing):
        yield f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"


@cache
def _validator(version: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
    group, _, api = api_version.rpartition("/")
    short = f"{group.partition('.')[0]}-{api}" if group else api
    try:
        schema = schema_contents(f"{_folder(version)}/{kind.lower()}-{short}.json", version)
    except FileNotFoundError:
        return None
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Registry:
    contents = schema_contents(f"{_folder(version)}/_definitions.json", version)
    return Resource.from_contents(contents) @ Registry()


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}.0-local-strict"

"""Checks of rendered manifests that no schema does: all that is named is there, and fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deploy.k8s.checks import network, pods, references
from deploy.k8s.checks.objects import Manifests, Object

CHECKS: tuple[Callable[[Manifests], Iterable[str]], ...] = (
    references.names,
    references.selectors,
    references.ports,
    references.governors,
    references.mentions,
    references.claims,
    references.scaling,
    references.disruption,
    references.issuers,
    references.certificates,
    pods.images,
    pods.probes,
    pods.mounts,
    pods.resources,
    pods.security,
    pods.draining,
    pods.tls_files,
    network.addresses,
    network.policies,
    network.doors,
)


def faults(objects: list[Object]) -> list[str]:
    """What is wrong with rendered manifests, one line each; empty if nothing is."""
    manifests = Manifests(objects)
    return [fault for check in CHECKS for fault in check(manifests)]

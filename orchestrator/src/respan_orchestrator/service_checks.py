"""Whether services and Prefect's server can be used: reachable, trusted, and of this version."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

from respan_common import __version__, certificates
from respan_common.errors import RespanError
from respan_orchestrator import encryption
from respan_orchestrator.addresses import Replica, replicas_at
from respan_orchestrator.clients import StageUnavailableError, ailment, describe
from respan_orchestrator.findings import Finding, State
from respan_orchestrator.settings import SERVICES, OrchestratorSettings

_TIMEOUT_S = 5.0
_LOGIN = "set PREFECT_API_AUTH_STRING to the user:password in PREFECT_SERVER_API_AUTH_STRING there"


def services(settings: OrchestratorSettings) -> Iterator[Finding]:
    """Each service whose address is set; others are started when needed."""
    for service in SERVICES:
        replicas = replicas_at(settings.address_of(service))
        for replica in replicas:
            yield _service(service, replica, settings)
        if not replicas:
            yield Finding(f"Service {service}", "ok", "is started when needed")


def _service(service: str, replica: Replica, settings: OrchestratorSettings) -> Finding:
    subject, address = f"Service {service}", replica.address
    if problem := ailment(address, settings, authority=replica.authority):
        variable = f"RESPAN_{service.upper()}_ADDRESS"
        way_out = f"start it, correct {variable}, or unset {variable} to have it started"
        return Finding(subject, "problem", f"{address}: {problem}", way_out)
    try:
        answer = describe(service, address, settings, _TIMEOUT_S, replica.authority)
    except StageUnavailableError as error:
        return Finding(subject, "problem", str(error), "look into its log")
    except RespanError as error:
        return Finding(subject, "problem", str(error), "give both sides the same secret")
    text = f"{address} answers: version {answer.version} on {answer.device}"
    if answer.version == __version__:
        return Finding(subject, "ok", f"{text}, {answer.queue_length} waiting")
    way_out = f"bring both to one version; this is {__version__}"
    return Finding(subject, "warning", text, way_out)


def encrypted(settings: OrchestratorSettings) -> Finding:
    """The certificates of this side and those that the services show."""
    subject = "Certificates"
    if problem := encryption.own_problem(settings):
        return Finding(subject, "problem", problem, "see deploy/README.md, TLS")
    ends = dict(_ends(settings))
    if not ends:
        return Finding(subject, "ok", "none: calls are not encrypted")
    first = min(ends, key=lambda name: ends[name])
    text = f"the first to run out is {first}, on {ends[first]:%Y-%m-%d}"
    if ends[first] - datetime.now(UTC) >= certificates.SOON:
        return Finding(subject, "ok", text)
    state: State = "problem" if ends[first] <= datetime.now(UTC) else "warning"
    way_out = "remove its .pem, run deploy/certificates.sh, and start again what uses it"
    return Finding(subject, state, text, way_out)


def _ends(settings: OrchestratorSettings) -> Iterator[tuple[str, datetime]]:
    if settings.tls_ca is None:
        return
    for path in (settings.tls_ca, settings.tls_client_certificate):
        if path is not None:
            yield str(path), certificates.valid_until(path)
    for service in SERVICES:
        for replica in replicas_at(settings.address_of(service)):
            until = encryption.valid_until(replica.address)
            if until is not None:
                yield f"that of {service}", until


def prefect() -> Finding:
    """Prefect's server, if this process is told of one."""
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        return Finding("Prefect", "ok", "no server is set: runs have one of their own")
    try:
        version = prefect_version(url)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            return Finding(
                "Prefect", "problem", f"{url} answers {error}", "correct PREFECT_API_URL"
            )
        way_out = "set PREFECT_API_AUTH_STRING to its user:password (respan:RESPAN_PAGE_PASSWORD)"
        return Finding("Prefect", "problem", f"{url} refuses the password of this side", way_out)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        way_out = "start it (`respan up`, or `docker compose up`), or correct PREFECT_API_URL"
        return Finding("Prefect", "problem", f"{url} does not answer: {reason}", way_out)
    ours = importlib.metadata.version("prefect")
    if version == ours:
        return Finding("Prefect", "ok", f"{url} answers: version {version}")
    text = f"{url} has version {version}, this side {ours}"
    return Finding("Prefect", "warning", text, "bring both to one version")


def prefect_version(url: str) -> str:
    """Version of the Prefect server whose API is at a URL.

    Raises
    ------
    OSError
        If it does not answer, or answers that it does not know this side.
    ValueError
        If something else answers.
    """
    request = urllib.request.Request(f"{url}/admin/version")
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return str(json.load(answer))

"""Why a service cannot be talked to over TLS; gRPC itself says no more than "unavailable"."""

from __future__ import annotations

import socket
import ssl
from datetime import datetime
from pathlib import Path

from respan_common import certificates
from respan_orchestrator.settings import OrchestratorSettings

_TIMEOUT_S = 3.0
_EXPIRED, _OTHER_NAMES = 10, (62, 64)
"""Codes of X509_verify_cert."""


def own_problem(settings: OrchestratorSettings) -> str:
    """What is wrong with the certificates on this side; empty if nothing is."""
    if settings.tls_ca is None:
        return ""
    found = certificates.problem(settings.tls_ca)
    if not found and settings.tls_client_certificate:
        key = settings.tls_client_key
        if key is None:
            return "RESPAN_TLS_CLIENT_CERTIFICATE needs RESPAN_TLS_CLIENT_KEY as well"
        found = certificates.problem(settings.tls_client_certificate, key)
    return found


def problem(address: str, settings: OrchestratorSettings, authority: str = "") -> str:
    """What keeps this side and a service from understanding each other; empty if they do.

    Also empty where nobody answers at all, or where the address is no host:port. `authority` is
    the host:port that its certificate is for, if it is not the address.
    """
    found = own_problem(settings)
    host, _, port = address.rpartition(":")
    if found or not host or not port.isdigit():
        return found
    place = (host, int(port))
    if settings.tls_ca is None:
        return _plain_problem(place)
    try:
        name = (authority or address).rpartition(":")[0]
        return _encrypted_problem(place, name, settings, settings.tls_ca)
    except OSError:
        return ""


def valid_until(address: str) -> datetime | None:
    """When the certificate that a service shows runs out; None if it shows none."""
    host, _, port = address.rpartition(":")
    shown = _shown_certificate((host, int(port))) if host and port.isdigit() else b""
    return certificates.end_of(shown) if shown else None


def _plain_problem(place: tuple[str, int]) -> str:
    if _shown_certificate(place):
        return "it speaks TLS only: name the authority of its certificate in RESPAN_TLS_CA"
    return ""


def _shown_certificate(place: tuple[str, int]) -> bytes:
    """The certificate that a server shows, whoever signed it; empty if it shows none."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place, _TIMEOUT_S) as plain,
            anyone.wrap_socket(plain, server_hostname=place[0]) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True) or b""
    except OSError:
        return b""


def _encrypted_problem(
    place: tuple[str, int], name: str, settings: OrchestratorSettings, authority: Path
) -> str:
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    if settings.tls_client_certificate and settings.tls_client_key:
        context.load_cert_chain(settings.tls_client_certificate, settings.tls_client_key)
    try:
        with (
            socket.create_connection(place, _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            # A server that refuses our certificate hangs up only now; others speak first in HTTP/2.
            return "" if _speaks(encrypted) else _refusal(settings)
    except ssl.SSLCertVerificationError as error:
        return _distrust(place, name, error, authority)
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            return "it speaks no TLS: give it RESPAN_TLS_CERTIFICATE, or unset RESPAN_TLS_CA here"
        return f"TLS fails: {error.reason or error}"


def _speaks(encrypted: ssl.SSLSocket) -> bool:
    try:
        return bool(encrypted.recv(1))
    except (ssl.SSLError, ConnectionResetError):
        return False


def _distrust(
    place: tuple[str, int], name: str, error: ssl.SSLCertVerificationError, authority: Path
) -> str:
    if error.verify_code == _EXPIRED:
        until = valid_until(f"{place[0]}:{place[1]}")
        day = f" on {until:%Y-%m-%d}" if until else ""
        return (
            f"its certificate expired{day}: where it runs, remove the old one, run "
            "deploy/certificates.sh and start it again"
        )
    if error.verify_code in _OTHER_NAMES:
        return (
            f"its certificate is not for the name {name}: call it by a name in its "
            "certificate, or make one for this name (deploy/certificates.sh NAME)"
        )
    return (
        f"its certificate is not signed by the authority in {authority} (RESPAN_TLS_CA): give the "
        f"authority that signed it ({error.verify_message})"
    )


def _refusal(settings: OrchestratorSettings) -> str:
    if settings.tls_client_certificate is None:
        return (
            "it asks for a certificate of ours: name it in RESPAN_TLS_CLIENT_CERTIFICATE and "
            "RESPAN_TLS_CLIENT_KEY"
        )
    return (
        f"it does not accept the certificate {settings.tls_client_certificate}: that must be "
        "signed by the authority in the service's RESPAN_TLS_CLIENT_CA"
    )

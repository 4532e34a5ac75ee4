"""Certificates in files: until when they are good, and whether a key is theirs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOON = timedelta(days=30)
"""Certificates that run out so soon are worth a word."""
_WAY_OUT = (
    "remove its .pem where it was made, run deploy/certificates.sh there (or have its maker make "
    "another), and start the service again"
)
_SEQUENCE, _UTC_TIME = 0x30, 0x17


def problem(certificate: Path, key: Path | None = None) -> str:
    """What is wrong with a certificate, and with its key if one is given; empty if nothing is."""
    try:
        until = valid_until(certificate)
    except OSError as error:
        return f"the certificate {certificate} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{certificate} is no certificate in PEM format ({error})"
    if until <= datetime.now(UTC):
        return f"the certificate {certificate} expired on {until:%Y-%m-%d}: {_WAY_OUT}"
    return _key_problem(certificate, key) if key else ""


def warning(certificate: Path) -> str:
    """That a good certificate runs out soon; empty if it does not."""
    until = valid_until(certificate)
    if until - datetime.now(UTC) >= SOON:
        return ""
    return f"the certificate {certificate} runs out on {until:%Y-%m-%d}: {_WAY_OUT}"


def valid_until(certificate: Path) -> datetime:
    """When the first certificate of a PEM file runs out, in UTC.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds no certificate.
    """
    text = certificate.read_text(encoding="ascii", errors="replace")
    start, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if start < 0 or end < start:
        raise ValueError("it has no BEGIN CERTIFICATE and END CERTIFICATE")
    return end_of(ssl.PEM_cert_to_DER_cert(text[start : end + len(ssl.PEM_FOOTER)]))


def end_of(der: bytes) -> datetime:
    """When a certificate in DER format runs out, in UTC; ValueError if it is none."""
    try:
        # RFC 5280: signature, issuer and validity are the first three sequences of what is signed.
        (_, whole), *_ = _elements(der)
        (_, signed), *_ = _elements(whole)
        _, _, validity, *_ = [part for tag, part in _elements(signed) if tag == _SEQUENCE]
        _, (tag, end_text) = _elements(validity)
        pattern = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(end_text.decode("ascii"), pattern).replace(tzinfo=UTC)
    except IndexError as error:
        raise ValueError("it is cut off") from error


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in a row (X.690, DER)."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            digits = length & 0x7F
            length, at = int.from_bytes(der[at : at + digits]), at + digits
        yield tag, der[at : at + length]
        at += length


def _key_problem(certificate: Path, key: Path) -> str:
    try:
        key.read_bytes()
        # An empty password: else OpenSSL asks the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key {key} is not that of the certificate {certificate}: give its own"
        return f"{key} is no unencrypted key in PEM format: give that of {certificate}"
    except OSError as error:
        return f"the key {key} cannot be read ({error.strerror}): let this user read it"
    return ""

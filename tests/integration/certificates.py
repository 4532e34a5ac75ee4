"""Certificates as deploy/certificates.sh makes them, and others that it never would."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

SCRIPT = Path(__file__).parents[2] / "deploy" / "certificates.sh"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def make(folder: Path, *names: str) -> str:
    """Run the script on a folder; what it says."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: the script needs it")
    environment = os.environ | {"RESPAN_CERTIFICATES": str(folder)}
    done = subprocess.run(
        [SCRIPT, *names], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ending(folder: Path, name: str, until: datetime, copy: str = "old") -> Path:
    """A copy of a certificate that ends at another time, signed by the same authority."""
    old = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
    builder = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        x509.random_serial_number(),
        until - timedelta(days=30),
        until,
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path = folder / f"{copy}-{name}.pem"
    pem = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(pem)
    return path

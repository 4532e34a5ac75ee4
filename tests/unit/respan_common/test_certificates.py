from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from respan_common import certificates

NOW = datetime.now(UTC).replace(microsecond=0)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "segmentation")])


def write(folder: Path, until: datetime, name: str = "service") -> tuple[Path, Path]:
    """Certificate and key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = until - timedelta(days=90)
    builder = x509.CertificateBuilder(
        NAME, NAME, key.public_key(), x509.random_serial_number(), begin, until
    )
    pem = serialization.Encoding.PEM
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    paths[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.mark.parametrize(
    "until", [NOW, NOW + timedelta(days=700), datetime(2061, 5, 4, 3, 2, 1, tzinfo=UTC)]
)
def test_the_end_is_read_to_the_second_in_both_ways_of_writing_it(tmp_path, until):
    certificate, _ = write(tmp_path, until)
    assert certificates.valid_until(certificate) == until


def test_a_good_pair_is_no_problem_and_a_file_may_begin_with_other_text(tmp_path):
    certificate, key = write(tmp_path, NOW + timedelta(days=80))
    certificate.write_text("subject: me\n" + certificate.read_text())
    assert certificates.problem(certificate, key) == ""
    assert certificates.warning(certificate) == ""


def test_one_that_runs_out_within_a_month_is_worth_a_warning(tmp_path):
    certificate, key = write(tmp_path, NOW + timedelta(days=29))
    assert certificates.problem(certificate, key) == ""
    assert f"{NOW + timedelta(days=29):%Y-%m-%d}" in certificates.warning(certificate)


def test_an_expired_one_says_since_when_and_how_to_get_another(tmp_path):
    certificate, key = write(tmp_path, NOW - timedelta(days=3))
    text = certificates.problem(certificate, key)
    assert f"expired on {NOW - timedelta(days=3):%Y-%m-%d}" in text
    assert "run deploy/certificates.sh" in text


def test_anothers_key_is_named(tmp_path):
    certificate, _ = write(tmp_path, NOW + timedelta(days=80))
    _, key = write(tmp_path, NOW + timedelta(days=80), "other")
    assert "other.key is not that of" in certificates.problem(certificate, key)


@pytest.mark.parametrize("content", ["", "words", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_or_no_certificate_is_named(tmp_path, content):
    certificate, key = write(tmp_path, NOW + timedelta(days=80))
    bad = tmp_path / "bad.pem"
    bad.write_text(content)
    assert "bad.pem is no unencrypted key" in certificates.problem(certificate, bad)
    assert "bad.pem is no certificate" in certificates.problem(bad, key)


def test_a_certificate_that_is_cut_off_is_named(tmp_path):
    certificate, _ = write(tmp_path, NOW + timedelta(days=80))
    first, *lines, last = certificate.read_text().splitlines()
    for content in (lines[:1], lines[:2], ["AAAA"], ["!"]):
        certificate.write_text("\n".join([first, *content, last]))
        assert "is no certificate" in certificates.problem(certificate)


def test_a_missing_file_is_named(tmp_path):
    certificate, key = write(tmp_path, NOW + timedelta(days=80))
    key.unlink()
    assert "service.key cannot be read" in certificates.problem(certificate, key)
    certificate.unlink()
    assert "service.pem cannot be read" in certificates.problem(certificate)

"""TLS with certificates on both sides and a token, between real processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from tests.integration import certificates
from tests.integration.servers import Probed, probe_service

from respan_common import __version__
from respan_orchestrator import clients, encryption, service_checks
from respan_orchestrator.clients import StageFailedError, StageUnavailableError
from respan_orchestrator.findings import Finding
from respan_orchestrator.service_checks import encrypted, services
from respan_orchestrator.settings import OrchestratorSettings


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_LOOK_CLOSER_S", 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    certificates.make(path)
    return path


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another authority."""
    path = tmp_path_factory.mktemp("strangers")
    certificates.make(path)
    return path


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    with probe_service(
        tmp_path_factory.mktemp("probe"),
        tls_certificate=folder / "segmentation.pem",
        tls_key=folder / "segmentation.key",
        tls_client_ca=folder / "authority.pem",
        token_file=folder / "token",
    ) as running:
        yield running


def caller(folder: Path, **other: Path | str | None) -> OrchestratorSettings:
    """Settings of a worker with everything that it needs."""
    given: dict[str, Path | str | None] = {
        "tls_ca": folder / "authority.pem",
        "tls_client_certificate": folder / "worker.pem",
        "tls_client_key": folder / "worker.key",
        "token_file": folder / "token",
    }
    return OrchestratorSettings(**(given | other))


def refusal(address: str, settings: OrchestratorSettings) -> str:
    """Why the service cannot be used, said at once and as a failure that is not retried."""
    with pytest.raises(StageFailedError) as caught:
        clients.describe("segmentation", address, settings, timeout_s=60)
    assert not isinstance(caught.value, StageUnavailableError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def bare_server(folder: Path, certificate: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """A gRPC server without services that shows a certificate, good or not."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pair = ((folder / "segmentation.key").read_bytes(), certificate.read_bytes())
    port = server.add_secure_port(f"{host}:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"{host}:{port}"
    server.stop(0).wait()


def test_the_script_makes_all_and_changes_nothing_that_is_there(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    services = ("restoration", "segmentation", "quantification", "training", "worker")
    made = {f"{name}.{kind}" for name in (*services, "authority") for kind in ("pem", "key")}
    assert {path.name for path in before} == made | {"token"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    said = certificates.make(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert said.count("is good until") == 6


def test_a_certificate_that_was_removed_is_made_anew_and_an_old_one_pointed_out(tmp_path):
    certificates.make(tmp_path)
    old = certificates.ending(tmp_path, "training", certificates.YESTERDAY)
    old.replace(tmp_path / "training.pem")
    assert "remove training.pem" in certificates.make(tmp_path)
    (tmp_path / "training.pem").unlink()
    key = (tmp_path / "training.key").read_bytes()
    said = certificates.make(tmp_path, "gpu1.lab.example", "10.1.2.3")
    assert "remove" not in said
    assert (tmp_path / "training.key").read_bytes() == key
    with bare_server(tmp_path, tmp_path / "segmentation.pem") as address:
        assert (
            encryption.problem(address, OrchestratorSettings(tls_ca=tmp_path / "authority.pem"))
            == ""
        )


def test_worker_and_service_understand_each_other(service, folder):
    for host in ("localhost", "127.0.0.1"):
        answer = clients.describe("segmentation", f"{host}:{service.port}", caller(folder))
        assert answer.service == "segmentation"
        assert clients.ailment(f"{host}:{service.port}", caller(folder)) == ""


def test_the_containers_probe_finds_it_well(service, folder):
    environment = os.environ | {
        "RESPAN_TLS_CERTIFICATE": str(folder / "segmentation.pem"),
        "RESPAN_PORT": str(service.port),
    }
    probe = [sys.executable, "-m", "respan_common.health"]
    assert subprocess.run(probe, env=environment, timeout=30).returncode == 0


def test_every_misunderstanding_has_its_own_words(service, folder, strangers):
    address = f"localhost:{service.port}"
    nothing_of_ours = {"tls_client_certificate": None, "tls_client_key": None}
    theirs = {
        "tls_client_certificate": strangers / "worker.pem",
        "tls_client_key": strangers / "worker.key",
    }
    other_authority = {"tls_ca": strangers / "authority.pem"}
    said = {
        "RESPAN_TLS_CLIENT_CERTIFICATE": refusal(address, caller(folder, **nothing_of_ours)),
        "RESPAN_TLS_CLIENT_CA": refusal(address, caller(folder, **theirs)),
        "(RESPAN_TLS_CA)": refusal(address, caller(folder, **other_authority)),
        "it speaks TLS only": refusal(address, caller(folder, tls_ca=None)),
        "RESPAN_TOKEN": refusal(address, caller(folder, token_file=None)),
        "RESPAN_TOKEN_FILE": refusal(address, caller(folder, token_file=None, token="wrong-one")),
    }
    for words, text in said.items():
        assert words in text
        assert "wrong-one" not in text
    assert "wrong-one" not in service.log
    assert (folder / "token").read_text().strip() not in service.log


def test_a_service_is_called_by_a_name_of_its_certificate(folder):
    with bare_server(folder, folder / "segmentation.pem", "127.0.0.2") as address:
        text = refusal(address, caller(folder))
    assert "not for the name 127.0.0.2" in text


def test_an_expired_certificate_is_named_with_its_day(folder):
    day = f"expired on {certificates.YESTERDAY:%Y-%m-%d}"
    old = certificates.ending(folder, "segmentation", certificates.YESTERDAY)
    with bare_server(folder, old) as address:
        text = refusal(address, caller(folder))
        assert day in clients.ailment(address, caller(folder))
    assert day in text
    assert "deploy/certificates.sh" in text
    ours = certificates.ending(folder, "worker", certificates.YESTERDAY)
    text = refusal("localhost:1", caller(folder, tls_client_certificate=ours))
    assert day in text
    assert str(ours) in text


def test_a_service_without_tls_is_no_riddle(folder, tmp_path):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert "it speaks no TLS" in refusal(f"localhost:{port}", caller(folder))
    server.stop(0).wait()


def test_doctor_finds_the_service_well_and_names_what_is_wrong(service, folder, monkeypatch):
    address = f"localhost:{service.port}"

    def finding(**other: Path | str | None) -> Finding:
        settings = caller(folder, segmentation_address=address, **other)
        return {one.subject: one for one in services(settings)}["Service segmentation"]

    assert finding().state == "ok"
    assert __version__ in finding().text
    refused = finding(token_file=None, token="wrong-one")
    assert refused.state == "problem"
    assert "RESPAN_TOKEN" in refused.text
    assert "wrong-one" not in str(refused)
    monkeypatch.setattr(service_checks, "__version__", "99.0")
    assert finding().state == "warning"
    assert "99.0" in finding().way_out


def test_doctor_tells_which_certificate_runs_out_first(folder):
    soon = datetime.now(UTC) + timedelta(days=20)
    settings = caller(folder)
    assert encrypted(settings).state == "ok"
    ours = certificates.ending(folder, "worker", soon)
    finding = encrypted(caller(folder, tls_client_certificate=ours))
    assert finding.state == "warning"
    assert f"{soon:%Y-%m-%d}" in finding.text
    theirs = certificates.ending(folder, "segmentation", soon)
    with bare_server(folder, theirs) as address:
        finding = encrypted(caller(folder, segmentation_address=address))
    assert "that of segmentation" in finding.text
    theirs.unlink()
    assert encrypted(caller(folder, tls_client_certificate=theirs)).state == "problem"
    assert encrypted(OrchestratorSettings()).state == "ok"

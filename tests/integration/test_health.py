from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from tests.integration.servers import probe_service


def probe(*arguments: str, **environment: str) -> int:
    """Exit code of the probe."""
    command = [sys.executable, "-m", "respan_common.health", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RESPAN_")}
    return subprocess.run(command, env=clean | environment, timeout=30).returncode


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with probe_service(tmp_path_factory.mktemp("probe"), token="secret") as running:
        yield running


@pytest.fixture
def deaf_port():
    """A port that accepts connections and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def test_a_service_that_serves_is_well_and_needs_no_token_for_it(service):
    assert probe(f"127.0.0.1:{service.port}") == 0


def test_the_port_comes_from_the_services_own_setting(service):
    assert probe(RESPAN_PORT=str(service.port)) == 0


def test_a_port_that_nobody_listens_on_is_ill():
    assert probe("127.0.0.1:1") == 1
    assert probe("127.0.0.1:1", RESPAN_TLS_CERTIFICATE="server.pem") == 1


def test_a_server_that_does_not_answer_is_ill(deaf_port):
    assert probe(f"127.0.0.1:{deaf_port}") == 1


def test_of_a_service_with_tls_only_the_port_is_probed(deaf_port):
    assert probe(f"127.0.0.1:{deaf_port}", RESPAN_TLS_CERTIFICATE="server.pem") == 0

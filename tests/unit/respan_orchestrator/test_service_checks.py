from __future__ import annotations

import base64
import importlib.metadata
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from respan_orchestrator.service_checks import prefect

LOGIN = "respan:open-sesame"


class FakePrefect(BaseHTTPRequestHandler):
    """Its version, for those who know the password."""

    version = importlib.metadata.version("prefect")

    def do_GET(self) -> None:
        expected = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        known = self.headers.get("Authorization") == expected
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.version).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), FakePrefect)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", LOGIN)
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_a_server_runs_have_their_own(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert prefect().state == "ok"


def test_a_server_of_this_version_is_ok(server):
    assert prefect().state == "ok"
    assert server in prefect().text


def test_a_server_of_another_version_is_a_warning(server, monkeypatch):
    monkeypatch.setattr(FakePrefect, "version", "2.0.0")
    assert prefect().state == "warning"
    assert "2.0.0" in prefect().text


@pytest.mark.parametrize("login", ["", "respan:wrong"])
def test_a_password_that_is_refused_names_its_variable_and_is_not_shown(server, monkeypatch, login):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", login)
    finding = prefect()
    assert finding.state == "problem"
    assert "PREFECT_API_AUTH_STRING" in finding.way_out
    assert "wrong" not in str(finding)


def test_a_server_that_does_not_answer_is_a_problem(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    finding = prefect()
    assert finding.state == "problem"
    assert "127.0.0.1:1" in finding.text

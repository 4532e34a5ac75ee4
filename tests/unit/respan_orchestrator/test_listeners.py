from __future__ import annotations

import os
import socket

import pytest

from respan_orchestrator.listeners import is_taken, listener


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_whoever_listens_is_named(family, host):
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with server:
        assert listener(server.getsockname()[1]).endswith(f"process {os.getpid()}")


def test_a_port_is_taken_as_long_as_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_taken(port)
    assert not is_taken(port)
    assert listener(port) == ""

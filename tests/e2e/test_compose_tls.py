"""The containers with TLS, certificates on both sides and a token, as compose.tls.yaml has them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.e2e.containers import OWNER, Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

INCOMPLETE = {
    "certificate": (
        ["RESPAN_TLS_CLIENT_CERTIFICATE", "RESPAN_TLS_CLIENT_KEY"],
        "it asks for a certificate of ours",
    ),
    "encryption": (
        ["RESPAN_TLS_CA", "RESPAN_TLS_CLIENT_CERTIFICATE", "RESPAN_TLS_CLIENT_KEY"],
        "it speaks TLS only",
    ),
    "token": (["RESPAN_TOKEN_FILE"], "RESPAN_TOKEN"),
}
"""What a client may lack: variables, and how that is called."""


@pytest.fixture(scope="module")
def encrypted(stack, tmp_path_factory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("certificates")
    stack.command("deploy/certificates.sh", RESPAN_CERTIFICATES=str(folder))
    for path in folder.iterdir():
        os.chown(path, OWNER, -1)
    encrypted = stack.seen_by(
        COMPOSE_FILE=stack.files("deploy/compose.tls.yaml"), RESPAN_CERTIFICATES=str(folder)
    )
    encrypted.up()
    yield encrypted
    stack.up()


@pytest.mark.parametrize("missing", INCOMPLETE)
def test_a_client_that_lacks_something_is_refused(encrypted, missing):
    variables, message = INCOMPLETE[missing]
    without = ["env", *(f"--unset={name}" for name in variables)]
    synth = ["respan", "synth", "/data/refused", "--json"]
    done = encrypted.attempt("docker", "compose", "exec", "-T", "worker", *without, *synth)
    assert done.returncode == 2, done
    assert message in done.stdout
    assert not (encrypted.data / "refused" / "images").exists()

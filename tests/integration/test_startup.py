"""A service that cannot start says so in one line, and shows no secret in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration import certificates
from tests.integration.servers import SERVICE

SECRET = "open-sesame"


def refused(command: list[str | Path], **settings: Path | str) -> str:
    """The one line of a service that does not start."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RESPAN_")}
    environment |= {f"RESPAN_{name.upper()}": str(value) for name, value in settings.items()}
    environment["RESPAN_TOKEN"] = SECRET
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert SECRET not in done.stderr + done.stdout
    (line,) = done.stderr.splitlines()
    return line


def test_an_expired_certificate(tmp_path):
    certificates.make(tmp_path)
    old = certificates.ending(tmp_path, "segmentation", certificates.YESTERDAY)
    line = refused([SERVICE], tls_certificate=old, tls_key=tmp_path / "segmentation.key")
    assert f"expired on {certificates.YESTERDAY:%Y-%m-%d}" in line
    assert "deploy/certificates.sh" in line


def test_a_folder_that_is_not_there_as_a_line_for_machines(tmp_path):
    line = refused([SERVICE], data_roots=tmp_path / "absent", log_json="true")
    assert f"no folder {tmp_path / 'absent'}" in json.loads(line)["message"]


def test_settings_that_nobody_can_mean():
    line = refused(["-m", "respan_quantification"], port="many", device="gpu")
    assert "RESPAN_PORT: " in line
    assert "RESPAN_DEVICE: " in line

"""The report about known holes: it finds them, and never stands in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / ".ci" / "audit.py"
HOLE = {"id": "PYSEC-1", "fix_versions": ["1.2"]}
ANSWER = {
    "dependencies": [
        {"name": "safe", "version": "1", "vulns": []},
        {"name": "holed", "version": "1.1", "vulns": [HOLE]},
        {"name": "own", "skip_reason": "not on PyPI"},
    ]
}


def report(folder: Path, program: str, *locks: str) -> list[str]:
    path = folder / "pip-audit"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    command = [sys.executable, SCRIPT, path, *locks]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_holes_are_reported_once_with_the_version_that_has_none(tmp_path):
    lines = report(tmp_path, f"echo '{json.dumps(ANSWER)}'; exit 1", "a.txt", "b.txt")
    assert lines == [
        "a.txt: 2 of 3 packages audited",
        "b.txt: 2 of 3 packages audited",
        "holed 1.1: PYSEC-1, repaired in 1.2",
        "1 known holes in what was audited",
    ]


@pytest.mark.parametrize(
    "program",
    [
        "echo no route to host >&2; exit 1",
        "echo nonsense",
        """echo '{"dependencies": [{"name": "own", "skip_reason": "?"}]}'""",
    ],
)
def test_advisories_that_cannot_be_asked_are_no_failure_and_asked_once(tmp_path, program):
    lines = report(tmp_path, program, "a.txt", "b.txt")
    assert lines[0].startswith("a.txt: not audited")
    assert len(lines) == 2


def test_advisories_that_never_answer_are_not_waited_for(tmp_path):
    script = tmp_path / "audit.py"
    script.write_text(SCRIPT.read_text().replace("_LIMIT_S = 50.0", "_LIMIT_S = 0.5"))
    program = tmp_path / "pip-audit"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    command = [sys.executable, script, program, "a.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "no answer in time" in done.stdout

"""What importing a package costs. Who may import whom is checked by `lint-imports`."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "tensorflow", "nnunetv2", "csbdeep", "cupy", "prefect", "pandas", "scipy"}


@pytest.mark.parametrize("name", ["restoration", "segmentation", "quantification", "training"])
def test_a_server_answers_without_loading_a_framework(name):
    code = f"import sys, respan_{name}.__main__; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY & set(loaded.stdout.split()) == set()


def test_the_command_line_starts_without_what_is_heavy():
    code = "import sys, respan_orchestrator.__main__; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY & set(loaded.stdout.split()) == set()

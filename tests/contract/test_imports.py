"""What importing a package costs. Who may import whom is checked by `lint-imports`."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "tensorflow", "nnunetv2", "csbdeep", "cupy", "prefect", "pandas", "scipy"}


@pytest.mark.parametrize("name", ["restoration", "segmentation", "quantification", "training"])
def test_a_server_answers_without_loading_a_framework(name):
    assert HEAVY & loaded_with(f"respan_{name}.server", "respan_common.serving") == set()


@pytest.mark.parametrize("name", ["restoration", "segmentation", "quantification", "training"])
def test_a_worker_starts_without_what_only_a_server_needs(name):
    worker = loaded_with(f"respan_{name}.__main__", "respan_common.worker")
    assert {"grpc", "prometheus_client", "respan.v1"} & worker == set()


def test_the_command_line_starts_without_what_is_heavy():
    assert HEAVY & loaded_with("respan_orchestrator.__main__") == set()


def loaded_with(*modules: str) -> set[str]:
    """Everything that importing some modules loads."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())

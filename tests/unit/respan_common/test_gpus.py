from __future__ import annotations

from pathlib import Path

import pytest

from respan_common import gpus
from respan_common.gpus import driver_problem, driver_version, visible_gpus

A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"
PART = "MIG-cccccccc-0000-0000-0000-000000000000"
TWO = f"GPU 0: NVIDIA A40 (UUID: {A})\nGPU 1: NVIDIA GeForce RTX 4090 (UUID: {B})\n"
SPLIT = (
    f"GPU 0: NVIDIA A100 (UUID: {A})\n  MIG 1g.5gb     Device  0: (UUID: {PART})\n"
    f"GPU 1: NVIDIA A100 (UUID: {B})\n"
)


@pytest.fixture(autouse=True)
def driver(tmp_path, monkeypatch) -> Path:
    """Where the driver tells about itself; there is none yet, and no nvidia-smi."""
    monkeypatch.setattr(gpus, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(gpus, "_WSL_SMI", str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "proc"


@pytest.fixture
def smi(tmp_path):
    """Installs an nvidia-smi that says something."""

    def install(text: str, code: int = 0) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)

    return install


def test_without_a_driver_there_is_no_gpu_and_no_problem():
    assert visible_gpus() == []
    assert driver_version() == ""
    assert driver_problem("13.0") == ""


def test_gpus_are_those_of_nvidia_smi_in_its_order(smi):
    smi(TWO)
    assert visible_gpus() == [A, B]


def test_a_gpu_that_is_split_counts_as_its_parts(smi):
    smi(SPLIT)
    assert visible_gpus() == [PART, B]


@pytest.mark.parametrize("code", [None, 9])
def test_where_nvidia_smi_is_absent_or_fails_the_driver_is_asked(driver, smi, code):
    if code is not None:
        smi("Failed to initialize NVML: Driver/library version mismatch", code)
    for bus, uuid in (("0000:3b:00.0", B), ("0000:01:00.0", A)):
        folder = driver / "gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA\nGPU UUID: \t {uuid}\n")
    assert visible_gpus() == [A, B]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("1", [B]),
        ("1,0", [B, A]),
        ("GPU-bbbb", [B]),
        (B, [B]),
        ("", []),
        ("-1", []),
        ("GPU-", []),  # names both
        ("0,7,1", [A]),  # as for CUDA, what follows a wrong number is not there
        ("void", []),
    ],
)
def test_cuda_visible_devices_chooses_as_for_cuda(smi, monkeypatch, wanted, expected):
    smi(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build",
    ],
)
def test_the_driver_says_its_version(driver, line):
    driver.mkdir()
    (driver / "version").write_text(f"{line}\nGCC version: gcc version 12.3.0\n")
    assert driver_version() == "535.104.05"


def test_where_there_is_no_version_file_nvidia_smi_says_it(smi):
    smi("570.133.07")
    assert driver_version() == "570.133.07"


def test_an_old_driver_is_named_with_the_one_that_is_needed(smi):
    smi("535.104.05")
    assert "535.104.05 is too old for CUDA 13.0, which needs 580 or newer" in driver_problem("13.0")
    assert driver_problem("12.9") == ""
    assert driver_problem(None) == ""


def test_a_new_enough_driver_is_no_problem(smi):
    smi("580.65.06")
    assert driver_problem("13.0") == ""

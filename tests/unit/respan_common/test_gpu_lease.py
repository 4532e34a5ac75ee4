from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"
USER = Path(__file__).with_name("gpu_user.py")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Two GPUs, and a folder of leases that is not there yet."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho 'GPU 0: X (UUID: {A})'\necho 'GPU 1: X (UUID: {B})'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LEASES", str(tmp_path / "run" / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "run" / "leases"


class User:
    """A process that has taken GPUs, or said why not."""

    def __init__(self, most: int, service: str = "segmentation") -> None:
        self.process = subprocess.Popen(
            [sys.executable, USER, str(most), service],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said = self.process.stdout.readline().strip()

    def answer(self, question: str) -> str:
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def start(machine):
    users = []

    def started(*arguments) -> User:
        users.append(User(*arguments))
        return users[-1]

    yield started
    for user in users:
        user.process.kill()
        user.process.communicate()


def test_who_needs_one_gpu_leaves_the_others(start):
    assert [start(1).said, start(1).said] == [A, B]
    assert start(1).said.startswith("BusyError")


def test_who_uses_all_takes_those_that_are_free(start):
    start(1)
    assert start(0).said == B


def test_who_has_all_of_them_needs_not_choose(start):
    assert start(0).said == "as they are"


def test_only_visible_gpus_are_taken_and_by_name(start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert start(0).said == B
    assert start(0).said.startswith("BusyError")


def test_every_holder_is_named(start):
    start(1, "training"), start(1, "restoration")
    refusal = start(1).said
    assert "held by training since" in refusal
    assert "and restoration since" in refusal


def test_services_of_every_user_can_use_the_folder_and_its_locks(start, machine):
    start(0)
    assert stat.S_IMODE(machine.stat().st_mode) == 0o1777
    assert {path.name for path in machine.iterdir()} == {A, B}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o666 for path in machine.iterdir())


def test_a_torn_signature_does_not_matter(start, machine):
    holder = start(0)
    assert holder.said == "as they are"
    (machine / A).write_text('{"service": "segm')
    (machine / B).write_text("")
    assert "held by a process that has not said its name" in start(1).said


def test_a_holder_knows_whether_somebody_waits(start, machine):
    holder = start(0)
    assert holder.answer("idle") == "not wanted"
    with (machine / f"{B}.wanted").open("w") as wish:
        fcntl.flock(wish, fcntl.LOCK_SH)
        assert holder.answer("idle") == "wanted"
        assert holder.answer("turn") == "not wanted"  # it has only just begun
        assert holder.answer("turn over") == "wanted"
    assert holder.answer("idle") == "not wanted"


def test_a_process_that_waits_gets_what_becomes_free_and_no_longer_wishes(
    start, machine, monkeypatch
):
    holder = start(0)
    monkeypatch.setenv("WAIT_S", "60")
    waiter = subprocess.Popen(
        [sys.executable, USER, "1", "restoration"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while holder.answer("idle") == "not wanted":
            assert waiter.poll() is None
            time.sleep(0.05)
        holder.process.kill()
        holder.process.wait()
        assert waiter.stdout.readline().strip() == A
        with (machine / f"{A}.wanted").open("w") as wish:
            fcntl.flock(wish, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        waiter.kill()
        waiter.communicate()

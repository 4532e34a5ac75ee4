"""A machine whose only GPU another service uses."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from respan_common.settings import Runtime

GPU = "GPU-11111111-2222-3333-4444-555555555555"


def install_gpu(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have `nvidia-smi` list a GPU, in this process and those that it starts."""
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && echo 'GPU 0: NVIDIA Fake (UUID: {GPU})'\n")
    smi.chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@contextmanager
def taken_gpu(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """What a stage gets on such a machine; it does not wait."""
    install_gpu(folder, patch)
    leases = folder / "leases"
    leases.mkdir()
    with (leases / GPU).open("w") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        holder = {"service": "microscope", "pid": 1, "host": "here", "since": 0}
        lease.write(json.dumps(holder))
        lease.flush()
        yield Runtime("auto", 1, leases, gpu_wait_s=0)

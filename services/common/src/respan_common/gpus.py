"""NVIDIA's GPUs and their driver, asked for without touching CUDA.

A process that touches CUDA takes some hundred megabytes of every GPU that it sees, and keeps them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROC = Path("/proc/driver/nvidia")
_WSL_SMI = "/usr/lib/wsl/lib/nvidia-smi"
_SMI_TIMEOUT_S = 30.0
"""A driver that nobody has used for a while needs seconds to wake."""
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]+")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""Oldest major version of the driver that runs programs made for a major version of CUDA."""


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs that CUDA would use in this process, numbered as `nvidia-smi` does.

    A GPU that is split (MIG) counts as its parts.
    """
    return _chosen(_listed_by_smi() or _listed_by_driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def driver_version() -> str:
    """Version of NVIDIA's driver, such as "580.65.06"; empty without one."""
    try:
        first = (_PROC / "version").read_text().partition("\n")[0]
    except OSError:
        first = _smi("--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
    found = _VERSION.search(first)
    return found.group() if found else ""


def driver_problem(cuda: str | None) -> str:
    """What is wrong with this machine's driver for programs made for a version of CUDA.

    Empty where nothing is: the driver is new enough, or there is none, or the programs need none
    (`cuda` is None, as in PyTorch's build for processors).
    """
    version = driver_version()
    needed = _LEAST_DRIVER.get(int(cuda.partition(".")[0]), 0) if cuda else 0
    if not version or int(version.partition(".")[0]) >= needed:
        return ""
    return (
        f"NVIDIA's driver {version} is too old for CUDA {cuda}, which needs {needed} or newer: "
        "update the driver on this machine (in containers: on the host)"
    )


def _listed_by_smi() -> list[str]:
    found: list[str] = []
    split: set[str] = set()
    gpu = ""
    for line in _smi("-L").splitlines():
        uuid = _UUID.search(line.rpartition("UUID:")[2])
        if uuid is None:
            continue
        if line.startswith("GPU "):
            gpu = uuid.group()
        else:
            split.add(gpu)
        found.append(uuid.group())
    return [uuid for uuid in found if uuid not in split]


def _listed_by_driver() -> list[str]:
    """In the order of the bus, as the names of the folders are addresses."""
    texts = []
    for path in sorted(_PROC.glob("gpus/*/information")):
        try:
            texts.append(path.read_text())
        except OSError:
            continue
    return [found.group() for text in texts if (found := _UUID.search(text))]


def _chosen(gpus: Sequence[str], wanted: str | None) -> list[str]:
    """Those that CUDA_VISIBLE_DEVICES names; as for CUDA, what follows a wrong name is ignored."""
    if wanted is None:
        return list(gpus)
    chosen: list[str] = []
    for name in (part.strip() for part in wanted.split(",")):
        matches = [uuid for uuid in gpus if name and uuid.startswith(name)]
        if name.isdigit():
            matches = list(gpus[int(name) : int(name) + 1])
        if len(matches) != 1:
            break
        chosen += matches
    return chosen


def _smi(*arguments: str) -> str:
    """What `nvidia-smi` says; empty where it is absent or fails."""
    command = shutil.which("nvidia-smi") or _WSL_SMI
    try:
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""

"""Whether `docker compose up` would find what it needs on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from respan_orchestrator.findings import Finding

_TIMEOUT_S = 15.0
_LEAST_DOCKER, _LEAST_COMPOSE = (25, 0), (2, 24)
"""The first with `start_interval`, the first with `!reset`."""
_SPECIFICATIONS = (Path("/etc/cdi"), Path("/var/run/cdi"))
_TOOLKIT = (
    "install nvidia-container-toolkit, then `sudo nvidia-ctk runtime configure --runtime=docker` "
    "and restart Docker"
)
_DEFAULT_USER = "1000:1000"
_MOST_FOLDERS = 1000


def containers(has_gpu: bool, folder: Path) -> Iterator[Finding]:
    """Docker, Compose, the GPU in containers, and the folder of data that `.env` names."""
    if shutil.which("docker") is None:
        yield Finding("Docker", "ok", "not installed: only `docker compose up` needs it")
        return
    found = docker()
    yield found
    yield compose()
    if has_gpu and found.state == "ok":
        yield toolkit()
    variables = written_in(folder / ".env") | os.environ
    if variables.get("RESPAN_DATA"):
        yield volume(variables)


def docker() -> Finding:
    """Docker's engine and its version."""
    version, complaint = _say("docker", "version", "--format", "{{.Server.Version}}")
    if not _numbers(version):
        way_out = "start it (`sudo systemctl start docker`), or join the group `docker`"
        return Finding("Docker", "warning", f"does not answer: {complaint or version}", way_out)
    if _numbers(version) < _LEAST_DOCKER:
        way_out = f"update to {_LEAST_DOCKER[0]} or newer: docs.docker.com/engine/install"
        return Finding("Docker", "warning", f"{version} is too old", way_out)
    return Finding("Docker", "ok", version)


def compose() -> Finding:
    """Docker's plugin `compose`."""
    version, complaint = _say("docker", "compose", "version", "--short")
    least = ".".join(map(str, _LEAST_COMPOSE))
    way_out = f"install docker-compose-plugin {least} or newer: docs.docker.com/compose/install"
    if not _numbers(version):
        return Finding("Compose", "warning", f"is missing: {complaint or version}", way_out)
    if _numbers(version) < _LEAST_COMPOSE:
        return Finding("Compose", "warning", f"{version} is too old", way_out)
    return Finding("Compose", "ok", version)


def toolkit() -> Finding:
    """What lets containers use an NVIDIA GPU."""
    subject = "GPU in containers"
    answer, _ = _say("docker", "info", "--format", "{{json .Runtimes}}")
    try:
        runtimes = json.loads(answer) or {}
    except ValueError:
        runtimes = {}
    if "nvidia" in runtimes or shutil.which("nvidia-container-runtime-hook"):
        return Finding(subject, "ok", "NVIDIA's container toolkit is installed")
    if any(path for folder in _SPECIFICATIONS for path in folder.glob("nvidia*")):
        return Finding(subject, "ok", "GPUs are described for containers (CDI)")
    text = "NVIDIA's container toolkit is missing: containers would compute on the processor"
    return Finding(subject, "warning", text, _TOOLKIT)


def volume(variables: Mapping[str, str]) -> Finding:
    """Whether the containers' user may write to the folder of experiments."""
    subject = "Data of containers"
    folder = Path(variables["RESPAN_DATA"])
    if not folder.is_dir():
        way_out = "correct RESPAN_DATA in .env, or make the folder"
        return Finding(subject, "problem", f"RESPAN_DATA={folder} is no folder", way_out)
    user = variables.get("RESPAN_USER") or _DEFAULT_USER
    uid, _, gid = user.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        way_out = "write the numbers that `id -u` and `id -g` say"
        return Finding(subject, "problem", f"RESPAN_USER={user} is no pair of numbers", way_out)
    if any(_may_write(path, int(uid), int(gid or 0)) for path in _with_folders(folder)):
        return Finding(subject, "ok", f"{folder} can be written to by {user}")
    owner = folder.stat()
    text = f"{folder} belongs to {owner.st_uid}:{owner.st_gid}; RESPAN_USER={user} may not write"
    way_out = (
        f"set RESPAN_USER={owner.st_uid}:{owner.st_gid} in .env, or `sudo chown -R {user} {folder}`"
    )
    return Finding(subject, "problem", text, way_out)


def written_in(path: Path) -> dict[str, str]:
    """Variables of a `.env` file; empty without one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = (re.match(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$", line) for line in lines)
    return {one[1]: one[2].strip("'\"") for one in found if one}


def _with_folders(folder: Path) -> Iterator[Path]:
    yield folder
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(_MOST_FOLDERS), entries, strict=False):
                if entry.is_dir():
                    yield Path(entry.path)
    except OSError:
        return


def _may_write(folder: Path, uid: int, gid: int) -> bool:
    """By the bits of its mode: some other user is meant, who cannot be asked."""
    try:
        found = folder.stat()
    except OSError:
        return False
    if uid == 0:
        return True
    if uid == found.st_uid:
        return bool(found.st_mode & stat.S_IWUSR)
    if gid == found.st_gid:
        return bool(found.st_mode & stat.S_IWGRP)
    return bool(found.st_mode & stat.S_IWOTH)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _say(*command: str) -> tuple[str, str]:
    """What a program answers and what it complains about, each in one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    complaint = done.stderr.strip().splitlines()
    return done.stdout.strip() if not done.returncode else "", complaint[-1] if complaint else ""

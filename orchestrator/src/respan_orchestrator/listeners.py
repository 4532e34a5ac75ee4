"""Who listens on a port of this machine, as far as the kernel tells this user."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"


def is_taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could not listen there."""
    with socket.socket() as probe:
        # As servers do: a port that was closed a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def listener(port: int) -> str:
    """Name and number of the process that listens on a port; empty if it is not to be known."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return ""
    for folder in Path("/proc").glob("[0-9]*"):
        if any(link in wanted for link in _open_files(folder)):
            name = (folder / "comm").read_text(encoding="utf-8").strip()
            return f"{name}, process {folder.name}"
    return ""


def _inodes(port: int) -> Iterator[str]:
    for table in _TABLES:
        try:
            rows = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_files(process: Path) -> Iterator[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # another user's, or gone
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(descriptor)
        except OSError:
            continue

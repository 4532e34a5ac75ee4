"""Run a command and watch it: seconds, and the memory of it and all its children together."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    output: str
    seconds: float
    peak_rss_mb: float
    """Largest sum, over the processes alive at one moment, of their resident memory."""


def run(command: list[str]) -> Run:
    """Run a command to its end; its standard error goes where ours goes."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = _Watch(process.pid)
    watch.start()
    output, _ = process.communicate()
    watch.stop()
    return Run(process.returncode, output, time.monotonic() - started, watch.peak_mb)


class _Watch(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._stopped = threading.Event()
        self.peak_mb = 0.0

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            self.peak_mb = max(self.peak_mb, sum(map(_rss_mb, family(self._root))))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found, added = {root}, True
    while added:
        new = {pid for pid, parent in parents.items() if parent in found} - found
        found |= new
        added = bool(new)
    return sorted(found)


def _rss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0

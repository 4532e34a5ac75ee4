"""Which files an unfinished export has already written, so that the next attempt goes on.

A file counts only for the same work, and only while it is as it was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from respan_common.records import write_text_durably

Facts = dict[str, Any]
"""What is known about a file and would have to be found again; JSON."""


class Ledger:
    """Files written so far for one piece of work.

    Parameters
    ----------
    path
        Where the list is kept; None: nowhere, everything is written again.
    digest
        Names the work. A list of other work is forgotten.
    """

    def __init__(self, path: Path | None = None, digest: str = "") -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.is_file():
            self._entries = _entries(path, digest)
        if not self._entries:
            write_text_durably(path, json.dumps({"digest": digest}) + "\n")

    def facts(self, file: Path) -> Facts | None:
        """What was noted about a file; None if it has to be written (again)."""
        entry = self._entries.get(str(file))
        if entry is None or not file.is_file() or entry["state"] != _state(file):
            return None
        return dict(entry["facts"])

    def add(self, file: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Note that a file is complete."""
        entry = {"file": str(file), "state": _state(file), "facts": dict(facts or {})}
        self._entries[str(file)] = entry
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")

    def once(self, file: Path, write: Callable[[], object]) -> Path:
        """Write a file unless it is there already."""
        if self.facts(file) is None:
            write()
            self.add(file)
        return file

    def close(self) -> None:
        """Forget the list: the work is finished, and a record says so."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _entries(path: Path, digest: str) -> dict[str, dict[str, Any]]:
    """Entries of a list that belongs to this work; a line cut short by a crash does not count."""
    found: dict[str, dict[str, Any]] = {}
    first, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if _parsed(first).get("digest") != digest:
        return {}
    for entry in map(_parsed, lines):
        if {"file", "state", "facts"} <= entry.keys():
            found[entry["file"]] = entry
    return found


def _parsed(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]

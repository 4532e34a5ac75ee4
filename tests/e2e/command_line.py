"""Run `respan` as people do, judged by its exit code and its one JSON object."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner

from respan_orchestrator.__main__ import app

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    content: dict[str, Any]
    stderr: str

    def image(self, name: str, sub_folder: str | None = None) -> dict[str, Any]:
        """What became of one image."""
        return next(
            image
            for image in self.content["images"]
            if image["name"] == name and sub_folder in (None, image["sub_folder"])
        )

    def each(self, key: str) -> dict[str, Any]:
        """One entry of every image, by the image's name."""
        return {image["name"]: image[key] for image in self.content["images"]}


@dataclass(frozen=True)
class CommandLine:
    """`respan` with an environment of its own."""

    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: Any, timeout: float = 500) -> Answer:
        """Run a command with --json to its end."""
        with self.running(*arguments) as process:
            return answer_of(process, timeout)

    @contextmanager
    def running(self, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
        """A command that runs, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "respan_orchestrator", *map(str, arguments), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
            start_new_session=True,
            preexec_fn=_bound_by_permissions,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class CommandsHere:
    """`respan` in this process, which saves seconds: for commands that start and stop nothing."""

    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Answer:
        """Run a command with --json."""
        with self._as_in_a_process_of_its_own():
            result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.stdout, result.output
        return Answer(result.exit_code, json.loads(result.stdout), result.stderr)

    @contextmanager
    def _as_in_a_process_of_its_own(self) -> Iterator[None]:
        """Leave environment, signals, log and warnings of the tests as they are."""
        root, number = logging.getLogger(), signal.SIGTERM
        handlers, level, handler = root.handlers[:], root.level, signal.getsignal(number)
        with mock.patch.dict(os.environ, self.environment), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)
                signal.signal(number, handler)


def answer_of(process: subprocess.Popen[str], timeout: float = 500) -> Answer:
    """Wait for a command's end."""
    stdout, stderr = process.communicate(timeout=timeout)
    assert stdout, f"exit code {process.returncode}, and nothing but this:\n{stderr}"
    return Answer(process.returncode, json.loads(stdout), stderr)


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        waiting += (new := children.get(waiting.pop(), []))
        found |= set(new)
    return found


def tables_of(experiment: Path) -> dict[str, bytes]:
    """Content of every table and tracing of an experiment's sub-folders."""
    files = [*experiment.glob("*/Tables/*.csv"), *experiment.glob("*/SWC_files/*.swc")]
    return {str(path.relative_to(experiment)): path.read_bytes() for path in files}


def _bound_by_permissions() -> None:
    """Let not even root write where permissions forbid it, as tests in containers run as root."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)

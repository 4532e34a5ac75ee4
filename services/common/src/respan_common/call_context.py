"""What a call is about: the names of its run, image and stage, for every log line on its way.

The orchestrator sends them with each call, and a service's worker takes them over, so that the
lines of all processes can be put together again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "respan-about-bin"
"""Metadata key of a call. Binary: names of images may hold any letter."""

_NAMES = ("run", "image", "stage")
_LONGEST = 200

_here: ContextVar[Mapping[str, str]] = ContextVar("respan_about", default={})  # noqa: B039  never changed
_everywhere: dict[str, str] = {}


def about() -> dict[str, str]:
    """Names that hold here and now; empty outside of any run."""
    return {**_everywhere, **_here.get()}


@contextmanager
def concerning(**names: str) -> Iterator[None]:
    """Have further names hold in this thread while a block runs."""
    before = _here.get()
    _here.set({**before, **names})
    try:
        yield
    finally:
        _here.set(before)


def concern(names: Mapping[str, str]) -> None:
    """Have these names, and no others, hold in the whole process, in whichever thread."""
    _everywhere.clear()
    _everywhere.update(names)


def as_header() -> bytes:
    """The names as metadata carries them."""
    return json.dumps(about()).encode()


def from_header(value: bytes | str | None) -> dict[str, str]:
    """Names that a caller sent. Whatever else it sent instead is not believed and left out."""
    try:
        sent = json.loads(value or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(sent, dict):
        return {}
    return {name: str(sent[name])[:_LONGEST] for name in _NAMES if name in sent}

"""Live news of stages, for whoever listens: the terminal, Prefect's page, a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

from respan.v1 import stage_pb2

State = Literal["started", "warned", "running", "done", "skipped", "failed"]


@dataclass(frozen=True)
class StageNews:
    """What just happened to a stage of an image."""

    image: str
    stage: str
    state: State
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    message: str = ""
    folder: str = ""
    """Sub-folder that the image is in; filled in by `tell`."""


Listener = Callable[[StageNews], None]

_listeners: list[Listener] = []
_folder: ContextVar[str] = ContextVar("respan_folder", default="")


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a function called with all news of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Have this thread's news be of an image in a sub-folder."""
    before = _folder.get()
    _folder.set(folder)
    try:
        yield
    finally:
        _folder.set(before)


def folder_here() -> str:
    """Sub-folder whose image this thread works on; empty for a file on its own."""
    return _folder.get()


def tell(news: StageNews) -> None:
    """Pass news on, from whichever thread."""
    news = replace(news, folder=folder_here())
    for listener in list(_listeners):
        listener(news)


def tell_event(image: str, stage: str, event: stage_pb2.StageEvent) -> None:
    """Pass on what a service says of its progress."""
    if event.WhichOneof("event") == "progress":
        progress = event.progress
        left = progress.seconds_left if progress.HasField("seconds_left") else None
        tell(
            StageNews(
                image, stage, "running", progress.done, progress.total, left, progress.message
            )
        )

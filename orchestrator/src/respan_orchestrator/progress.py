"""Live news of stages, for whoever listens: the terminal, Prefect's page, a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from respan.v1 import stage_pb2

State = Literal["started", "running", "done", "skipped", "failed"]


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


Listener = Callable[[StageNews], None]

_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a function called with all news of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(news: StageNews) -> None:
    """Pass news on."""
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

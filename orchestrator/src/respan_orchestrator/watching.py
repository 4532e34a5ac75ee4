"""What goes on, for those who look after the system: names in log lines, spans of traces."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from respan_common import call_context, tracing
from respan_common.logs import configure_logging, is_configured
from respan_orchestrator.settings import OrchestratorSettings

logger = logging.getLogger(__name__)


def log_as_told(settings: OrchestratorSettings) -> None:
    """Log in JSON, if the settings say so and nobody has seen to this process's lines yet."""
    if settings.log_json and not is_configured():
        configure_logging(settings.log_level, as_json=True)
        # Else every heartbeat and every look for new runs is a line.
        logging.getLogger("httpx").setLevel(logging.WARNING)


@contextmanager
def watched_run(run: str) -> Iterator[None]:
    """A run over many images: its id, in every line."""
    with call_context.concerning(run=run):
        yield


@contextmanager
def watched_image(run: str, image: str) -> Iterator[None]:
    """One image's way through its stages: a trace of its own, and a name in every line.

    Parameters
    ----------
    run
        Id of the run that the image belongs to.
    """
    run = call_context.about().get("run", run)
    with (
        call_context.concerning(run=run, image=image),
        tracing.span("image", respan__run=run, respan__image=image),
    ):
        yield


@contextmanager
def watched_stage(image: str, stage: str) -> Iterator[None]:
    """One stage of one image: a span, and two lines in the log."""
    started = time.monotonic()
    with (
        call_context.concerning(image=image, stage=stage),
        tracing.span(stage, respan__image=image, respan__stage=stage),
    ):
        logger.info("%s of %s begins", stage, image)
        try:
            yield
        except BaseException as error:
            text = str(error) or type(error).__name__
            logger.info("%s of %s failed: %s", stage, image, text)
            raise
        logger.info("%s of %s took %.1f s", stage, image, time.monotonic() - started)


def metadata() -> list[tuple[str, str | bytes]]:
    """What a call to a service carries, so that it can do likewise."""
    carried: list[tuple[str, str | bytes]] = []
    if call_context.about():
        carried.append((call_context.HEADER, call_context.as_header()))
    if parent := tracing.traceparent():
        carried.append((tracing.HEADER, parent))
    return carried

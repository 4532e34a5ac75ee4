"""Traces in OpenTelemetry's terms: who did what, when, and on whose behalf.

Spans are made and sent only where the standard variable OTEL_EXPORTER_OTLP_ENDPOINT names a
collector. Without it nothing is imported and a span costs a look at the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

HEADER = "traceparent"
"""Metadata key of a call, as the W3C has it."""

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_HTTP = "http/protobuf"

_process = {"name": "respan-orchestrator"}
# Not OpenTelemetry's own context: Prefect keeps spans of its own there, which nobody sends.
_current: ContextVar[Span | None] = ContextVar("respan_span", default=None)


class Traced:
    """A span that is being told, or none at all if nobody listens."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span
        self._has_failed = False

    def set(self, **attributes: Any) -> None:
        """Say something about the whole span; in names, `__` stands for a dot."""
        if self._span is not None:
            self._span.set_attributes(_dotted(attributes))

    def event(self, name: str, **attributes: Any) -> None:
        """Say that something happened now."""
        if self._span is not None:
            self._span.add_event(name, _dotted(attributes))

    def fail(self, text: str) -> None:
        """Say that it went wrong; who says so first knows best."""
        if self._span is not None and not self._has_failed:
            from opentelemetry.trace import Status, StatusCode

            self._has_failed = True
            self._span.set_status(Status(StatusCode.ERROR, text))


def name_process(name: str) -> None:
    """Say under which name this process's spans appear; OTEL_SERVICE_NAME wins."""
    _process["name"] = name


@contextmanager
def span(
    name: str, parent: str = "", *, serves: bool = False, **attributes: Any
) -> Iterator[Traced]:
    """Trace a block of work, within the span that is open here.

    Parameters
    ----------
    name
        What is done.
    parent
        Traceparent that a caller sent; empty: the span that is open in this thread, if any.
    serves
        Whether the work is an answer to a call.
    attributes
        As in `Traced.set`.
    """
    provider = _provider()
    if provider is None:
        yield Traced()
        return
    opened = _opened(provider, name, parent, serves, _dotted(attributes))
    traced, before = Traced(opened), _current.get()
    _current.set(opened)
    try:
        yield traced
    except GeneratorExit:  # whoever iterates over the work has had enough of it
        raise
    except BaseException as error:
        traced.fail(str(error) or type(error).__name__)
        raise
    finally:
        _current.set(before)
        opened.end()


def traceparent() -> str:
    """Place in the trace where this thread is, for a call's metadata; empty without a trace."""
    opened = _current.get()
    if opened is None:
        return ""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(opened))
    return carrier.get(HEADER, "")


def send_spans() -> None:
    """Send what has not been sent yet, and trace no more: this process ends."""
    provider = _provider()
    if provider is not None:
        provider.shutdown()


def _opened(
    provider: TracerProvider, name: str, parent: str, serves: bool, attributes: dict[str, Any]
) -> Span:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context, around = Context(), _current.get()
    if parent:
        context = TraceContextTextMapPropagator().extract({HEADER: parent}, context)
    elif around is not None:
        context = set_span_in_context(around, context)
    kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
    return provider.get_tracer("respan").start_span(name, context, kind, attributes)


@cache
def _provider() -> TracerProvider | None:
    """Sends spans to the collector; absent if there is none."""
    if not os.environ.get(_ENDPOINT):
        return None
    if os.environ.get(_PROTOCOL, _HTTP) != _HTTP:
        logger.warning("%s: traces are sent as %s only, so none are sent", _PROTOCOL, _HTTP)
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or _process["name"]
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _dotted(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in attributes.items()}

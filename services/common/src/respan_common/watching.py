"""Watch the calls of a service: count them, trace them, and name them in every log line.

One interceptor around all calls, so that servicers know nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.descriptor_pool import Default

from respan_common import call_context, tracing
from respan_common.events import Accepted, Event, StageResult
from respan_common.metrics import ServiceMetrics, StageCount

_OTHER = "other"
"""Stands for every method that the service does not have: a caller must not make up labels."""


class _Call:
    """One call that goes on."""

    def __init__(self, count: StageCount, traced: tracing.Traced) -> None:
        self._count, self._traced = count, traced
        self.has_result = False

    def hear(self, event: Event) -> None:
        self._count.hear(event)
        if isinstance(event, Accepted):
            self._traced.event("accepted", blocks_done=event.blocks_done)
            self._traced.set(
                respan__shape=event.shape,
                respan__spacing_um=event.spacing_um,
                respan__model_digest=event.model_digest,
                respan__device=event.device,
                respan__blocks=event.blocks,
            )
        elif isinstance(event, StageResult):
            self.has_result = True
            self._traced.set(
                respan__skipped=event.skipped,
                respan__peak_rss_mb=event.peak_rss_mb,
                respan__written=event.written,
            )


_calls: ContextVar[_Call | None] = ContextVar("respan_call", default=None)


def heard(event: Event) -> None:
    """Note what the stage of this thread's call says."""
    call = _calls.get()
    if call is not None:
        call.hear(event)


class Watch(grpc.ServerInterceptor):
    """Watches the calls of one service; health checks and reflection pass unseen.

    Parameters
    ----------
    metrics
        Where calls are counted.
    full_name
        Name of the service in its .proto.
    """

    def __init__(self, metrics: ServiceMetrics, full_name: str) -> None:
        self._metrics = metrics
        methods = Default().FindServiceByName(full_name).methods_by_name
        self._methods = {f"/{full_name}/{name}": name for name in methods}

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Wrap the handler of a call."""
        handler = continuation(details)
        if handler is None or not details.method.startswith("/respan."):
            return handler
        metadata = dict(details.invocation_metadata)
        coding = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            behavior = self._stream(handler.unary_stream, details.method, metadata)
            return grpc.unary_stream_rpc_method_handler(behavior, *coding)
        behavior = self._single(handler.unary_unary, details.method, metadata)
        return grpc.unary_unary_rpc_method_handler(behavior, *coding)

    def _stream(
        self, behavior: Callable[..., Iterator[Any]], method: str, metadata: Mapping[str, Any]
    ) -> Callable[..., Iterator[Any]]:
        def watched(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            span = _span(method, metadata)
            with self._watching(method, metadata, context, span):
                yield from behavior(request, context)

        return watched

    def _single(
        self, behavior: Callable[..., Any], method: str, metadata: Mapping[str, Any]
    ) -> Callable[..., Any]:
        def watched(request: Any, context: grpc.ServicerContext) -> Any:
            # A question, such as who is least busy, is no part of an image's work: no span.
            with self._watching(method, metadata, context, nullcontext(tracing.Traced())):
                return behavior(request, context)

        return watched

    @contextmanager
    def _watching(
        self,
        method: str,
        metadata: Mapping[str, Any],
        context: grpc.ServicerContext,
        span: AbstractContextManager[tracing.Traced],
    ) -> Iterator[None]:
        names = call_context.from_header(metadata.get(call_context.HEADER))
        started, status = time.monotonic(), "CANCELLED"
        with call_context.concerning(**names), span as traced:
            before, call = _calls.get(), _Call(self._metrics.counting(), traced)
            _calls.set(call)
            try:
                yield
                status = "OK"
            finally:
                _calls.set(before)
                code = context.code()  # type: ignore[attr-defined]
                if code is not None:
                    status = code.name
                elif call.has_result:  # a caller may hang up once it has it
                    status = "OK"
                traced.set(rpc__system="grpc", rpc__method=method, rpc__status=status)
                if status != "OK":
                    traced.fail(str(context.details() or status))  # type: ignore[attr-defined]
                name = self._methods.get(method, _OTHER)
                self._metrics.ended(name, status, time.monotonic() - started)


def _span(method: str, metadata: Mapping[str, Any]) -> AbstractContextManager[tracing.Traced]:
    """Span of a stage's call, within its caller's."""
    names = call_context.from_header(metadata.get(call_context.HEADER))
    attributes = {f"respan__{name}": value for name, value in names.items()}
    parent = str(metadata.get(tracing.HEADER, ""))
    return tracing.span(method.lstrip("/"), parent, serves=True, **attributes)

"""Everything that the services have in common as gRPC servers.

One table maps our errors to statuses; the text of a bug stays in the log. Health, reflection,
`Describe`, keepalive, TLS, token and a graceful SIGTERM are set here once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from respan.v1 import stage_pb2 as pb
from respan_common import __version__, startup, tracing
from respan_common.buckets import Location
from respan_common.errors import (
    RETRY_AFTER,
    BusyError,
    CancelledError,
    CapacityError,
    InputError,
    RespanError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from respan_common.events import Accepted, Event, Progress, StageResult
from respan_common.logs import configure_logging
from respan_common.metrics import ServiceMetrics
from respan_common.roots import resolve, resolve_store
from respan_common.settings import ServiceSettings
from respan_common.watching import Watch, heard
from respan_common.worker import Stage, StageWorker, WorkerLostError

logger = logging.getLogger(__name__)

STATUS_OF: dict[type[RespanError], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    VolumeNotFoundError: grpc.StatusCode.NOT_FOUND,
    VolumeFormatError: grpc.StatusCode.FAILED_PRECONDITION,
    StorageError: grpc.StatusCode.FAILED_PRECONDITION,
    CapacityError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CancelledError: grpc.StatusCode.CANCELLED,
    # The only status that is retried: the same request resumes at the first unfinished block.
    WorkerLostError: grpc.StatusCode.UNAVAILABLE,
}

_OPTIONS = [
    # A client that pings through a quiet hour of training is not an attacker.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A client whose machine vanished is noticed within half a minute; its stage then stops.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # No voxels, only paths and small numbers.
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.so_reuseport", 0),
]
# Stages that wait for their turn hold a thread each; health checks must still find a free one.
_MOST_CALLS = 64
_THREADS = _MOST_CALLS


def status_of(error: RespanError) -> grpc.StatusCode:
    """Status of an error: its own class's, or the nearest base class's."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return grpc.StatusCode.INTERNAL


@contextmanager
def answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn our errors into statuses, and bugs into INTERNAL without their text."""
    try:
        yield
    except RespanError as error:
        logger.info("%s: %s", type(error).__name__, error)
        if isinstance(error, BusyError):
            context.set_trailing_metadata(((RETRY_AFTER, f"{error.retry_after_s:g}"),))
        context.abort(status_of(error), str(error))
    except GeneratorExit:
        raise
    except Exception:
        if not context.is_active():
            return
        logger.exception("a bug in this service")
        context.abort(grpc.StatusCode.INTERNAL, "a bug in this service; its log has the traceback")


@dataclass
class StageHost:
    """What a servicer needs to run its stages."""

    service: str
    settings: ServiceSettings
    worker: StageWorker
    models: Callable[[], list[str]] = list
    """Lists the model folders that the service can offer."""

    def stream(
        self, stage: Stage, job: Any, context: grpc.ServicerContext
    ) -> Iterator[pb.StageEvent]:
        """Run a stage and stream its events; the stream's end is the stage's end."""
        gone = threading.Event()
        if not context.add_callback(gone.set):
            raise CancelledError("the caller went away before the stage started")
        for event in self.worker.run(stage, job, gone.is_set):
            heard(event)
            yield to_message(event)

    def data_path(self, uri: str, what: str) -> Path:
        """Path under one of the data roots."""
        return resolve(uri, self.settings.data_roots, what)

    def store(self, uri: str, what: str = "volume.uri") -> Location:
        """Store under one of the data roots, or in the bucket."""
        return resolve_store(uri, self.settings.data_roots, self.settings.volumes, what)

    def model_path(self, uri: str, what: str = "params.model") -> Path:
        """Path under one of the model roots or data roots."""
        return resolve(uri, [*self.settings.model_roots, *self.settings.data_roots], what)

    def describe(self) -> pb.DescribeResponse:
        """What this service is and how busy."""
        total, available = _memory_mb()
        return pb.DescribeResponse(
            service=self.service,
            version=__version__,
            device=self.worker.device or _likely_device(self.settings.device),
            memory_total_mb=total,
            memory_available_mb=available,
            queue_length=self.worker.queue_length,
            busy=self.worker.is_busy,
            models=self.models(),
            loaded_models=self.worker.loaded_models,
        )


def to_message(event: Event) -> pb.StageEvent:
    """An event as the wire has it."""
    match event:
        case Accepted():
            return pb.StageEvent(accepted=pb.Accepted(**vars(event)))
        case Progress():
            return pb.StageEvent(progress=pb.Progress(**vars(event)))
        case StageResult():
            return pb.StageEvent(result=pb.StageResult(**vars(event)))


def serve(
    service: str,
    full_name: str,
    add_to: Callable[[Any, grpc.Server], None],
    servicer: Callable[[StageHost], Any],
    settings: ServiceSettings,
    *,
    demands_gpu: bool = True,
) -> None:
    """Run a service until SIGTERM or SIGINT; end with code 1 and one line if it cannot start.

    Parameters
    ----------
    service
        Short name, such as "segmentation".
    full_name
        Name of the service in its .proto.
    add_to
        The generated `add_...Servicer_to_server`.
    servicer
        Makes the servicer.
    settings
        Where and how to run.
    demands_gpu
        Whether device=cuda means that the service is of no use without a GPU.
    """
    configure_logging(settings.log_level, settings.log_json)
    try:
        startup.check(settings, demands_gpu=demands_gpu)
        _serve(service, full_name, add_to, servicer, settings)
    except InputError as error:
        logger.critical("%s cannot start: %s", service, error)
        raise SystemExit(1) from None


def _serve(
    service: str,
    full_name: str,
    add_to: Callable[[Any, grpc.Server], None],
    servicer: Callable[[StageHost], Any],
    settings: ServiceSettings,
) -> None:
    stopping = threading.Event()
    # Before anything else: a signal during start-up must also end in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if settings.ends_with_input:
        threading.Thread(target=_set_at_end_of_input, args=(stopping,), daemon=True).start()
    worker = StageWorker(
        settings.keep_alive_s, settings.log_level, settings.log_json, settings.queue_limit
    )
    metrics = ServiceMetrics(service, settings.data_roots, worker)
    tracing.name_process(f"respan-{service}")
    server, checks = build_server(settings, Watch(metrics, full_name))
    add_to(servicer(StageHost(service, settings, worker)), server)
    names = (full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = _bind(server, settings)
    metrics.serve(settings)
    server.start()
    for name in ("", full_name):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    _announce(service, port, settings)
    stopping.wait()
    logger.info("%s stops: running stages get %.0f s", service, settings.grace_s)
    checks.enter_graceful_shutdown()
    server.stop(settings.grace_s).wait()
    worker.close()
    tracing.send_spans()


def _set_at_end_of_input(stopping: threading.Event) -> None:
    while sys.stdin.buffer.read(1024):
        pass
    stopping.set()


def build_server(
    settings: ServiceSettings, watch: Watch
) -> tuple[grpc.Server, health.HealthServicer]:
    """Server with health checks, and with a token if the settings have one."""
    interceptors: list[grpc.ServerInterceptor] = [watch]
    if settings.token:
        interceptors.append(_TokenGate(settings.token.get_secret_value()))
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS),
        interceptors=interceptors,
        options=_OPTIONS,
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    checks = health.HealthServicer(experimental_non_blocking=True)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server, checks


class _TokenGate(grpc.ServerInterceptor):
    """Refuses calls without the bearer token; health checks need none."""

    def __init__(self, token: str) -> None:
        self._expected = ("authorization", f"Bearer {token}")

        def refuse(request: object, context: grpc.ServicerContext) -> None:
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "this service asks for another token than the caller has: give both the same "
                "RESPAN_TOKEN or RESPAN_TOKEN_FILE",
            )

        self._refusal: Any = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Let a call through, or answer it with UNAUTHENTICATED."""
        is_health = details.method.startswith("/grpc.health.v1.")
        if is_health or self._expected in details.invocation_metadata:
            return continuation(details)
        return self._refusal


def _bind(server: grpc.Server, settings: ServiceSettings) -> int:
    address = f"{settings.host}:{settings.port}"
    credentials = _credentials(settings)
    is_loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    if credentials is None and not is_loopback and not settings.token:
        logger.warning("listening on %s without TLS and without a token", address)
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(
            f"cannot listen on {address}: is the port taken? End who has it (`respan doctor` names "
            "it), or set RESPAN_PORT"
        ) from error


def _credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    client_ca = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
    return grpc.ssl_server_credentials(
        [pair], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def _announce(service: str, port: int, settings: ServiceSettings) -> None:
    logger.info("%s %s listens on %s:%d", service, __version__, settings.host, port)
    if settings.port_file is not None:
        temporary = settings.port_file.with_suffix(".tmp")
        temporary.write_text(str(port))
        temporary.replace(settings.port_file)


def _likely_device(device: str) -> str:
    """What a stage will most likely use, told without loading a framework."""
    has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
    return "cuda" if has_gpu and device != "cpu" else "cpu"


def _memory_mb() -> tuple[float, float]:
    page = os.sysconf("SC_PAGE_SIZE")
    total, available = (os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    return total * page / 2**20, available * page / 2**20

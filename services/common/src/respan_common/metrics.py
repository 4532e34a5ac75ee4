"""What a service counts and measures of itself, for Prometheus.

Counters go up as calls and events come by; everything that can be looked up is looked up when it
is asked for, so that work pays for nothing. What is not known is absent, never 0.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from respan_common import __version__
from respan_common.events import Accepted, Event, Progress, StageResult
from respan_common.settings import ServiceSettings

logger = logging.getLogger(__name__)

# From a lookup that fails at once to a training of half a day.
_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
_SMI_TIMEOUT_S = 5.0
_SMI = ("nvidia-smi", "--query-gpu=uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
_MIB = 2**20


class Worker(Protocol):
    """What is read of a stage worker."""

    @property
    def is_busy(self) -> bool:
        """Whether a stage runs."""

    @property
    def queue_length(self) -> int:
        """Stages that wait for their turn."""

    @property
    def pid(self) -> int | None:
        """Process of the worker; absent while there is none."""

    @property
    def holds_gpu(self) -> bool:
        """Whether the worker has a GPU for itself."""

    starts: int
    losses: int
    lease_wait_total_s: float


class ServiceMetrics:
    """All metrics of one service.

    Parameters
    ----------
    service
        Short name; every metric carries it.
    data_roots
        Folders whose disks are watched.
    worker
        Does the stages.
    """

    def __init__(self, service: str, data_roots: Sequence[Path], worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self._service, self._worker = service, worker
        self._held: tuple[int, str] | None = None
        self._requests = self._counter(
            "respan_requests",
            "Calls that have ended, by method and gRPC status.",
            "method",
            "status",
        )
        self._seconds = Histogram(
            "respan_request_seconds",
            "Duration of calls, waiting included.",
            ["service", "method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._blocks = self._counter(
            "respan_blocks_done", "Blocks of images that were done, in parts."
        ).labels(service)
        self._loads = self._counter(
            "respan_model_loads",
            "Times that a worker took up another model than it had, or its first one.",
        ).labels(service)
        self._heard_at = self._gauge(
            "respan_last_progress_timestamp_seconds",
            "When a stage last said something, or the service began.",
        ).labels(service)
        self._peak = self._gauge(
            "respan_stage_peak_memory_bytes",
            "Most memory that the last finished stage held; absent before the first one.",
        )
        self._heard_at.set_to_current_time()
        self.registry.register(_Looks(service, tuple(data_roots), worker))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["service", *labels], registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["service"], registry=self.registry)

    def serve(self, settings: ServiceSettings) -> None:
        """Let Prometheus read, if the settings name a port for it."""
        port = settings.metrics_port
        if not port:
            return
        try:
            start_http_server(port, settings.host, self.registry)
        except OSError as error:
            raise SystemExit(
                f"cannot serve metrics on {settings.host}:{port}: is the port taken? "
                f"Change RESPAN_METRICS_PORT, or set it to 0 ({error})"
            ) from error
        logger.info("metrics at http://%s:%d/metrics", settings.host, port)

    def ended(self, method: str, status: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._requests.labels(self._service, method, status).inc()
        self._seconds.labels(self._service, method).observe(seconds)

    def counting(self) -> StageCount:
        """Counts what one call's stage says."""
        return StageCount(self)

    def blocks_done(self, count: float) -> None:
        """Count blocks, or parts of one."""
        self._blocks.inc(count)

    def heard(self, event: Event) -> None:
        """Note that a stage said something."""
        self._heard_at.set_to_current_time()
        if isinstance(event, Accepted) and event.model_digest:
            held = (self._worker.starts, event.model_digest)
            if held != self._held:
                self._loads.inc()
            self._held = held
        if isinstance(event, StageResult) and not event.skipped:
            self._peak.labels(self._service).set(event.peak_rss_mb * _MIB)


class StageCount:
    """Turns the progress of one stage, which has steps of any number, into blocks done."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._blocks = 1
        self._share = 0.0

    def hear(self, event: Event) -> None:
        """Count what an event adds to those before it."""
        self._metrics.heard(event)
        if isinstance(event, Accepted):
            self._blocks = max(event.blocks, 1)
            self._share = min(event.blocks_done / self._blocks, 1.0)
        elif isinstance(event, Progress) and event.total > 0:
            self._reach(event.done / event.total)
        elif isinstance(event, StageResult) and not event.skipped:
            self._reach(1.0)

    def _reach(self, share: float) -> None:
        if share > self._share:
            self._metrics.blocks_done((share - self._share) * self._blocks)
            self._share = share


class _Looks(Collector):
    """Everything that is looked up when Prometheus asks."""

    def __init__(self, service: str, data_roots: Sequence[Path], worker: Worker) -> None:
        self._service, self._data_roots, self._worker = service, data_roots, worker

    def collect(self) -> Iterator[Metric]:
        """All figures as they are now."""
        yield from self._work()
        yield from self._lease()
        yield from self._memory()
        yield from self._disks()
        yield from self._gpus()

    def _work(self) -> Iterator[Metric]:
        worker = self._worker
        build = self._gauge("respan_build_info", "Version that runs; always 1.", "version")
        build.add_metric([self._service, __version__], 1)
        yield build
        yield self._one("respan_stage_running", "1 while a stage runs.", worker.is_busy)
        yield self._one(
            "respan_queue_length", "Stages that wait for their turn.", worker.queue_length
        )
        yield self._count(
            "respan_worker_starts", "Worker processes that were started.", worker.starts
        )
        yield self._count(
            "respan_worker_losses",
            "Worker processes that died in the middle of a stage.",
            worker.losses,
        )

    def _lease(self) -> Iterator[Metric]:
        yield self._one(
            "respan_gpu_lease_held",
            "1 while the worker has the GPU to itself.",
            self._worker.holds_gpu,
        )
        yield self._count(
            "respan_gpu_lease_wait_seconds",
            "Time that stages have waited for the GPU.",
            self._worker.lease_wait_total_s,
        )

    def _memory(self) -> Iterator[Metric]:
        held = self._gauge(
            "respan_memory_bytes", "Memory of the service and of its worker.", "process"
        )
        for process, size in (("service", _resident(os.getpid())), ("worker", self._worker_size())):
            if size is not None:
                held.add_metric([self._service, process], size)
        yield held

    def _worker_size(self) -> int | None:
        """Memory of the worker and of all that it started: they are a group."""
        group = self._worker.pid
        if group is None:
            return None
        sizes = [_resident(pid) for pid in _members(group)]
        known = [size for size in sizes if size is not None]
        return sum(known) if known else None

    def _disks(self) -> Iterator[Metric]:
        free = self._gauge("respan_disk_free_bytes", "Free space under a data root.", "root")
        size = self._gauge("respan_disk_size_bytes", "Size of a data root's disk.", "root")
        for root in self._data_roots:
            try:
                usage = shutil.disk_usage(root)
            except OSError:
                continue
            free.add_metric([self._service, str(root)], usage.free)
            size.add_metric([self._service, str(root)], usage.total)
        yield from (free, size)

    def _gpus(self) -> Iterator[Metric]:
        used = self._gauge("respan_gpu_memory_used_bytes", "Memory in use on a GPU.", "gpu")
        size = self._gauge("respan_gpu_memory_size_bytes", "Memory of a GPU.", "gpu")
        for uuid, used_mib, size_mib in _gpus():
            used.add_metric([self._service, uuid], used_mib * _MIB)
            size.add_metric([self._service, uuid], size_mib * _MIB)
        yield from (used, size)

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["service", *labels])

    def _one(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = self._gauge(name, text)
        family.add_metric([self._service], value)
        return family

    def _count(self, name: str, text: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=["service"])
        family.add_metric([self._service], value)
        return family


def _resident(pid: int) -> int | None:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _members(group: int) -> Iterator[int]:
    """Processes of a group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            yield int(stat.parent.name)


def _gpus() -> Iterator[tuple[str, int, int]]:
    """Each GPU's name and its memory in MiB, used and in all.

    Asked of the driver's own program: a CUDA context in this process would hold memory for ever.
    """
    try:
        answer = subprocess.run(_SMI, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        uuid, *sizes = (part.strip() for part in line.split(","))
        if len(sizes) == 2 and all(size.isdigit() for size in sizes):
            yield uuid, int(sizes[0]), int(sizes[1])

"""The stages of one image as Prefect tasks: retried when a service went away, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL
from prefect.tasks import Task

from respan_orchestrator import analysis, clients, flow_server
from respan_orchestrator.analysis import ImageJob
from respan_orchestrator.clients import Request, StageUnavailableError
from respan_orchestrator.outcomes import StageOutcome
from respan_orchestrator.progress import StageNews, folder_here, listening, tell
from respan_orchestrator.services import ServicePool

P = ParamSpec("P")
R = TypeVar("R")

_UPDATE_S = 3.0
"""Least time between two updates of a page."""
GPU_LIMIT = "gpu"
"""Prefect's global concurrency limit with one slot per GPU."""
_LEASE_S = 60.0
"""A slot is free again so long after its run was killed; Prefect renews it meanwhile, and takes no
less."""


def is_unavailable(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a task failed because a service or its worker was lost."""
    return isinstance(state.result(raise_on_failure=False), StageUnavailableError)


def _remote_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Task that calls a service."""
    return task(
        name=name,
        # Skipping what is done is the stages' own business, by completion records.
        cache_policy=NO_CACHE,
        retries=3,
        retry_delay_seconds=[1, 5, 20],
        retry_condition_fn=is_unavailable,
    )


@contextmanager
def _progress_on_page(name: str) -> Iterator[None]:
    """Show on the run's page how far the stages of an image are, updated every few seconds."""
    artifact: UUID | None = None
    folder = folder_here()
    last = float("-inf")

    def hear(news: StageNews) -> None:
        nonlocal artifact, last
        waits = not news.total and news.message
        is_other = (news.folder, news.image) != (folder, name)
        if is_other or not (news.total or waits) or time.monotonic() - last < _UPDATE_S:
            return
        last = time.monotonic()
        percent = 100 * news.done / news.total if news.total else 0.0
        text = f"{name}: {news.stage}" + (f", {news.message}" if waits else "")
        if artifact is None:
            artifact = cast(UUID, create_progress_artifact(percent, description=text))
        else:
            update_progress_artifact(artifact, percent, description=text)

    with listening(hear):
        yield
    if artifact is not None:
        update_progress_artifact(artifact, 100.0)


@contextmanager
def _gpu_slot(name: str, service: str, pool: ServicePool) -> Iterator[None]:
    """Wait for one of the GPU's slots, so that flows use it one after the other.

    The limit orders, the services' own lease enforces: a run on a server of its own has no limit to
    share, and neither have services that compute on processors.
    """
    if flow_server.is_private(PREFECT_API_URL.value()) or not _uses_gpu(service, pool):
        yield
        return
    tell(StageNews(name, service, "running", message="waits for its turn on the GPU"))
    with concurrency(GPU_LIMIT, lease_duration=_LEASE_S):
        yield


def _uses_gpu(service: str, pool: ServicePool) -> bool:
    with pool.least_busy(service) as replica:
        return clients.uses_gpu(service, replica, pool.settings)


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(job: ImageJob) -> StageOutcome:
    """Bring the image file into the store."""
    return analysis.ingest(job)


@_remote_task("restore")
def restore(job: ImageJob, pool: ServicePool) -> StageOutcome | None:
    """Restore channels, if the settings ask for it."""
    if job.settings.restoration.is_empty:
        return None
    with _progress_on_page(job.name), _gpu_slot(job.name, "restoration", pool):
        return analysis.restore(job, pool)


@_remote_task("segment")
def segment(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Find dendrites and spines."""
    with _progress_on_page(job.name), _gpu_slot(job.name, "segmentation", pool):
        return analysis.segment(job, pool)


@_remote_task("quantify")
def quantify(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Measure spines and dendrites."""
    with _progress_on_page(job.name):
        return analysis.quantify(job, pool)


@task(name="export", cache_policy=NO_CACHE)
def export(job: ImageJob) -> StageOutcome:
    """Write tables, label images, projections and tracings."""
    return analysis.export(job)


@_remote_task("train")
def train(name: str, request: Request, pool: ServicePool) -> StageOutcome:
    """Train a model."""
    with _progress_on_page(name), _gpu_slot(name, "training", pool):
        return analysis.call_stage(name, "training", request, pool)

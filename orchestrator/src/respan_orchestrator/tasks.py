"""The stages of one image as Prefect tasks: retried when a service went away, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from respan_orchestrator import analysis
from respan_orchestrator.analysis import ImageJob
from respan_orchestrator.clients import Request, StageUnavailableError
from respan_orchestrator.outcomes import StageOutcome
from respan_orchestrator.services import ServicePool

P = ParamSpec("P")
R = TypeVar("R")


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


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(job: ImageJob) -> StageOutcome:
    """Bring the image file into the store."""
    return analysis.ingest(job)


@_remote_task("restore")
def restore(job: ImageJob, pool: ServicePool) -> StageOutcome | None:
    """Restore channels, if the settings ask for it."""
    return analysis.restore(job, pool)


@_remote_task("segment")
def segment(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Find dendrites and spines."""
    return analysis.segment(job, pool)


@_remote_task("quantify")
def quantify(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Measure spines and dendrites."""
    return analysis.quantify(job, pool)


@task(name="export", cache_policy=NO_CACHE)
def export(job: ImageJob) -> StageOutcome:
    """Write tables, label images, projections and tracings."""
    return analysis.export(job)


@_remote_task("train")
def train(name: str, request: Request, pool: ServicePool) -> StageOutcome:
    """Train a model."""
    return analysis.call_stage(name, "training", request, pool)

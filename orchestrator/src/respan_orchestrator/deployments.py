"""Offer the flows to Prefect, so that its page starts them from a form, until it is stopped."""

from __future__ import annotations

import os
from typing import Any

from respan_orchestrator.settings import HEARTBEAT_S, OrchestratorSettings

# Prefect reads it when it is imported; runs that are started from here inherit it.
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from respan_common.settings import from_environment
from respan_orchestrator import service_checks
from respan_orchestrator.flows import analyze, synthesize, train_nnunet
from respan_orchestrator.lost_runs import look_for_lost_runs, notice_lost_runs
from respan_orchestrator.tasks import GPU_LIMIT
from respan_orchestrator.watching import log_as_told


def main() -> None:
    """Serve every flow as a deployment of its own name."""
    settings = from_environment(OrchestratorSettings)
    log_as_told(settings)
    found = service_checks.prefect()
    if found.state == "problem":
        raise SystemExit(f"the worker cannot start: {found.text}; {found.way_out}")
    notice_lost_runs(settings.lost_after_s)
    look_for_lost_runs(settings.lost_after_s)
    set_gpu_limit(settings.gpu_slots)
    deployments: list[Any] = [
        flow.to_deployment(name=flow.name) for flow in (analyze, train_nnunet, synthesize)
    ]
    serve(*deployments, print_starting_message=not settings.log_json)


def set_gpu_limit(slots: int) -> None:
    """Have the server allow so many stages on GPUs at a time, all of them free.

    A server that was restarted has forgotten who held its slots, and would keep them taken for
    ever. Flows of a worker end with it, so a new one may call them free; if some other flow does
    hold one, the services' lease makes up for it.
    """
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, slots)
        freed = GlobalConcurrencyLimitUpdate(limit=slots, active=True, active_slots=0)
        client.update_global_concurrency_limit(GPU_LIMIT, freed)


if __name__ == "__main__":
    main()

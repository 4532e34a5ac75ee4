"""Offer the flows to Prefect, so that its page starts them from a form, until it is stopped."""

from __future__ import annotations

import os
from typing import Any

from respan_orchestrator.settings import HEARTBEAT_S, OrchestratorSettings

# Prefect reads it when it is imported; runs that are started from here inherit it.
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))

from prefect import serve

from respan_orchestrator.flows import analyze, synthesize, train_nnunet
from respan_orchestrator.lost_runs import look_for_lost_runs, notice_lost_runs
from respan_orchestrator.watching import log_as_told


def main() -> None:
    """Serve every flow as a deployment of its own name."""
    settings = OrchestratorSettings()
    log_as_told(settings)
    notice_lost_runs(settings.lost_after_s)
    look_for_lost_runs(settings.lost_after_s)
    deployments: list[Any] = [
        flow.to_deployment(name=flow.name) for flow in (analyze, train_nnunet, synthesize)
    ]
    serve(*deployments, print_starting_message=not settings.log_json)


if __name__ == "__main__":
    main()

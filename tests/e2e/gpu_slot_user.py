"""A flow that takes a slot of the GPU, says so, and keeps it for as long as it is told."""

from __future__ import annotations

import sys
import time

from prefect import flow

from respan_orchestrator import tasks
from respan_orchestrator.services import ServicePool
from respan_orchestrator.settings import OrchestratorSettings


@flow
def compute(seconds: float) -> None:
    """Use the GPU."""
    with (
        ServicePool(OrchestratorSettings(), []) as pool,
        tasks._gpu_slot("cell1", "segmentation", pool),
    ):
        print("has the GPU", flush=True)
        time.sleep(seconds)


if __name__ == "__main__":
    compute(float(sys.argv[1]))

"""Runs that were ordered on Prefect's page; upgrade.sh has the worker's container execute this.

`under-way` prints the ids of those that have begun and not ended, `stop ID…` has the worker stop
them, `again ID…` orders them anew.
"""

import sys
import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Cancelling

STOP_TIMEOUT_S = 120.0


def under_way(client: SyncPrefectClient) -> list[FlowRun]:
    """Every run that has begun and not ended, but for the runs inside of runs."""
    begun = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]}}
    outermost = {"is_null_": True}
    wanted = FlowRunFilter.model_validate({"state": begun, "parent_task_run_id": outermost})
    oldest_first = FlowRunSort.START_TIME_ASC
    return client.read_flow_runs(flow_run_filter=wanted, sort=oldest_first, limit=200)


def list_ordered(client: SyncPrefectClient) -> None:
    """Print the ids of ordered runs; others have nobody who could order them again."""
    runs = under_way(client)
    by_hand = [run.name for run in runs if run.deployment_id is None]
    if by_hand:
        sys.exit(f"started from a command line, so wait for them: {', '.join(by_hand)}")
    print(*(run.id for run in runs))


def stop(client: SyncPrefectClient, run: FlowRun) -> None:
    """Have the worker stop a run, and wait until it has."""
    client.set_flow_run_state(run.id, Cancelling(message="stopped for an upgrade"), force=True)
    end = time.monotonic() + STOP_TIMEOUT_S
    while not (state := client.read_flow_run(run.id).state) or not state.is_final():
        if time.monotonic() > end:  # its worker is gone
            client.set_flow_run_state(run.id, Cancelled(), force=True)
        time.sleep(1)


def order_again(client: SyncPrefectClient, run: FlowRun) -> None:
    """Order the same once more; what is done will not be done again."""
    assert run.deployment_id is not None, f"{run.name} was not ordered"
    again = client.create_flow_run_from_deployment(run.deployment_id, parameters=run.parameters)
    print(f"{run.name} goes on as {again.name}", file=sys.stderr)


def main(command: str, *ids: str) -> None:
    """Do what upgrade.sh asks for."""
    with get_client(sync_client=True) as client:
        if command == "under-way":
            list_ordered(client)
        for run in [client.read_flow_run(UUID(id)) for id in ids]:
            {"stop": stop, "again": order_again}[command](client, run)


main(*sys.argv[1:])

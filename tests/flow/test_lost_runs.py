"""Lost runs, as Prefect's server sees them. How an automation ends them: tests/e2e."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.automations import EventTrigger
from prefect.states import Running

from respan_common.errors import InputError
from respan_orchestrator.lost_runs import NAME, end_lost_runs, notice_lost_runs


@flow
def endless() -> None:
    """Never really runs."""


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client
        for known in client.read_automations_by_name(NAME):
            client.delete_automation(known.id)


def begun(client: SyncPrefectClient) -> UUID:
    """A run that has begun and does not end."""
    run = client.create_flow_run(endless)
    client.set_flow_run_state(run.id, Running(), force=True)
    return run.id


def state_of(client: SyncPrefectClient, run: UUID) -> str | None:
    return client.read_flow_run(run).state_name


def test_a_worker_that_starts_again_makes_no_second_automation(client):
    notice_lost_runs(600)
    (first,) = client.read_automations_by_name(NAME)
    notice_lost_runs(600)
    (second,) = client.read_automations_by_name(NAME)
    assert second == first, "a change makes Prefect forget the runs that it listens to"


def test_another_time_changes_the_automation_and_leaves_it_off_if_it_was(client):
    notice_lost_runs(600)
    (first,) = client.read_automations_by_name(NAME)
    client.pause_automation(first.id)
    notice_lost_runs(900)
    (second,) = client.read_automations_by_name(NAME)
    assert isinstance(second.trigger, EventTrigger)
    assert second.trigger.within == timedelta(seconds=900)
    assert (second.id, second.enabled) == (first.id, False)


def test_a_time_shorter_than_the_heartbeat_is_refused():
    with pytest.raises(InputError, match="RESPAN_LOST_AFTER_S"):
        notice_lost_runs(10)


def test_a_silent_run_is_ended_and_neither_a_young_one_nor_one_that_is_heard(client):
    silent, heard = begun(client), begun(client)
    time.sleep(1)
    since = time.monotonic()
    time.sleep(1)
    young = begun(client)
    heartbeat = {
        "event": "prefect.flow-run.heartbeat",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{heard}"},
        "id": str(uuid4()),
    }
    client.request("POST", "/events", json=[heartbeat])
    event = EventFilter(resource=EventResourceFilter(id=[f"prefect.flow-run.{heard}"]))
    event.event = EventNameFilter(name=["prefect.flow-run.heartbeat"])
    for _ in range(60):  # the server stores events a while after it takes them
        if client.read_events(event, limit=1).events:
            break
        time.sleep(0.5)
    assert end_lost_runs(time.monotonic() - since) == [silent]
    assert [state_of(client, run) for run in (silent, heard, young)] == [
        "Crashed",
        "Running",
        "Running",
    ]
    assert end_lost_runs(time.monotonic() - since) == []

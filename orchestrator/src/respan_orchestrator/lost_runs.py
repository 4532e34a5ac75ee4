"""Runs whose process is gone: Prefect is told how to notice them.

A process that is killed cannot say so, and its run would be "Running" for ever, with whatever
slots it holds. Living runs send heartbeats; an automation of Prefect's own ends those that stop.

Prefect's server tries that once. Where it cannot (a limit of the deployment was removed while a run
held a slot of it: error 500 until the slot's lease is over), the run would stay as it is, so
workers look for such runs themselves, again and again.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import ChangeFlowRunState
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Crashed

from respan_common.errors import InputError

NAME = "Lost runs become crashed"

logger = logging.getLogger(__name__)

_AT_ONCE = 200
_GONE = "Its process is gone. Started again, the run goes on where it was."
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def notice_lost_runs(silence_s: float) -> None:
    """Have runs that are silent for so long marked as crashed.

    May be said again and again: there is one automation, as it was said last. Whoever switches it
    off on Prefect's page finds it off.

    Raises
    ------
    InputError
        If runs do not send heartbeats that often.
    """
    heartbeat_s = get_current_settings().flows.heartbeat_frequency
    if heartbeat_s is None or silence_s <= heartbeat_s:
        raise InputError(
            f"RESPAN_LOST_AFTER_S: {silence_s:g} s without a heartbeat prove nothing, as runs send "
            f"one every {heartbeat_s} s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY); give three times that"
        )
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(NAME)
        wanted = _automation(timedelta(seconds=silence_s))
        if not known:
            client.create_automation(wanted)
        # A change makes Prefect forget whom it is listening to: those whose process has just died.
        elif _within(known[0]) != _within(wanted):
            wanted.enabled = known[0].enabled
            client.update_automation(known[0].id, wanted)


def look_for_lost_runs(silence_s: float) -> None:
    """End, from now on and in the background, runs that the automation should have ended."""

    def look() -> None:
        while True:
            time.sleep(silence_s)
            try:
                end_lost_runs(2 * silence_s)
            except httpx.HTTPError as error:  # the server is away
                logger.warning("lost runs are looked for later: %s", error)

    threading.Thread(target=look, name="lost runs", daemon=True).start()


def end_lost_runs(silence_s: float) -> list[UUID]:
    """Mark runs as crashed that began, and have been silent since, so long ago; gives their ids.

    One that Prefect does not let go yet is left for the next time.
    """
    since = datetime.now(UTC) - timedelta(seconds=silence_s)
    with get_client(sync_client=True) as client:
        old = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
            start_time=FlowRunFilterStartTime(before_=since),
        )
        running = client.read_flow_runs(
            flow_run_filter=old, sort=FlowRunSort.START_TIME_ASC, limit=_AT_ONCE
        )
        silent = [run.id for run in running if not _has_sent_heartbeats(client, run.id, since)]
        return [run for run in silent if _is_ended(client, run)]


def _is_ended(client: SyncPrefectClient, run: UUID) -> bool:
    try:
        client.set_flow_run_state(run, Crashed(message=_GONE))
    except PrefectHTTPStatusError as error:
        logger.warning("run %s is lost, but Prefect does not end it yet: %s", run, error)
        return False
    logger.warning("run %s is lost: its process is gone", run)
    return True


def _has_sent_heartbeats(client: SyncPrefectClient, run: UUID, since: datetime) -> bool:
    heard = EventFilter(
        occurred=EventOccurredFilter(since=since),
        event=EventNameFilter(name=[_HEARTBEAT]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    return bool(client.read_events(heard, limit=1).events)


def _within(automation: AutomationCore) -> timedelta:
    trigger = automation.trigger
    return trigger.within if isinstance(trigger, EventTrigger) else timedelta()


def _automation(silence: timedelta) -> AutomationCore:
    return AutomationCore(
        name=NAME,
        description="Made by RESPAN: ends runs that send no heartbeats, as their process is gone.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=_GONE,
            )
        ],
    )

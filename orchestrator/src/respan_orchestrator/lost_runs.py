"""Runs whose process is gone: Prefect is told how to notice them.

A process that is killed cannot say so, and its run would be "Running" for ever, with whatever
slots it holds. Living runs send heartbeats; an automation of Prefect's own ends those that stop.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from respan_common.errors import InputError

NAME = "Lost runs become crashed"

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
                message="Its process is gone. Started again, the run goes on where it was.",
            )
        ],
    )

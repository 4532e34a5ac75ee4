"""Commands on this machine: up, down, status, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import (
    ALL_DONE,
    NOTHING_STARTED,
    SOME_FAILED,
    Device,
    Json,
    LogLevel,
    answer,
)


def up(
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder with experiments; may be repeated.")
    ] = [Path()],  # noqa: B006  typer never changes it
    device: Device = "auto",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Start services, Prefect's server and page, and a worker, and keep them running."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator import stack

        started = stack.start(data, device)
        content = {"status": "done", "processes": [vars(process) for process in started]}

        def show() -> None:
            for process in started:
                print(f"{process.name:<16} {process.address}")
            print(f"Watch and start runs at {_page(started)}")

        return content, ALL_DONE, show

    answer(as_json, log_level, work)


def down(as_json: Json = False, log_level: LogLevel = "WARNING") -> None:
    """Stop what `up` started."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator import stack

        stopped = [process.name for process in stack.stop()]
        text = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
        return {"status": "done", "stopped": stopped}, ALL_DONE, lambda: print(text)

    answer(as_json, log_level, work)


def status(as_json: Json = False, log_level: LogLevel = "WARNING") -> None:
    """Show whether the stack is up and well; exit code 1 if a part of it is not."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator import stack
        from respan_orchestrator.stack_states import state_of

        states = [state_of(process) for process in stack.processes()]

        def show() -> None:
            for state in states:
                print(
                    f"{state.name:<16} {state.state:<6} {state.address:<22} {state.about}".rstrip()
                )
            if not states:
                print("the stack is down; `respan up` starts it")

        ill = any(state.state != "up" for state in states)
        content = {
            "status": "up" if states else "down",
            "processes": {state.name: state.state for state in states},
            "details": [asdict(state) for state in states],
        }
        return content, SOME_FAILED if ill else ALL_DONE, show

    answer(as_json, log_level, work)


def doctor(as_json: Json = False, log_level: LogLevel = "WARNING") -> None:
    """Show what this machine has, what is missing, and how to get it; exit code 2 on problems."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.doctor import examine

        findings = examine()

        def show() -> None:
            for finding in findings:
                print(f"{finding.state:<8} {finding.subject}: {finding.text}")
                if finding.state != "ok" and finding.way_out:
                    print(f"         {finding.way_out}")

        ill = any(finding.state == "problem" for finding in findings)
        content = {
            "status": "problem" if ill else "ok",
            "findings": [vars(finding) for finding in findings],
        }
        return content, NOTHING_STARTED if ill else ALL_DONE, show

    answer(as_json, log_level, work)


def _page(started: list[Any]) -> str:
    return "".join(process.address for process in started if process.name == "prefect")

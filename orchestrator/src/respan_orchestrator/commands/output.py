"""What every command has in common: --json, --log-level, exit codes, errors in one place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from respan_common.errors import RespanError
from respan_common.logs import configure_logging
from respan_orchestrator import stack

ALL_DONE = 0
SOME_FAILED = 1
NOTHING_STARTED = 2

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
LogLevel = Annotated[
    str, typer.Option("--log-level", help="DEBUG, INFO, WARNING or ERROR.", metavar="LEVEL")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", metavar="DEVICE")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Change a setting, such as segmentation.preset=exact.",
        metavar="STAGE.KEY=VALUE",
    ),
]
Channel = Annotated[
    int | None, typer.Option("--channel", min=1, help="Channel of the dendrites, counted from 1.")
]
Model = Annotated[
    str, typer.Option("--model", help="Name or folder of the model.", metavar="NAME|DIR")
]

Show = Callable[[], None]
Work = Callable[[], tuple[dict[str, Any], int, Show]]


def answer(as_json: bool, log_level: str, work: Work) -> NoReturn:
    """Do a command's work, print its outcome, and end with its exit code.

    `work` returns what `--json` prints, the exit code, and a function that shows the outcome to
    people. What it raises on purpose becomes a message and exit code 2.
    """
    configure_logging(log_level)
    # Prefect prints a traceback for every failed image; our own message says what to do.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL" if log_level != "DEBUG" else "DEBUG")
    for name, value in stack.environment().items():
        os.environ.setdefault(name, value)
    try:
        content, code, show = work()
    except RespanError as error:
        if as_json:
            print(json.dumps({"status": "failed", "error": str(error)}))
        else:
            print(f"respan: {error}", file=sys.stderr)
        raise typer.Exit(NOTHING_STARTED) from error
    if as_json:
        print(json.dumps(content, default=str))
    else:
        show()
    raise typer.Exit(code)

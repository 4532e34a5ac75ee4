"""What every command has in common: --json, --log-level, exit codes, errors in one place."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from respan_common.logs import configure_logging
from respan_orchestrator import stack
from respan_orchestrator.outcomes import explained
from respan_orchestrator.settings import OrchestratorSettings

ALL_DONE = 0
SOME_FAILED = 1
NOTHING_STARTED = 2

logger = logging.getLogger(__name__)

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
    people. What it raises becomes a message and exit code 2.
    """
    configure_logging(log_level, _wants_json_lines())
    signal.signal(signal.SIGTERM, _terminated)
    # Prefect prints a traceback for every failed image; our own message says what to do.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL" if log_level != "DEBUG" else "DEBUG")
    if log_level != "DEBUG":
        # What is wrong with a file is said once, by our own message.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        for name, value in stack.environment().items():
            os.environ.setdefault(name, value)
        content, code, show = work()
    except (KeyboardInterrupt, _TerminatedError) as error:
        number = signal.SIGTERM if isinstance(error, _TerminatedError) else signal.SIGINT
        _fail(as_json, "stopped; the same command goes on where it was", 128 + number)
    except typer.BadParameter as error:
        _fail(as_json, error.message, NOTHING_STARTED)
    except Exception as error:  # the last place where a bug can still become a sentence
        logger.debug("the command failed", exc_info=error)
        _fail(as_json, explained(error), NOTHING_STARTED)
    if as_json:
        print(json.dumps(content, default=str))
    else:
        show()
    raise typer.Exit(code)


def _wants_json_lines() -> bool:
    with suppress(ValidationError):  # told by whoever needs the settings
        return OrchestratorSettings().log_json
    return False


class _TerminatedError(BaseException):
    """SIGTERM came: children are stopped on the way out, as with Ctrl-C."""


def _terminated(number: int, frame: object) -> NoReturn:
    raise _TerminatedError


def _fail(as_json: bool, message: str, code: int) -> NoReturn:
    if as_json:
        print(json.dumps({"status": "failed", "error": message}))
    else:
        print(f"respan: {message}", file=sys.stderr)
    raise typer.Exit(code)

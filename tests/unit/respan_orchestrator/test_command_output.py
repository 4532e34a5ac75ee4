from __future__ import annotations

import errno
import json
import signal

import pytest
import typer

from respan_common.errors import InputError
from respan_orchestrator.commands.output import answer


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch, tmp_path):
    """No stack of this machine's, and its signals as they were."""
    monkeypatch.setenv("RESPAN_STATE_FOLDER", str(tmp_path))
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def said(capsys, error: BaseException, *, as_json: bool) -> tuple[int, str]:
    """Exit code and words of a command that raises."""

    def work():
        raise error

    with pytest.raises(typer.Exit) as ended:
        answer(as_json, "WARNING", work)
    streams = capsys.readouterr()
    return ended.value.exit_code, streams.out if as_json else streams.err


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (InputError("there is no cell7.tif"), 2, "there is no cell7.tif"),
        (KeyError("oops"), 2, "--log-level DEBUG"),
        (typer.BadParameter("--shape takes three numbers"), 2, "--shape takes three numbers"),
        (OSError(errno.ENOSPC, "No space left", "table.csv"), 2, "free some space"),
        (KeyboardInterrupt(), 130, "goes on where it was"),
    ],
)
def test_whatever_is_raised_becomes_one_sentence_and_an_exit_code(capsys, error, code, part):
    ended, text = said(capsys, error, as_json=True)
    assert ended == code
    assert part in json.loads(text)["error"]
    ended, text = said(capsys, error, as_json=False)
    assert ended == code
    assert part in text
    assert text.count("\n") == 1


def test_an_unforeseen_error_is_called_by_its_name(capsys):
    assert "ZeroDivisionError" in said(capsys, ZeroDivisionError("by zero"), as_json=False)[1]

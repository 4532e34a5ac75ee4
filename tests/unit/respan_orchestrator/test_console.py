"""What the terminal shows while work goes on, and at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from respan_orchestrator import console
from respan_orchestrator.console import live_progress, print_outcome
from respan_orchestrator.outcomes import ExperimentOutcome, ImageOutcome, StageOutcome
from respan_orchestrator.progress import StageNews, tell

NAME = "cell[final] [b]"
"""Brackets are Rich's markup, and common in names of files."""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console.console, "width", 200)


def test_a_warning_is_shown_at_once_and_the_stage_goes_on(capsys):
    with live_progress():
        tell(StageNews(NAME, "segmentation", "started"))
        tell(StageNews(NAME, "segmentation", "warned", message="trained at 1 [µm]"))
        shown = capsys.readouterr().err
        assert f"! {NAME}  segmentation  trained at 1 [µm]" in shown
        tell(StageNews(NAME, "segmentation", "done"))
    assert f"✓ {NAME}  segmentation" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "says"), [("skipped", "already done"), ("failed", "no [disk]")])
def test_the_end_of_a_stage_says_how_it_ended(capsys, state, says):
    with live_progress():
        tell(StageNews(NAME, "export", state, message="no [disk]"))
    shown = capsys.readouterr().err
    assert f"{NAME}  export" in shown
    assert says in shown


def test_quiet_shows_nothing(capsys):
    with live_progress(quiet=True):
        tell(StageNews(NAME, "segmentation", "warned", message="unlike"))
    assert capsys.readouterr().err == ""


def test_names_errors_and_warnings_are_printed_as_they_are(capsys):
    stage = StageOutcome(stage="segmentation", warnings=["dim [background]"])
    images = [
        ImageOutcome(sub_folder="A[x]", name=NAME, status="done", stages=[stage]),
        ImageOutcome(sub_folder="A[x]", name="bad", status="failed", error="no page [7]"),
    ]
    folder = Path("/data/my[exp]")
    print_outcome(
        ExperimentOutcome(
            experiment=folder,
            images=images,
            tables=[folder / "t[able].csv"],
            warnings=["unknown [key]"],
        )
    )
    shown = capsys.readouterr().err
    for text in (
        "/data/my[exp]\n",
        f"A[x]/{NAME}: dim [background]",
        "A[x]/bad: no page [7]",
        "/data/my[exp]/t[able].csv",
        "unknown [key]",
    ):
        assert text in shown.replace("  ", "").replace(" \n", "\n"), text

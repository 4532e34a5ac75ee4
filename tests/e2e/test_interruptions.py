"""Runs that are stopped, killed or started twice: no process stays, and no result differs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.e2e.command_line import CommandLine, answer_of, descendants, tables_of
from tests.waiting import all_gone, becomes_true


@pytest.fixture
def alone(private) -> CommandLine:
    """`respan` that brings its own Prefect server."""
    return CommandLine(private)


def record(experiment: Path, image: str, stage: str) -> Path:
    return experiment / "Animal_A" / "Zarr" / f"{image}.ome.zarr" / ".respan" / f"{stage}.json"


@pytest.mark.parametrize(
    "stage", ["segmentation", *(pytest.param(s, marks=pytest.mark.slow) for s in ("ingest",))]
)
def test_a_killed_run_goes_on_and_ends_with_the_same_tables(
    alone, respan, model, make_experiment, undisturbed, tmp_path, stage
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    with alone.running("run", experiment, "--model", model) as process:
        assert becomes_true(record(experiment, "cell1", stage).exists, 120)
        started = descendants(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    assert started
    assert all_gone(started, 20)
    assert tables_of(experiment) != undisturbed
    again = respan("run", experiment, "--model", model)
    assert "ingest" in again.image("cell1")["skipped"]
    assert tables_of(experiment) == undisturbed


@pytest.mark.parametrize(
    ("number", "images_at_once"),
    [
        (signal.SIGINT, "1"),
        (signal.SIGTERM, "1"),
        pytest.param(signal.SIGINT, "2", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "2", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_within_seconds_with_all_that_it_started(
    alone, model, make_experiment, tmp_path, number, images_at_once
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    respan = CommandLine(alone.environment | {"RESPAN_IMAGES_AT_ONCE": images_at_once})
    with respan.running("run", experiment, "--model", model) as process:
        assert becomes_true(record(experiment, "cell1", "ingest").exists, 120)
        started = descendants(process.pid)
        os.killpg(process.pid, number)  # as a terminal does
        answer = answer_of(process, timeout=60)
    assert answer.code == 128 + number, answer
    assert "stopped" in answer.content["error"]
    assert all_gone(started, 5)


@pytest.mark.slow
def test_two_runs_at_once_end_well(alone, model, make_experiment, undisturbed, tmp_path):
    experiment = make_experiment(tmp_path / "MyExperiment")
    fresh = CommandLine(alone.environment | {"PREFECT_HOME": str(tmp_path / "prefect")})
    command = ("run", experiment, "--model", model)
    with fresh.running(*command) as first, fresh.running(*command) as second:
        answers = [answer_of(process) for process in (first, second)]
    assert [answer.code for answer in answers] == [0, 0]
    assert tables_of(experiment) == undisturbed

"""A model, an experiment that has been analyzed, a Prefect server, and the containers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.command_line import Answer, CommandLine, CommandsHere, tables_of
from tests.e2e.containers import Stack
from tests.hand_model import draw, write_hand_model, write_image
from tests.stage_services import stage_service

from respan_orchestrator.flow_server import flow_server

SETTINGS = """\
Parameters:
  neuron_channel: 1
Quantification:
  min_dendrite_volume_um3: 1
"""
SPINES = {"cell1": (20, 48, 76), "cell2": (30, 60)}
"""Where each image of the experiment has spines."""


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which nothing outside the tests' own folders is seen or written."""
    home = tmp_path_factory.mktemp("home")
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "RESPAN_STATE_FOLDER": str(home / "state"),
        "OMP_NUM_THREADS": "1",
        "RESPAN_THREADS": "1",
    }


@pytest.fixture(scope="session")
def respan(private: dict[str, str]) -> Iterator[CommandLine]:
    """`respan` with a Prefect server that is there already, which saves ten seconds a run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("PREFECT_HOME", private["PREFECT_HOME"])
        with flow_server():
            url = os.environ.pop("PREFECT_API_URL")  # other commands bring servers of their own
            yield CommandLine(private | {"PREFECT_API_URL": url})
            os.environ["PREFECT_API_URL"] = url


@pytest.fixture(scope="session")
def commands(
    private: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandsHere]:
    """`respan` in this process, with services that run already and stay warm."""
    logs, data = tmp_path_factory.mktemp("services"), str(tmp_path_factory.getbasetemp())
    with ExitStack() as stack:
        addresses = {}
        for name in ("segmentation", "quantification"):
            service = stage_service(name, logs / name, RESPAN_DATA_ROOTS=data)
            address = stack.enter_context(service).address
            addresses[f"RESPAN_{name.upper()}_ADDRESS"] = address
        yield CommandsHere(private | addresses)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hand_model(tmp_path_factory.mktemp("models") / "by_hand")


@pytest.fixture(scope="session")
def make_experiment() -> Callable[[Path], Path]:
    """Writes an experiment of two images, the second with two channels."""

    def make(folder: Path) -> Path:
        write_image(folder / "Animal_A" / "cell1.tif", draw(SPINES["cell1"]))
        channels = [draw(SPINES["cell2"]), draw((10,))]
        write_image(folder / "Animal_A" / "cell2.tif", np.stack(channels, axis=1))
        (folder / "Animal_A" / "Analysis_Settings.yml").write_text(SETTINGS)
        return folder

    return make


@pytest.fixture(scope="session")
def experiment(
    tmp_path_factory: pytest.TempPathFactory, make_experiment: Callable[[Path], Path]
) -> Path:
    return make_experiment(tmp_path_factory.mktemp("data") / "MyExperiment")


@pytest.fixture(scope="session")
def _first_run(
    respan: CommandLine, experiment: Path, model: Path
) -> tuple[Answer, dict[str, bytes]]:
    return respan("run", experiment, "--model", model), tables_of(experiment)


@pytest.fixture(scope="session")
def first_run(_first_run: tuple[Answer, dict[str, bytes]]) -> Answer:
    """The answer of the first run over `experiment`."""
    return _first_run[0]


@pytest.fixture(scope="session")
def undisturbed(_first_run: tuple[Answer, dict[str, bytes]]) -> dict[str, bytes]:
    """The tables that the first run over `experiment` wrote."""
    assert _first_run[0].code == 0
    return _first_run[1]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Not built, not started."""
    return Stack(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="session")
def stack(project: Stack) -> Iterator[Stack]:
    """Built, started, and well."""
    try:
        project.compose("build", timeout=3000)
        project.up()
        yield project
    finally:
        log = project.compose("logs", "--no-color")
        Path(os.environ.get("RESPAN_TEST_LOG", os.devnull)).write_text(log)
        project.compose("down", "--volumes", "--timeout", "30")

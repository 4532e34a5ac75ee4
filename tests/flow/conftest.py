"""Prefect once for all flows, on a database of its own; services that only pretend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_LOGGING_LEVEL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from tests.flow.fake_services import FakeServices, served
from tests.hand_model import write_hand_model, write_image

SETTINGS = "Parameters:\n  neuron_channel: 1\n"


@pytest.fixture(scope="session", autouse=True)
def _prefect() -> Iterator[None]:
    with (
        temporary_settings(
            {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_SERVER_ANALYTICS_ENABLED: False}
        ),
        prefect_test_harness(server_startup_timeout=180),
    ):
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hand_model(tmp_path_factory.mktemp("models") / "by_hand")


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, model: Path) -> Iterator[FakeServices]:
    fake = FakeServices()
    with served(fake) as address:
        for name in ("RESTORATION", "SEGMENTATION", "QUANTIFICATION"):
            monkeypatch.setenv(f"RESPAN_{name}_ADDRESS", address)
        monkeypatch.setenv("RESPAN_MODEL_ROOTS", str(model.parent))
        yield fake


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two sub-folders with three images in all."""
    folder = tmp_path / "MyExperiment"
    for place in ("Animal_A/cell1", "Animal_A/cell2", "Animal_B/cell3"):
        write_image(folder / f"{place}.tif")
        (folder / place).with_name("Analysis_Settings.yml").write_text(SETTINGS)
    return folder

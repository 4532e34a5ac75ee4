"""A store to segment, and a model."""

import pytest
from tests.nnunet_models import write_random_model
from tests.unit.respan_segmentation.stage_runs import IMAGE, publish


@pytest.fixture
def store(tmp_path):
    return publish(tmp_path / "cell.ome.zarr", [IMAGE[::-1], IMAGE])


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("models") / "model"
    return write_random_model(folder, spacing=(1.0, 0.1, 0.1), patch=(8, 32, 32))

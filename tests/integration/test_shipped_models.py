"""The models that come with the project are what their cards say."""

import hashlib
from pathlib import Path

import pytest

from respan_common.model_folders import describe

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("confocal", "two-photon")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_knows_every_structure_and_its_voxel_size(name):
    model = describe(MODELS / name)
    assert set(model.roles()) == {"spine", "dendrite", "soma", "neck"}
    assert list(model.spacing_um) == pytest.approx(model.card["spacing_um"])
    assert model.warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_models_card_belongs_to_its_weights(name):
    model = describe(MODELS / name)
    (weights,) = model.checkpoints
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == model.card["weights_sha256"]
    assert weights.stat().st_size < 20 * 2**20
    assert model.card["license"]
    assert model.card["metrics"]

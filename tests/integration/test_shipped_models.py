"""The models that come with the project are what their cards say."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from respan_common.model_folders import describe
from respan_segmentation.plausibility import FEATURES
from respan_training.inference import load_network

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


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_answers_its_test_input_with_its_test_output(name):
    given, expected = (np.load(MODELS / name / f"test_{part}.npy") for part in ("input", "output"))
    with torch.inference_mode():
        logits = load_network(MODELS / name)(torch.from_numpy(given)).numpy()
    assert expected.shape == (1, 5, *given.shape[2:])
    # Summation in another order; classes must not change but where two are equal.
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9999


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_models_test_input_shows_a_spine_and_a_dendrite(name):
    classes = np.load(MODELS / name / "test_output.npy").argmax(axis=1)
    assert {1, 2} <= set(np.unique(classes))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_training_images_were_like(name):
    card = describe(MODELS / name).card
    bounds = card["trained_range"]
    for quantity in FEATURES:
        low, high = bounds[quantity]
        assert low < high
    low, high = bounds["spacing_um"]["low"], bounds["spacing_um"]["high"]
    assert all(a < own < b for a, own, b in zip(low, card["spacing_um"], high, strict=True))
    assert bounds["skewness"][0] > 0, "an inverted image would pass for one of the training's"
    assert card["limits"]

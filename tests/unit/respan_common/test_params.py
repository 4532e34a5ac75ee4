from __future__ import annotations

import pytest
from pydantic import ValidationError

from respan_common import params
from respan_common.params import NnunetTrainingParams, RestorationParams, SegmentationParams

MODELS = params.StageParams.__subclasses__()


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_has_a_default_and_a_description(model):
    model()
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize("model", MODELS)
def test_parameters_cannot_be_changed(model):
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model(), name, None)


@pytest.mark.parametrize(
    ("preset", "step", "mirrors"), [("fast", 0.75, False), ("exact", 0.5, True)]
)
def test_a_preset_holds_until_a_field_says_otherwise(preset, step, mirrors):
    chosen = SegmentationParams(preset=preset)
    assert (chosen.step, chosen.mirrors) == (step, mirrors)
    own = SegmentationParams(preset=preset, step_size=0.6, mirroring=not mirrors)
    assert (own.step, own.mirrors) == (0.6, not mirrors)


def test_restoration_without_models_is_empty():
    assert RestorationParams().is_empty
    assert not RestorationParams(care_models={2: "care"}).is_empty
    assert not RestorationParams(axial_model="net.pkl").is_empty


def test_a_network_without_stages_is_refused():
    # An empty list and an absent one look alike on the wire.
    with pytest.raises(ValidationError, match="features_per_stage"):
        NnunetTrainingParams(features_per_stage=[])

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.strategies import params

from respan.v1 import quantification_pb2, restoration_pb2, segmentation_pb2, training_pb2
from respan_common.convert import from_proto, to_proto, validated
from respan_common.errors import InputError
from respan_common.params import (
    NnunetTrainingParams,
    QuantificationParams,
    RestorationParams,
    SegmentationParams,
    SynthesisParams,
)

PAIRS = [
    (RestorationParams, restoration_pb2.RestorationParams),
    (SegmentationParams, segmentation_pb2.SegmentationParams),
    (QuantificationParams, quantification_pb2.QuantificationParams),
    (SynthesisParams, training_pb2.SynthesisParams),
    (NnunetTrainingParams, training_pb2.NnunetTrainingParams),
]


@pytest.mark.parametrize(("model", "message"), PAIRS)
@given(data=st.data())
def test_any_parameters_survive_the_wire(model, message, data):
    values = data.draw(params(model))
    wire = message.FromString(to_proto(values, message).SerializeToString())
    assert from_proto(wire, model) == values


def test_a_zero_stays_a_zero_and_an_absent_field_is_the_default():
    message = quantification_pb2.QuantificationParams(min_dendrite_volume_um3=0.0)
    received = from_proto(message, QuantificationParams)
    assert received.min_dendrite_volume_um3 == 0.0
    assert received.min_spine_volume_um3 == QuantificationParams().min_spine_volume_um3


def test_every_bad_value_names_its_field():
    message = segmentation_pb2.SegmentationParams(step_size=7.0, preset="quick", channel=0)
    with pytest.raises(InputError) as caught:
        from_proto(message, SegmentationParams)
    for expected in ("step_size", "preset", "channel", "7.0", "'quick'"):
        assert expected in str(caught.value)


def test_a_contradiction_between_fields_names_both_values():
    message = quantification_pb2.QuantificationParams(
        min_spine_volume_um3=3.0, max_spine_volume_um3=2.0
    )
    with pytest.raises(InputError, match=r"min_spine_volume_um3 \(3.0\).*max.*\(2.0\)"):
        from_proto(message, QuantificationParams)


def test_an_unknown_name_is_refused_with_its_name():
    with pytest.raises(InputError, match="chanel"):
        validated(SegmentationParams, {"chanel": 1})


def test_a_whole_number_that_does_not_fit_the_wire_names_its_field():
    with pytest.raises(InputError, match="seed"):
        to_proto(SynthesisParams(seed=2**40), training_pb2.SynthesisParams)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_value_that_is_not_finite_is_refused_on_both_sides(value):
    with pytest.raises(ValidationError, match="max_spine_volume_um3"):
        QuantificationParams(max_spine_volume_um3=value)
    message = quantification_pb2.QuantificationParams(max_spine_volume_um3=value)
    with pytest.raises(InputError, match="max_spine_volume_um3"):
        from_proto(message, QuantificationParams)

"""Normalization from blocks against nnU-Net's own on the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization import default_normalization_schemes as nnunet

from respan_common.blocks import grid
from respan_common.errors import InputError, ModelError
from respan_segmentation.normalization import (
    SCHEMES,
    normalization,
    normalized_range,
    statistics_of,
)

INTENSITIES = {"mean": 90.0, "std": 30.0, "percentile_00_5": 20.0, "percentile_99_5": 180.0}


def image(border=0, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (7, 12, 11)).astype(np.uint8)
    return np.pad(values, border)


def blockwise(values, block_zyx=(3, 5, 4)):
    blocks = grid(values.shape, block_zyx)
    return statistics_of((block.inner, values[block.inner]) for block in blocks)


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_give_what_nnunet_gives_for_the_whole_image(scheme, border):
    values = image(border)
    cropped, _, _ = crop_to_nonzero(values[None].astype(np.float32))
    reference = getattr(nnunet, scheme)(False, INTENSITIES)
    statistics = blockwise(values)
    found = normalization(scheme, statistics, INTENSITIES).apply(values[statistics.box])
    np.testing.assert_allclose(found, reference.run(cropped[0].copy()), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(block=st.tuples(*[st.integers(1, 14)] * 3), offset=st.sampled_from([1, 1000, 60000]))
def test_statistics_do_not_depend_on_the_blocks(block, offset):
    values = image().astype(np.float64) + offset
    found = blockwise(values, block)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(values.std(), rel=1e-9)
    assert (found.low, found.high) == (values.min(), values.max())


def test_the_box_holds_all_values_other_than_zero_and_no_more():
    values = np.zeros((6, 7, 8), np.uint16)
    values[2:4, 3, 1:6] = 5
    assert blockwise(values).box == (slice(2, 4), slice(3, 4), slice(1, 6))


def test_an_image_of_zeros_has_no_box():
    assert blockwise(np.zeros((4, 4, 4), np.uint16)).box is None


def test_a_uniform_image_is_normalized_without_a_division_by_zero():
    values = np.full((4, 4, 4), 7, np.uint16)
    for scheme in SCHEMES:
        assert np.isfinite(
            normalization(scheme, blockwise(values), INTENSITIES).apply(values)
        ).all()


def test_masked_zeros_neither_count_nor_change():
    values = image(border=2)
    scheme = normalization("ZScoreNormalization", blockwise(values), {}, mask_zeros=True)
    found = scheme.apply(values)
    assert (found[values == 0] == 0).all()
    assert found[values != 0].mean() == pytest.approx(0, abs=1e-5)
    assert found[values != 0].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("border", [0, 2])
@pytest.mark.parametrize("mask_zeros", [False, True])
def test_the_range_is_that_of_the_normalized_image(border, mask_zeros):
    values = image(border)
    statistics = blockwise(values)
    scheme = normalization("ZScoreNormalization", statistics, {}, mask_zeros=mask_zeros)
    found = scheme.apply(values[statistics.box])
    assert normalized_range(scheme, statistics) == (found.min(), found.max())


def test_sixteen_bit_values_are_refused_by_a_model_of_bytes():
    with pytest.raises(InputError, match="0 to 255"):
        normalization("RGBTo01Normalization", blockwise(image().astype(np.uint16) * 100), {})


def test_values_that_are_not_numbers_are_refused():
    values = image().astype(np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="not numbers"):
        blockwise(values)


def test_an_unknown_scheme_is_named():
    with pytest.raises(ModelError, match="'MyNormalization' is unknown"):
        normalization("MyNormalization", blockwise(image()), {})


def test_missing_intensities_of_the_training_data_are_named():
    with pytest.raises(ModelError, match="'mean'"):
        normalization("CTNormalization", blockwise(image()), {})

import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import CONFOCAL, FINE, TWO_PHOTON

from respan_common.geometry import VoxelSpacing
from respan_quantification.dips import split_at_dips

SIGMA_UM = 0.25


def two_lights(apart_um, spacing, *, photons=1e6, offset=0.0, seed=0):
    """Mask and image of two blurred spots in one mask, with the noise of that many photons."""
    shape = [round(3.0 / edge) for edge in spacing.zyx]
    at = np.indices(shape) * np.reshape(spacing.zyx, (3, 1, 1, 1))
    light = np.zeros(shape)
    for side in (-0.5, 0.5):
        center = np.reshape((1.5, 1.5, 1.5 + side * apart_um), (3, 1, 1, 1))
        light += np.exp(-np.square((at - center) / SIGMA_UM).sum(axis=0) / 2)
    mask = light > 0.35 * light.max()
    return mask, offset + np.random.default_rng(seed).poisson(light * photons)


def parts(mask, grey, spacing, smallest=4):
    return split_at_dips(mask, grey, spacing, smallest)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL, VoxelSpacing(0.5, 0.1, 0.1)])
def test_two_spots_with_a_dip_between_them_are_two_halves(spacing):
    mask, grey = two_lights(0.75, spacing)
    found = parts(mask, grey, spacing)
    counts = np.bincount(found.ravel())
    assert len(counts) == 3
    assert counts[1:].min() / counts[1:].max() > 0.8
    np.testing.assert_array_equal(found > 0, mask)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL, TWO_PHOTON])
def test_two_spots_that_melt_are_one(spacing):
    mask, grey = two_lights(0.4, spacing)
    assert parts(mask, grey, spacing).max() == 1


@pytest.mark.parametrize("spacing", [CONFOCAL, TWO_PHOTON])
@pytest.mark.parametrize("photons", [5, 15, 50])
def test_noise_cuts_no_spine(spacing, photons):
    cut = [
        parts(*two_lights(0.0, spacing, photons=photons, seed=seed), spacing).max() > 1
        for seed in range(20)
    ]
    assert sum(cut) <= 1


def test_brightness_and_offset_change_nothing():
    mask, grey = two_lights(0.75, FINE, photons=200)
    expected = parts(mask, grey, FINE)
    np.testing.assert_array_equal(parts(mask, 40 * grey + 1000, FINE), expected)
    assert expected.max() == 2


def test_what_lies_around_changes_nothing():
    mask, grey = two_lights(0.75, FINE, photons=200)
    np.testing.assert_array_equal(
        parts(mask, np.where(mask, grey, 65535), FINE), parts(mask, grey, FINE)
    )


def test_parts_smaller_than_a_spine_are_none():
    mask, grey = two_lights(0.75, FINE)
    assert parts(mask, grey, FINE, smallest=0.6 * mask.sum()).max() == 1


def test_even_and_missing_grey_values_cut_nothing():
    mask, _ = two_lights(0.75, FINE)
    for value in (7.0, np.nan):
        assert parts(mask, np.full(mask.shape, value), FINE).max() == 1

"""Dim dendrites: how bright they are beside the others, and what becomes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.respan_quantification.phantoms import FINE, SPINE, Scene, quantified

from respan_quantification.brightness import finite, relative_brightness

DARK = np.array([1000.0, 100])  # 10 per voxel


def relative(brightness, voxels, background=DARK):
    voxels = np.asarray(voxels)
    return relative_brightness((np.asarray(brightness) + 10.0) * voxels, voxels, background)


def test_one_dendrite_is_as_bright_as_usual_whatever_its_size():
    assert relative([40.0], [7]).tolist() == [1.0]


def test_what_is_usual_is_the_mean_weighted_by_light():
    # (100 x 30 x 30 + 50 x 10 x 10) / (100 x 30 + 50 x 10)
    usual = (90_000 + 5_000) / 3_500
    assert relative([30.0, 10.0], [100, 50]) == pytest.approx([30 / usual, 10 / usual])


def test_many_faint_scraps_do_not_make_the_dendrite_unusual():
    assert relative([100.0, *[5.0] * 50], [1000, *[10] * 50])[0] == pytest.approx(1, abs=0.03)


def test_nothing_is_dim_where_nothing_is_brighter_than_the_background_or_that_is_unknown():
    assert relative([0.0, -3.0], [5, 5]).tolist() == [1.0, 1.0]
    assert relative([1.0, 9.0], [5, 5], np.zeros(2)).tolist() == [1.0, 1.0]
    assert relative([], []).tolist() == []


@given(st.floats(0.1, 100), st.floats(-1000, 1000))
def test_gain_and_offset_do_not_matter(gain, offset):
    voxels, grey = np.array([20, 30, 4]), np.array([50.0, 20.0, 11.0])
    other = np.array([(10 * gain + offset) * 100, 100])
    mapped = relative_brightness((gain * grey + offset) * voxels, voxels, other)
    assert mapped == pytest.approx(relative_brightness(grey * voxels, voxels, DARK), abs=1e-6)


def test_what_is_no_number_counts_as_0():
    assert finite(np.array([np.nan, np.inf, -np.inf, 2])).tolist() == [0, 0, 0, 2]


def bright_and_dim(dtype=np.uint16):
    """A dendrite of 110, an axon of 20 on a background of 10 (relative: 0.1), a spine on each."""
    scene = Scene((3, 6, 8), FINE)
    scene.tube((1.5, 1.5, 0.5), (1.5, 1.5, 7.5), 0.5)
    scene.tube((1.5, 4.5, 0.5), (1.5, 4.5, 7.5), 0.4)
    dim = np.arange(scene.classes.shape[1])[None, :, None] >= 30
    scene.ball((1.5, 2.4, 4), 0.3).ball((1.5, 5.3, 4), 0.3)
    grey = np.where(scene.classes > 0, np.where(dim, 20, 110), 10).astype(dtype)
    return scene.classes, grey


BLOCKS = [None, (8, 16, 16), (30, 60, 13)]


@pytest.mark.parametrize("block_zyx", BLOCKS)
def test_a_dim_axon_goes_with_its_boutons_and_is_counted(block_zyx):
    classes, grey = bright_and_dim()
    found = quantified(
        classes, FINE, grey[None], block_zyx=block_zyx, min_dendrite_brightness=0.2,
        max_spine_distance_um=1.0,
    )  # fmt: skip
    assert found.dendrite_table["dendrite_id"].tolist() == [1]
    assert found.spine_table["y_um"].between(2, 3).all()
    assert len(found.spine_table) == 1
    assert found.numbers["discarded_dim_dendrites"] == 1
    kept = found.labels["dendrites"] > 0
    assert np.array_equal(kept, (classes == 2) & (grey == 110))


@pytest.mark.parametrize("least", [0.0, 0.05])
def test_a_dendrite_that_is_bright_enough_stays(least):
    classes, grey = bright_and_dim()
    found = quantified(classes, FINE, grey[None], min_dendrite_brightness=least)
    assert len(found.dendrite_table) == len(found.spine_table) == 2
    assert found.numbers["discarded_dim_dendrites"] == 0


def test_the_neurons_channel_tells_and_what_is_no_number_is_dark():
    classes, grey = bright_and_dim(np.float32)
    grey[0, 0, 0] = np.nan
    channels = np.stack([np.full_like(grey, 7), grey])
    found = quantified(classes, FINE, channels, channel=2, min_dendrite_brightness=0.2)
    assert len(found.dendrite_table) == 1


def test_an_image_full_of_dendrite_has_no_background_and_keeps_it():
    classes = np.full((10, 20, 20), 2, np.uint8)
    found = quantified(classes, FINE, min_dendrite_brightness=1.0)
    assert len(found.dendrite_table) == 1


def test_one_block_of_many_may_hold_nothing():
    classes, grey = bright_and_dim()
    classes[classes == SPINE] = 0
    whole = quantified(classes, FINE, grey[None], min_dendrite_brightness=0.2)
    cut = quantified(classes, FINE, grey[None], block_zyx=(5, 7, 80), min_dendrite_brightness=0.2)
    assert np.array_equal(whole.labels["dendrites"], cut.labels["dendrites"])

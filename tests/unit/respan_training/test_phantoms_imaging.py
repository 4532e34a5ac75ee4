from dataclasses import replace

import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_training.phantoms.field import Field
from respan_training.phantoms.imaging import (
    background_planes,
    blur_laterally,
    detect,
    expose,
    patches_light,
    shift_lines,
    shift_plane,
)
from respan_training.phantoms.raster import blurring
from respan_training.phantoms.recipe import Detector

PLAIN = Detector(
    photons=50,
    background=2.0,
    gradient=0.0,
    texture=0.0,
    excess=1.0,
    gain=3.0,
    offset=100.0,
    read=2.0,
    bits=16,
    jitter_voxels=0.0,
)


@pytest.mark.parametrize("excess", [1.0, 1.4])
@pytest.mark.parametrize("photons", [4.0, 60.0])
def test_noise_has_the_mean_and_variance_of_its_model(photons, excess):
    detector = replace(PLAIN, excess=excess)
    expected = np.full((1000, 100), photons, dtype=np.float32)
    grey = detect(expected, detector, np.random.default_rng(0)).astype(float)
    # Rounding to whole grey values adds 1/12.
    assert grey.mean() == pytest.approx(3 * photons + 100, rel=0.01)
    assert grey.var() == pytest.approx(9 * excess * photons + 4 + 1 / 12, rel=0.03)


def test_grey_values_clip_at_white_and_at_black():
    photons = np.array([[0, 1e6]], dtype=np.float32)
    grey = detect(photons, replace(PLAIN, bits=8, offset=-50.0), np.random.default_rng(0))
    assert grey.dtype == np.uint8
    assert grey.ravel().tolist() == [0, 255]


def test_smoothing_makes_neighbors_alike():
    photons = np.full((400, 100), 20, dtype=np.float32)
    detector = replace(PLAIN, smoothing_x_voxels=0.8)
    grey = detect(photons, detector, np.random.default_rng(0)).astype(float) - 160
    assert (grey[..., 1:] * grey[..., :-1]).mean() / grey.var() > 0.5
    assert abs((grey[1:] * grey[:-1]).mean() / grey.var()) < 0.1


FIELD = Field((40, 64, 64), VoxelSpacing(0.3, 0.1, 0.1))


def background(detector, field=FIELD):
    return np.stack([*background_planes(field, detector, np.random.default_rng(0))])


def test_an_even_background_is_even_and_a_gradient_keeps_its_mean():
    assert (background(PLAIN) == 2).all()
    slope = background(replace(PLAIN, gradient=0.3))
    assert slope.mean() == pytest.approx(2, rel=1e-4)
    assert slope.max() <= 2 * 1.3 + 1e-4
    assert slope.std() > 0.05


def test_grain_has_its_strength_and_its_size_along_every_axis():
    grain = background(replace(PLAIN, texture=0.2)) / 2 - 1
    assert grain.std() == pytest.approx(0.2, rel=0.03)
    for axis, steps in enumerate((6, 6, 6)):
        # At twice the standard deviation of the Gaussian behind it: 1.8 and 0.6 µm.
        there = np.roll(grain, -steps, axis).take(range(grain.shape[axis] - steps), axis)
        here = grain.take(range(grain.shape[axis] - steps), axis)
        assert (here * there).mean() / grain.var() == pytest.approx(np.exp(-1), abs=0.15)


def test_lines_without_jitter_stay_and_with_jitter_keep_an_even_image():
    plane = np.full((5, 6), 7, dtype=np.float32)
    rng = np.random.default_rng(0)
    assert shift_lines(plane, 0.0, rng) is plane
    np.testing.assert_allclose(shift_lines(plane, 0.5, rng), 7, rtol=1e-5)


def test_a_patch_is_brightest_at_its_center():
    field = Field((9, 21, 21), VoxelSpacing(1, 0.5, 0.5))
    patch = np.array([[4.0, 5.0, 6.0, 1.5, 0.2]])
    light = np.stack([patches_light(patch, field, z_um) for z_um in field.axis_um(0)])
    assert np.unravel_index(light.argmax(), light.shape) == (4, 10, 12)
    assert light.max() == pytest.approx(0.2)


def test_planes_without_motion_stay_and_with_motion_keep_an_even_image():
    plane = np.full((8, 8), 7, dtype=np.float32)
    rng = np.random.default_rng(0)
    assert shift_plane(plane, 0.0, rng) is plane
    np.testing.assert_allclose(shift_plane(plane, 0.8, rng), 7, rtol=1e-5)


def test_motion_moves_a_spot_by_at_most_a_voxel_and_a_half():
    plane = np.zeros((15, 15), dtype=np.float32)
    plane[7, 7] = 1
    rng = np.random.default_rng(0)
    moved = np.stack([shift_plane(plane, 5.0, rng) for _ in range(20)])
    rows = (moved.sum(axis=2) * np.arange(15)).sum(axis=1)
    assert np.abs(rows - 7).max() == pytest.approx(1.5)
    assert rows.std() > 0.5


def test_stripes_darken_whole_lines_and_nothing_else():
    field = Field((4, 50, 600), VoxelSpacing(1, 0.1, 0.1))
    detector = replace(PLAIN, background=1000.0, read=0.0, stripes=2)
    image = field.zeros(np.uint16)
    planes = np.zeros(field.shape_zyx, np.float32)
    expose(planes, field, detector, np.random.default_rng(3), image)
    lines = (image.mean(axis=2) - 100) / 3000
    assert 2 <= (lines < 0.31).sum() <= 6
    np.testing.assert_allclose(lines[lines > 0.31], 1, rtol=0.02)


def test_every_plane_is_blurred_by_its_own_width():
    field = Field((2, 61, 61), VoxelSpacing(1, 0.1, 0.1))
    image = np.zeros(field.shape_zyx, dtype=np.float32)
    image[:, 30, 30] = 1
    blurred = np.stack(
        [blur_laterally(*pair, field) for pair in zip(image, (0.2, 0.4), strict=True)]
    )
    away_um = (np.arange(61) - 30) * 0.1
    spread_um = np.sqrt((blurred.sum(axis=1) * away_um**2).sum(axis=1))
    np.testing.assert_allclose(spread_um, [0.2, 0.4], rtol=0.05)


def test_a_skewed_blur_keeps_light_and_reaches_further_into_depth():
    at_um = np.arange(-60, 61) * 0.1
    kernel = blurring(at_um, at_um, 1.0, skew=0.2)[:, 60]
    assert kernel.sum() == pytest.approx(1, rel=1e-3)
    assert kernel[at_um > 0].sum() / kernel[at_um < 0].sum() == pytest.approx(1.2 / 0.8, rel=0.03)

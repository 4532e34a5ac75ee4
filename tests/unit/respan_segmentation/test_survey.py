"""What is known of an image before it is segmented."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from respan_common.geometry import VoxelSpacing, whole
from respan_segmentation.survey import Survey, background, survey

SPACING = VoxelSpacing(0.3, 0.1, 0.1)
SHAPE = (40, 300, 260)


def surveyed(image, spacing=SPACING):
    return survey(lambda box: image[box], image.shape, spacing)


def noise(seed=0, mean=100.0, spread=10.0, shape=SHAPE):
    return np.random.default_rng(seed).normal(mean, spread, shape)


def box_around(point, size=4):
    return tuple(slice(int(p) - size, int(p) + size) for p in point)


def test_noise_alone_is_nothing_anywhere():
    occupancy = surveyed(noise().astype(np.uint16)).occupancy
    assert occupancy.share < 0.01


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_is_bright_is_something_and_so_is_all_within_4_um(dtype):
    image = noise()
    image[18:21, 150:154, 150:154] += 60
    occupancy = surveyed(image.astype(dtype)).occupancy
    assert occupancy.holds_something(box_around((20, 152, 152)))
    assert occupancy.holds_something(box_around((20, 152 + 38, 152)))
    assert occupancy.holds_something(box_around((20 + 13, 152, 152)))
    assert not occupancy.holds_something(box_around((20, 20, 20)))


def test_noise_of_few_photons_and_a_multiplier_is_nothing():
    rng = np.random.default_rng(5)
    photons = rng.poisson(0.7, SHAPE)
    image = np.clip(rng.gamma(np.maximum(photons, 0) / 0.5 + 1e-9, 0.5) * 3 - 1, 0, 255)
    assert surveyed(image.astype(np.uint8)).occupancy.share < 0.02


def test_a_dim_dendrite_is_something():
    image = noise(spread=20)
    image[16:20, 150:160, :] += 12  # 0.6 of the noise
    occupancy = surveyed(image.astype(np.uint16)).occupancy
    assert all(occupancy.holds_something(box_around((18, 155, x))) for x in (20, 130, 240))
    assert not occupancy.holds_something(box_around((18, 20, 130)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 700, 3), (70, 5, 530), (65, 513, 140)])
def test_every_place_of_an_image_of_any_shape_is_on_the_map(shape):
    image = np.zeros(shape, np.uint16)
    for corner in (tuple(0 for _ in shape), tuple(size - 1 for size in shape)):
        bright = image.copy()
        bright[corner] = 9999
        place = tuple(slice(at, at + 1) for at in corner)
        assert surveyed(bright).occupancy.holds_something(place)


def test_an_image_full_of_structure_is_looked_at_everywhere():
    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.normal(size=SHAPE), (2, 4, 4))
    dense = 1000 * np.exp(field / field.std())  # what is stained is bright, and it is everywhere
    occupancy = surveyed(dense.astype(np.float32)).occupancy
    boxes = [box_around(rng.uniform(10, np.array(SHAPE) - 10)) for _ in range(50)]
    assert all(occupancy.holds_something(box) for box in boxes)


def test_an_image_whose_background_was_cut_off_at_0_keeps_all_that_is_above():
    image = np.zeros(SHAPE, np.uint8)
    image[20, 150, 150] = 9
    assert surveyed(image).occupancy.holds_something(box_around((20, 150, 150)))


@pytest.mark.parametrize("structure", [0.0, 0.02, 0.3])
def test_the_background_is_learned_whatever_lies_on_it(structure):
    rng = np.random.default_rng(2)
    values = rng.normal(50, 4, 200_000)
    bright = rng.uniform(size=values.size) < structure
    values[bright] += rng.exponential(200, bright.sum())
    mean, spread = background(values.astype(np.float32))
    assert mean == pytest.approx(50, abs=2)
    assert spread == pytest.approx(4, rel=0.3)


def test_blocks_do_not_matter_for_skewness_and_box():
    image = np.zeros((70, 600, 20), np.uint16)
    image[3:66, 30:570, 2:19] = np.random.default_rng(3).gamma(2, 50, (63, 540, 17)) + 1
    found = surveyed(image).statistics
    inside = image[3:66, 30:570, 2:19].astype(float)
    assert found.box == (slice(3, 66), slice(30, 570), slice(2, 19))
    assert found.mean == pytest.approx(inside.mean())
    assert found.deviation == pytest.approx(inside.std())
    expected = ((inside - inside.mean()) ** 3).mean() / inside.std() ** 3
    assert found.skewness == pytest.approx(expected)


def test_roughness_tells_noise_from_blur():
    rough = surveyed(noise().astype(np.float32)).roughness
    smooth = surveyed(gaussian_filter(noise(), 8).astype(np.float32)).roughness
    assert rough == pytest.approx(1, abs=0.1)
    assert smooth < 0.1


def test_a_survey_is_read_as_it_was_saved(tmp_path):
    for image in (noise().astype(np.uint16), np.zeros((3, 4, 5), np.uint8)):
        found = surveyed(image)
        found.save(tmp_path / "survey.npz")
        back = Survey.load(tmp_path / "survey.npz")
        assert (back.statistics, back.roughness) == (found.statistics, found.roughness)
        assert back.occupancy.holds_something(whole(image.shape)) == (
            found.occupancy.holds_something(whole(image.shape))
        )

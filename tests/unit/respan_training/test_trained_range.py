import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_training.trained_range import trained_range, traits

RNG = np.random.default_rng(0)
NOISE = RNG.normal(100, 10, (4, 60, 60))
NOTHING = np.zeros((4, 60, 60), dtype=np.uint8)


def test_noise_alone_is_as_rough_as_it_is_wide():
    found = traits(NOISE, NOTHING)
    assert found["noise_to_spread"] == pytest.approx(1, abs=0.02)
    assert found["skewness"] == pytest.approx(0, abs=0.1)
    assert found["foreground_share"] == 0


def test_a_smooth_image_is_not_rough():
    smooth = np.sin(np.linspace(0, 3, 60))[None, :, None] * np.ones((4, 60, 60))
    assert traits(smooth, NOTHING)["noise_to_spread"] < 0.1


def test_an_inverted_image_is_skewed_the_other_way():
    image = RNG.exponential(5, (4, 60, 60))
    upright, inverted = traits(image, NOTHING), traits(255 - image, NOTHING)
    assert upright["skewness"] == pytest.approx(-inverted["skewness"])
    assert upright["skewness"] > 1


def test_traits_do_not_depend_on_offset_or_gain():
    stretched = traits(3 * NOISE + 50, NOTHING)
    for name, value in traits(NOISE, NOTHING).items():
        assert stretched[name] == pytest.approx(value)


def test_a_blank_image_has_traits():
    assert traits(np.zeros((2, 5, 5)), NOTHING[:2, :5, :5])["noise_to_spread"] == 0


def test_the_share_of_the_foreground_counts_every_class():
    labels = NOTHING.copy()
    labels[0, 0, :36] = np.arange(36) % 4 + 1
    assert traits(NOISE, labels)["foreground_share"] == pytest.approx(36 / NOISE.size)


def test_bounds_enclose_nearly_all_images_and_voxel_sizes_around_the_models():
    rows = [{"skewness": float(value)} for value in range(1001)]
    found = trained_range(rows, VoxelSpacing(1.0, 0.1, 0.1))
    assert found["skewness"] == [1.0, 999.0]
    assert found["spacing_um"] == {"low": [0.6, 0.06, 0.06], "high": [1.4, 0.14, 0.14]}

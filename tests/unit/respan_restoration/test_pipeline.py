import numpy as np
import pytest

from respan_common.errors import InputError
from respan_common.geometry import VoxelSpacing, whole
from respan_restoration import pipeline
from respan_restoration.pipeline import AxialGrid, to_stored
from respan_restoration.selfnet import SelfNet

GRID = AxialGrid((9, 40, 50), VoxelSpacing(0.5, 0.13, 0.13))


def noise(shape):
    return np.random.default_rng(2).integers(0, 1000, shape).astype(np.uint16)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (np.uint8, np.uint16),
        (np.uint16, np.uint16),
        (np.int16, np.float32),
        (np.uint32, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
def test_integers_stay_integers_if_sixteen_bits_hold_them(raw, stored):
    assert pipeline.stored_dtype(raw) == stored


def test_values_out_of_range_are_clipped_and_do_not_wrap():
    values = np.array([-3.0, -0.4, 0.6, 65534.7, 70000.0], np.float32)
    assert to_stored(values, np.uint16).tolist() == [0, 0, 1, 65535, 65535]


def test_floats_keep_values_that_are_negative():
    assert to_stored(np.array([-3.5]), np.float32).tolist() == [-3.5]


def test_a_smaller_integer_type_is_copied_as_it_is():
    assert to_stored(np.array([0, 255], np.uint8), np.uint16).tolist() == [0, 255]


def test_the_isotropic_grid_has_cubic_voxels_and_the_same_extent():
    assert GRID.shape_zyx == (35, 40, 50)
    assert GRID.spacing.zyx == (0.13, 0.13, 0.13)


def test_a_volume_too_thin_for_the_network_is_refused_before_any_work():
    with pytest.raises(InputError, match=r"4 voxels along every axis .*\(3, 40, 50\)"):
        AxialGrid((3, 40, 50), VoxelSpacing(0.1, 0.1, 0.1))


def test_a_box_of_the_interpolated_volume_reads_only_the_slices_that_it_needs():
    volume, read = noise((200, 4, 5)), []
    grid = AxialGrid(volume.shape, VoxelSpacing(0.3, 0.1, 0.1))
    box = (slice(300, 303), slice(0, 4), slice(2, 5))
    everything = pipeline.interpolated(volume.__getitem__, whole(grid.shape_zyx), grid.cubic)
    part = pipeline.interpolated(lambda it: (read.append(it), volume[it])[1], box, grid.cubic)
    np.testing.assert_allclose(part, everything[box], rtol=1e-5)
    assert 2 <= read[0][0].stop - read[0][0].start <= 40


def test_linear_interpolation_never_leaves_the_range_of_the_channel():
    volume = noise((9, 40, 50))
    values = pipeline.interpolated(volume.__getitem__, whole(GRID.shape_zyx), GRID.linear)
    assert volume.min() <= values.min()
    assert values.max() <= volume.max() + 1e-3


def test_blocks_of_the_axial_restoration_fit_together():
    volume, network = noise((9, 40, 50)), SelfNet().eval()

    def part(box):
        return pipeline.axially_restored(network, volume.__getitem__, box, GRID, (0, 1000))

    everything = part(whole(GRID.shape_zyx))
    for box in [
        (slice(0, 16), slice(0, 6), slice(0, 4)),
        (slice(32, 35), slice(32, 40), slice(0, 3)),
    ]:
        np.testing.assert_allclose(part(box), everything[box], atol=1e-2)

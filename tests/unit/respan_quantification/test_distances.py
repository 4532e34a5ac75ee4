import numpy as np
import pytest
from numpy.testing import assert_array_equal

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_quantification import distances
from respan_quantification.distances import along_dendrite_um, to_dendrite_um
from respan_quantification.frame import Frame

SPACING = VoxelSpacing(0.5, 0.1, 0.2)
SHAPE = (9, 30, 40)


class Along:
    """A centerline along x that begins at x = 1 µm."""

    def position_um(self, points_um):
        return np.maximum(points_um[:, 2] - 1.0, 0.0)


def dendrites():
    labels = np.zeros(SHAPE, np.uint32)
    labels[4, 10:13, :] = 2
    labels[2:7, 25:27, 30:] = 5
    return labels


def test_distance_counts_in_micrometers_between_voxel_centers():
    labels = np.zeros(SHAPE, np.uint32)
    labels[4, 15, 20] = 1
    found = to_dendrite_um(labels, Frame.of_whole(SHAPE, SPACING), 100.0)
    z, y, x = np.indices(SHAPE)
    truth = np.sqrt(((z - 4) * 0.5) ** 2 + ((y - 15) * 0.1) ** 2 + ((x - 20) * 0.2) ** 2)
    assert found.dtype == np.float32
    assert found == pytest.approx(truth, abs=1e-4)


def test_inside_it_is_zero_and_far_away_it_saturates():
    found = to_dendrite_um(dendrites(), Frame.of_whole(SHAPE, SPACING), 0.8)
    assert set(np.unique(found[dendrites() > 0])) == {0.0}
    assert found.max() == np.float32(0.8)
    empty = to_dendrite_um(dendrites() * 0, Frame.of_whole(SHAPE, SPACING), 0.8)
    assert set(np.unique(empty)) == {np.float32(0.8)}


@pytest.mark.parametrize("block_zyx", [(4, 16, 16), (9, 7, 40), (2, 30, 5)])
def test_blocks_do_not_show_in_either_image(block_zyx):
    labels, trees = dendrites(), {2: Along(), 5: Along()}
    frame = Frame.of_whole(SHAPE, SPACING)
    far, along = np.full(SHAPE, -1, np.float32), np.full(SHAPE, -1, np.float32)
    for block in grid(SHAPE, block_zyx, distances.halo(1.2, SPACING)):
        part = Frame(block.outer, block.inner, SHAPE, SPACING)
        far[block.inner] = to_dendrite_um(labels[block.outer], part, 1.2)
        along[block.inner] = along_dendrite_um(labels[block.inner], part, trees)
    assert_array_equal(far, to_dendrite_um(labels, frame, 1.2))
    assert_array_equal(along, along_dendrite_um(labels, frame, trees))


def test_a_block_without_its_halo_is_refused():
    frame = Frame(np.s_[0:9, 0:16, 0:16], np.s_[0:9, 0:10, 0:10], SHAPE, SPACING)
    with pytest.raises(AssertionError, match="halo"):
        to_dendrite_um(dendrites()[frame.outer], frame, 1.2)


def test_position_is_told_inside_dendrites_only(monkeypatch):
    monkeypatch.setattr(distances, "_POINTS_AT_ONCE", 7)
    found = along_dendrite_um(dendrites(), Frame.of_whole(SHAPE, SPACING), {2: Along()})
    assert np.isnan(found[dendrites() != 2]).all(), "dendrite 5 has no tree"
    assert found[4, 10:13, 0] == pytest.approx(0.0)
    assert found[4, 11] == pytest.approx(np.maximum(np.arange(40) * 0.2 - 1.0, 0.0), abs=1e-4)

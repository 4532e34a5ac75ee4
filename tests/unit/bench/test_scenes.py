"""What measurements are held to must itself be true."""

import math

import numpy as np
import pytest
from bench.neuropil import SPACING, sparse_volume
from bench.scenes import NECK, SPINE, Arc, Ball, Scene, Tube, around

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_quantification.arrays import components26

FINE = VoxelSpacing(0.05, 0.05, 0.05)


def volume_um3(*solids, spacing=FINE):
    return np.count_nonzero(around(*solids, spacing=spacing).paint()) * spacing.voxel_volume_um3


@pytest.mark.parametrize("spacing", [FINE, VoxelSpacing(0.1, 0.05, 0.05)])
def test_solids_have_the_volume_of_their_formula(spacing):
    section = math.pi * 0.5**2
    ball = volume_um3(Ball((1, 1, 1), 0.5), spacing=spacing)
    assert ball == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)
    tube = volume_um3(Tube((1, 1, 1), (2, 3, 3), 0.5), spacing=spacing)
    assert tube == pytest.approx(3 * section, rel=0.02)
    rounded = volume_um3(Tube((1, 1, 1), (2, 3, 3), 0.5, round_ends=True), spacing=spacing)
    assert rounded == pytest.approx(3 * section + 4 / 3 * math.pi * 0.5**3, rel=0.02)
    arc = volume_um3(Arc((1, 1, 1), 2.0, math.pi / 2, 0.5), spacing=spacing)
    assert arc == pytest.approx(math.pi * section, rel=0.02)  # its centerline is pi long


def test_what_is_thinner_than_the_blur_is_as_thick_as_the_blur():
    blurred = Ball((1, 1, 1), 0.3, least_radii=(0.6, 0.0, 0.0))
    assert volume_um3(blurred) == pytest.approx(4 / 3 * math.pi * 0.6 * 0.3**2, rel=0.02)


def test_the_earlier_solid_is_seen():
    scene = Scene((2, 2, 2), FINE, [Ball((1, 1, 1), 0.5, SPINE), Ball((1, 1, 1), 0.6, NECK)])
    assert scene.paint()[20, 20, 20] == SPINE
    assert scene.paint()[20, 20, 31] == NECK


def test_a_scene_looks_the_same_block_by_block():
    scene = sparse_volume((60, 220, 150), 40, seed=3)
    whole = scene.paint()
    assert len(np.unique(whole)) == 4
    for block in grid(scene.shape_zyx, (25, 64, 100)):
        assert np.array_equal(scene.paint(block.inner), whole[block.inner])


@pytest.mark.parametrize("spines", [25, 60])
def test_a_sparse_volume_has_as_many_separate_spines_as_asked_for(spines):
    classes = sparse_volume((80, 240, 160), spines).paint()
    assert components26(classes == SPINE).max() == spines
    assert SPACING.zyx == (0.15, 0.1, 0.1)


def test_too_many_spines_for_a_volume_are_refused():
    with pytest.raises(AssertionError, match="too many"):
        sparse_volume((40, 200, 100), 1000)

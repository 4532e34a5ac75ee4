from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import SPACINGS, triples

from respan_common.errors import InputError
from respan_common.geometry import (
    VoxelSpacing,
    absolute,
    clipped,
    grow,
    relative,
    shape_of,
    whole,
)


@pytest.mark.parametrize("edge", [0.0, -1.0, math.nan, math.inf])
def test_a_voxel_without_a_positive_finite_edge_is_refused(edge):
    with pytest.raises(InputError, match="positive"):
        VoxelSpacing(1.0, edge, 1.0)


@given(SPACINGS)
def test_doubling_the_edges_makes_eight_times_the_volume(spacing):
    double = VoxelSpacing(*(2 * edge for edge in spacing.zyx))
    assert double.voxel_volume_um3 == pytest.approx(8 * spacing.voxel_volume_um3)
    assert double.voxels_in(double.voxel_volume_um3) == pytest.approx(1)


@given(SPACINGS, st.floats(0, 20))
def test_the_reach_covers_the_distance_and_no_whole_voxel_more(spacing, distance_um):
    for voxels, edge in zip(spacing.reach(distance_um), spacing.zyx, strict=True):
        assert voxels * edge >= distance_um * (1 - 1e-6) - 1e-8
        assert (voxels - 1) * edge < distance_um or voxels == 0


def test_an_exact_multiple_of_the_edge_needs_no_extra_voxel():
    assert VoxelSpacing(0.3, 0.1, 0.1).reach(0.3) == (1, 3, 3)


def test_voxel_centers_are_measured_from_the_first_voxel():
    points = VoxelSpacing(2, 1, 0.5).points_um(np.array([[0, 0, 0], [1, 2, 3]]))
    assert points.tolist() == [[0, 0, 0], [2, 2, 1.5]]


@given(triples(1, 20), triples(0, 5))
def test_a_grown_box_stays_inside_and_finds_its_inner_box_again(shape, margin):
    inner = (slice(0, 1), slice(shape[1] // 2, shape[1]), slice(0, shape[2]))
    outer = grow(inner, margin, shape)
    volume = np.arange(math.prod(shape)).reshape(shape)
    assert np.array_equal(volume[outer][relative(inner, outer)], volume[inner])
    assert shape_of(whole(shape)) == shape
    assert all(0 <= part.start < part.stop <= n for part, n in zip(outer, shape, strict=True))
    assert absolute(relative(inner, outer), outer) == inner


def test_a_clipped_box_keeps_what_lies_in_the_array():
    box = (slice(-2, 3), slice(4, 9), slice(1, 2))
    assert clipped(box, (5, 6, 7)) == (slice(0, 3), slice(4, 6), slice(1, 2))

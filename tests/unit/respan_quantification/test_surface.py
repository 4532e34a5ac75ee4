import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import FINE, TENFOLD

from respan_common.geometry import VoxelSpacing
from respan_quantification.surface import Surface, chord_um


def labelled(shape, *voxels):
    labels = np.zeros(shape, np.uint32)
    for number, voxel in enumerate(voxels, start=1):
        labels[voxel] = number
    return labels


def asked(labels, spacing, voxel):
    return Surface(labels, spacing).nearest(np.array([voxel], np.int32))


def test_the_gap_runs_from_side_to_side():
    found = asked(labelled((3, 3, 9), (1, 1, 0)), FINE, (1, 1, 7))
    assert found.center_um[0] == pytest.approx(0.7)
    assert found.gap_um[0] == pytest.approx(0.6)


def test_the_nearest_object_is_nearest_in_micrometers():
    labels = labelled((5, 3, 12), (4, 1, 0), (1, 1, 9))
    assert asked(labels, TENFOLD, (1, 1, 0)).ids[0] == 2
    assert asked(labels, FINE, (1, 1, 0)).ids[0] == 1


def test_a_touching_voxel_below_wins_over_a_nearer_center_beside():
    labels = labelled((3, 3, 9), (2, 1, 1), (1, 1, 5))
    found = asked(labels, TENFOLD, (1, 1, 1))
    assert (found.ids[0], found.gap_um[0]) == (1, 0)


def test_corner_neighbors_touch():
    assert asked(labelled((3, 3, 3), (0, 0, 0)), TENFOLD, (1, 1, 1)).gap_um[0] == 0


def test_an_object_that_fills_the_array_still_has_a_surface():
    assert not Surface(np.ones((2, 2, 2), np.uint32), FINE).is_empty
    assert Surface(np.zeros((2, 2, 2), np.uint32), FINE).is_empty


def test_a_chord_is_an_edge_along_an_axis_and_a_diagonal_between():
    directions = np.array([[5.0, 0, 0], [0, 0, -2.0], [0, 0.1, 0.1], [0, 0, 0]])
    chords = chord_um(directions, VoxelSpacing(1.0, 0.1, 0.1))
    assert chords == pytest.approx([1.0, 0.1, 0.1 * 2**0.5, 0])

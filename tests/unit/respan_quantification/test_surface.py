import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.respan_quantification.phantoms import CONFOCAL, FINE, TENFOLD

from respan_common.geometry import VoxelSpacing
from respan_quantification.frame import Frame
from respan_quantification.surface import Surface, chord_um


def labelled(shape, *voxels):
    labels = np.zeros(shape, np.uint32)
    for number, voxel in enumerate(voxels, start=1):
        labels[voxel] = number
    return labels


def asked(labels, spacing, voxel):
    frame = Frame.of_whole(labels.shape, spacing)
    return Surface.of_labels(labels, frame).nearest(np.array([voxel], np.int32))


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
    frame = Frame.of_whole((2, 2, 2), FINE)
    assert not Surface.of_labels(np.ones((2, 2, 2), np.uint32), frame).is_empty
    assert Surface.of_labels(np.zeros((2, 2, 2), np.uint32), frame).is_empty


def test_of_equally_near_voxels_the_first_wins_however_many_there_are():
    ring = np.zeros((3, 21, 21), np.uint32)
    y, x = np.mgrid[-10:11, -10:11]
    ring[1][np.isin(y**2 + x**2, (25, 26))] = 1
    found = asked(ring, FINE, (1, 10, 10))
    assert found.index_zyx[0].tolist() == [1, 5, 10]
    middle_of_a_cube = np.zeros((5, 5, 5), np.uint32)
    middle_of_a_cube[::4, ::4, ::4] = 1
    assert asked(middle_of_a_cube, FINE, (2, 2, 2)).index_zyx[0].tolist() == [0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.002, 0.02, 0.3]))
def test_a_surface_finds_what_looking_at_every_voxel_finds(seed, share):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((6, 20, 20)) < share, rng.integers(1, 4, (6, 20, 20)), 0)
    frame = Frame.of_whole(labels.shape, CONFOCAL)
    surface = Surface.of_labels(labels.astype(np.uint32), frame)
    if surface.is_empty:
        return
    index = np.argwhere(labels == 0)[::50]
    found = surface.nearest(index)
    everything = np.argwhere(labels)
    apart = np.abs(index[:, None] - everything[None]).max(axis=2) <= 1
    distance = np.linalg.norm((index[:, None] - everything[None]) * CONFOCAL.zyx, axis=2)
    best = np.where(apart.any(axis=1)[:, None] & ~apart, np.inf, distance).min(axis=1)
    assert found.center_um == pytest.approx(best)
    assert ((found.gap_um == 0) == apart.any(axis=1)).all()
    assert (labels[tuple(found.index_zyx.T)] == found.ids).all()


def test_a_block_and_the_whole_image_name_the_same_nearest_voxel():
    labels = np.zeros((8, 30, 30), np.uint32)
    labels[2:5, 10:14] = 1
    labels[3, 20:] = 2
    whole = Frame.of_whole(labels.shape, CONFOCAL)
    outer = (slice(1, 8), slice(4, 28), slice(3, 25))
    block = Frame(outer, outer, labels.shape, CONFOCAL)
    index = np.array([[3, 8, 12], [6, 17, 14], [5, 16, 20]])
    one = Surface.of_labels(labels, whole).nearest(index)
    other = Surface.of_labels(labels[outer], block).nearest(index)
    assert np.array_equal(one.index_zyx, other.index_zyx)
    assert np.array_equal(one.gap_um, other.gap_um)


def test_gathered_voxels_make_the_same_surface_as_labels():
    labels = labelled((5, 3, 12), (4, 1, 0), (1, 1, 9))
    gathered = Surface.of_voxels(
        np.argwhere(labels), labels[labels > 0], TENFOLD, labels.shape
    ).nearest(np.array([[1, 1, 0]]))
    assert gathered.ids[0] == asked(labels, TENFOLD, (1, 1, 0)).ids[0]


def test_a_chord_is_an_edge_along_an_axis_and_a_diagonal_between():
    directions = np.array([[5.0, 0, 0], [0, 0, -2.0], [0, 0.1, 0.1], [0, 0, 0]])
    chords = chord_um(directions, VoxelSpacing(1.0, 0.1, 0.1))
    assert chords == pytest.approx([1.0, 0.1, 0.1 * 2**0.5, 0])

import numpy as np
import pytest
from tests.unit.respan_quantification.dendrite_phantoms import (
    CONFOCAL,
    FINE,
    ball,
    grown,
    line,
    tube,
    union,
)

from respan_quantification.growth import Contact, grow_tree

FORK = (1.5, 7, 7)


def a_fork(spacing=FINE):
    arms = [line(FORK, end) for end in ((1.5, 7, 1), (1.5, 11, 12), (1.5, 3, 12))]
    return union(ball(FORK, 0.5, spacing), *(tube(arm, 0.5, spacing) for arm in arms))


def test_the_order_of_cells_and_samples_does_not_matter():
    voxels, rng = a_fork(), np.random.default_rng(0)
    radius = rng.uniform(0.1, 0.5, len(voxels))
    mixed = rng.permutation(len(voxels))
    once = grow_tree(voxels, radius, (1, 1, 1), voxels, FINE)
    again = grow_tree(voxels[mixed], radius[mixed], (1, 1, 1), rng.permutation(voxels), FINE)
    assert np.array_equal(once.points_um, again.points_um)
    assert np.array_equal(once.radius_um, again.radius_um)


def test_a_tree_moves_with_its_dendrite():
    voxels, way = a_fork(CONFOCAL), np.array([5, 70, 900])
    here, there = grown(voxels, CONFOCAL), grown(voxels + way, CONFOCAL)
    assert np.allclose(there.points_um, here.points_um + CONFOCAL.points_um(way), atol=1e-9)


@pytest.mark.parametrize("factor", [(2, 2, 2), (3, 3, 3), (1, 4, 3)])
@pytest.mark.parametrize("corner", [(0, 0, 0), (7, 11, 13)])
def test_coarse_cells_keep_lengths_and_branches(factor, corner):
    voxels = a_fork() + corner
    fine, coarse = grown(voxels, FINE), grown(voxels, FINE, factor)
    assert coarse.branches == fine.branches == 3
    assert coarse.length_um == pytest.approx(fine.length_um, rel=0.01)
    assert np.median(coarse.radius_um) == pytest.approx(np.median(fine.radius_um), rel=0.15)


def test_a_part_of_the_voxels_is_enough_for_the_length():
    voxels, rng = a_fork(), np.random.default_rng(0)
    radius = np.full(len(voxels), 0.3)
    every = grow_tree(voxels, radius, (1, 1, 1), voxels, FINE)
    some = grow_tree(voxels, radius, (1, 1, 1), voxels[rng.random(len(voxels)) < 0.2], FINE)
    assert some.length_um == pytest.approx(every.length_um, rel=0.01)


def test_the_root_is_where_the_soma_is():
    tree = grown(a_fork(), FINE, contact=Contact((15, 110, 119), 4, 0.2))
    assert (tree.soma_id, tree.soma_gap_um) == (4, 0.2)
    assert np.linalg.norm(tree.points_um[0] - np.array([1.5, 11, 12])) < 0.7

"""Loops of a dendrite that its tree does not have.

A tree cuts every loop somewhere: there, two branches touch although the way from one to the other
along the tree is long. Plan: each cell belongs to its nearest node; neighboring cells of different
branches touch. Where all that touch in one place are far apart along the tree, a loop was cut.

Next to a fork its branches touch as well, but some of these cells are near each other along the
tree; so a narrow fork is no loop. A hole that no branch runs around is none either.
"""

from __future__ import annotations

from typing import NamedTuple

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_common.neighbors import touching_parts
from respan_quantification.tree import Tree

Ints = NDArray[np.int64]

LOOP_RADII = 2 * np.pi
"""A way along the tree is long if it exceeds the sum of both radii so many times: that is the
circle around a hole that is as wide as the dendrite around it is thick."""


class _Touching(NamedTuple):
    """Neighboring cells of different branches, n of them: places, branches, and how far apart."""

    cells: Ints
    """Raster numbers, shape (n, 2)."""
    branches: Ints
    """One number for each pair of branches, shape (n,)."""
    is_far: NDArray[np.bool_]


def count_loops(
    mask: NDArray[np.bool_], spacing: VoxelSpacing, tree: Tree, workers: int = 1
) -> int:
    """Loops that were cut.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
        Cells of the dendrite.
    spacing
        Size of a cell.
    tree
        In µm from the first cell's center.
    """
    if tree.branches < 2:
        return 0
    touching = _touching(mask, spacing, tree, workers)
    if not touching.is_far.any():
        return 0
    place = _places(mask.shape, touching, spacing, float(np.median(tree.radius_um)))
    # A place is no loop where the same two branches also touch near a fork of theirs.
    told = np.stack([place, touching.branches], axis=1)
    far = np.unique(told[touching.is_far], axis=0)
    near = np.unique(told[~touching.is_far], axis=0)
    is_fork = np.isin(_paired(far), _paired(near))
    return len(np.setdiff1d(far[:, 0], far[is_fork, 0]))


def _places(
    shape_zyx: tuple[int, ...], touching: _Touching, spacing: VoxelSpacing, reach_um: float
) -> Ints:
    """Number of the place that each touch belongs to; 0: far from all that count.

    Far touches within twice `reach_um` of each other are in one place: where two tips meet, other
    cells often lie between.
    """
    elsewhere = np.ones(shape_zyx, dtype=bool)
    elsewhere.ravel()[touching.cells[touching.is_far]] = False
    around_um = edt.edt(elsewhere, anisotropy=spacing.zyx, black_border=False)
    places = cc3d.connected_components(around_um <= reach_um, connectivity=26)
    return np.asarray(places.ravel()[touching.cells[:, 0]], np.int64)


def _touching(
    mask: NDArray[np.bool_], spacing: VoxelSpacing, tree: Tree, workers: int
) -> _Touching:
    nodes = np.full(mask.shape, -1, dtype=np.int32)
    index = np.argwhere(mask)
    nodes[mask] = cKDTree(tree.points_um).query(spacing.points_um(index), workers=workers)[1]
    number = np.arange(mask.size, dtype=np.int64).reshape(mask.shape)
    cells, pairs = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
    for here, there in touching_parts(mask.shape):
        one, other = nodes[here], nodes[there]
        apart = (one >= 0) & (other >= 0)
        apart[apart] = tree.branch[one[apart]] != tree.branch[other[apart]]
        cells.append(np.stack([number[here][apart], number[there][apart]], axis=1))
        pairs.append(np.stack([one[apart], other[apart]], axis=1).astype(np.int64))
    pair = np.concatenate(pairs)
    branches = np.sort(tree.branch[pair], axis=1)
    way_um = _way_um(tree, pair[:, 0], pair[:, 1])
    long_um = LOOP_RADII * tree.radius_um[pair].sum(axis=1)
    return _Touching(
        np.concatenate(cells),
        branches[:, 0] * (tree.branches + 1) + branches[:, 1],
        way_um > long_um,
    )


def _way_um(tree: Tree, one: Ints, other: Ints) -> NDArray[np.float64]:
    """Length along the tree between pairs of nodes."""
    graph, walked = tree.branch_graph, tree.walked_um
    ends = np.stack([one, other])
    while True:
        branch = tree.branch[ends]
        apart = branch[0] != branch[1]
        if not apart.any():
            break
        # A branch begins on one with a smaller number: the larger cannot hold the common place.
        later = (branch[1] > branch[0]).astype(np.int64)
        rows = np.flatnonzero(apart)
        up = graph.first[branch[later[rows], rows] - 1]
        ends[later[rows], rows] = up
        at_root = rows[up == 0]
        ends[:, at_root] = 0
    return np.asarray(walked[one] + walked[other] - 2 * walked[ends].min(axis=0))


def _paired(rows: Ints) -> NDArray[np.complex128]:
    """Pairs of numbers as one number each, so that they can be looked up."""
    return np.asarray(rows[:, 0] + 1j * rows[:, 1])

"""From a dendrite's cells to its tree: voxel paths, then smooth curves, then one branch graph.

Cells are blocks of whole voxels: single voxels, unless the dendrite's box is too large for arrays
of these. They give the topology only; lengths come from voxels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing, Zyx
from respan_quantification import centerline, skeleton
from respan_quantification.centerline import Curve, Points
from respan_quantification.loops import count_loops
from respan_quantification.tree import Tree

Ints = NDArray[np.int64]

MEETS_RADII = 0.25
"""Share of a branch's radius by which it may miss the node of the stem that it begins at."""


@dataclass(frozen=True)
class Contact:
    """Where a dendrite meets a soma: its voxel in the whole image, the soma's id, the gap."""

    voxel_zyx: Zyx
    soma_id: int
    gap_um: float


@dataclass(frozen=True)
class _Lattice:
    """Dense arrays over the box of a dendrite's cells.

    `corner` is the first cell's index in the whole image; `spacing` a cell's size.
    """

    mask: NDArray[np.bool_]
    radius_um: NDArray[np.float32]
    corner: Ints
    factor: Ints
    spacing: VoxelSpacing

    @classmethod
    def of(
        cls, cells: Ints, radius_um: NDArray[np.floating], factor_zyx: Zyx, voxel: VoxelSpacing
    ) -> _Lattice:
        corner, factor = cells.min(axis=0), np.asarray(factor_zyx, np.int64)
        shape, place = cells.max(axis=0) - corner + 1, tuple((cells - corner).T)
        mask, radius = np.zeros(shape, bool), np.zeros(shape, np.float32)
        mask[place] = True
        radius[place] = radius_um
        return cls(mask, radius, corner, factor, VoxelSpacing(*np.multiply(voxel.zyx, factor)))

    def points_um(self, voxels_zyx: Ints, voxel: VoxelSpacing) -> Points:
        """Centers of voxels of the whole image, from the center of the first cell.

        Equal voxels give equal numbers to the last bit, wherever the dendrite lies.
        """
        inside = np.unique(voxels_zyx - self.corner * self.factor, axis=0)
        return np.asarray(voxel.points_um(inside) - (self.factor - 1) / 2 * voxel.zyx)

    def origin_um(self, voxel: VoxelSpacing) -> Points:
        """Center of the first cell in µm of the whole image."""
        return np.asarray((self.corner * self.factor + (self.factor - 1) / 2) * voxel.zyx)

    def cell_of(self, voxel_zyx: Zyx) -> skeleton.Index:
        """The cell that holds a voxel of the whole image."""
        z, y, x = (int(at) for at in np.asarray(voxel_zyx) // self.factor - self.corner)
        return (z, y, x)


def grow_tree(
    cells: Ints,
    radius_um: NDArray[np.floating],
    factor_zyx: Zyx,
    samples: Ints,
    spacing: VoxelSpacing,
    contact: Contact | None = None,
    workers: int = 1,
) -> Tree:
    """Branch graph of one connected dendrite, in µm of the whole image.

    The order of cells and samples does not matter, nor where in the image the dendrite lies.
    Memory is that of some 25 bytes for each cell of the cells' box.

    Parameters
    ----------
    cells : int array, shape (n, 3), n >= 1
        Indices of the dendrite's cells, counted in cells from the whole image's first voxel.
    radius_um : float array, shape (n,)
        Largest distance to the background of a voxel in each cell.
    factor_zyx
        Voxels per cell along each axis.
    samples : int array, shape (m, 3), m >= 1
        Voxels of the dendrite in the whole image: all, or an even choice of them.
    contact
        Where it meets its soma, which is where the tree is rooted; absent: at an end.
    workers
        Threads that search for nearest neighbors.
    """
    lattice = _Lattice.of(cells, radius_um, factor_zyx, spacing)
    origin_um = lattice.origin_um(spacing)
    root = None if contact is None else lattice.cell_of(contact.voxel_zyx)
    samples_um = lattice.points_um(samples, spacing)
    paths = skeleton.trace(
        lattice.mask, lattice.spacing, root, lattice.radius_um, samples_um, workers
    )
    curves = centerline.fit(paths, samples_um, spacing, workers, lattice.spacing)
    points, parents = join(curves)
    radii = _radii(points, lattice.radius_um, lattice.spacing)
    here = Tree(points, parents, radii)
    return Tree(
        points_um=points + origin_um,
        parents=parents,
        radius_um=radii,
        loops=count_loops(lattice.mask, lattice.spacing, here, workers),
        soma_id=0 if contact is None else contact.soma_id,
        soma_gap_um=0.0 if contact is None else contact.gap_um,
    )


def join(curves: list[Curve]) -> tuple[Points, Ints]:
    """Nodes and parents of one tree from the curves of a dendrite; each begins on an earlier."""
    points: list[Points] = []
    parents: list[Ints] = []
    first = [0]
    for curve in curves:
        kept, above = curve.points_um, -1
        if curve.parent >= 0:
            kept, node = _joint(curve, points[curve.parent])
            above = first[curve.parent] + node
        points.append(kept)
        parents.append(np.r_[above, np.arange(len(kept) - 1) + first[-1]])
        first.append(first[-1] + len(kept))
    return np.concatenate(points), np.concatenate(parents).astype(np.int64)


def _joint(curve: Curve, stem: Points) -> tuple[Points, int]:
    """What is left of a curve, and the node of the stem that it begins at.

    Where the thicknesses of both overlap, a curve is pulled aside by voxels that they share. So it
    runs straight from where it is clear of the stem back to the node of the stem that it meets.
    """
    points, thick_um = curve.points_um, 2 * curve.radius_um
    away_um = np.asarray(cKDTree(stem).query(points)[0])
    clear = int(np.argmax(away_um > thick_um))
    ahead = np.linalg.norm(points - points[clear], axis=1) > thick_um
    if away_um[clear] <= thick_um or not ahead[clear:].any():
        return points, int(np.argmin(np.linalg.norm(stem - points[0], axis=1)))
    back = points[clear] - points[clear + int(np.argmax(ahead[clear:]))]
    way = stem - points[clear]
    along = way @ (back / np.linalg.norm(back))
    off = np.sqrt(np.maximum(np.square(way).sum(axis=1) - along**2, 0.0))
    # Branches that leave at less than 20 degrees are left to their nearest node.
    off[(along <= 0) | (along > 3 * away_um[clear])] = np.inf
    # The first node that is as good as the best one: at a small angle many are.
    met = np.where(off <= off.min() + MEETS_RADII * curve.radius_um, along, np.inf)
    if not np.isfinite(off).any():
        met = np.square(way).sum(axis=1)
    return points[clear:], int(np.argmin(met))


def _radii(points: Points, radius_um: NDArray[np.float32], spacing: VoxelSpacing) -> Points:
    """Largest distance to the background among the cells around each node.

    A centerline runs between voxels, where the distance map has no value; its crest is near.
    """
    index = np.rint(points / spacing.zyx).astype(np.int64)
    last = np.subtract(radius_um.shape, 1)
    shifts = itertools.product((-1, 0, 1), repeat=3)
    around = [radius_um[tuple(np.clip(index + shift, 0, last).T)] for shift in shifts]
    return np.asarray(np.maximum.reduce(around), dtype=np.float64)

"""Dendrites: objects, branch graphs, and how they meet the soma."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, grow
from respan_quantification.growth import Contact, grow_tree
from respan_quantification.instances import inside_distance_um
from respan_quantification.objects import Labels, Voxels, boxes, components, keep, volumes_um3
from respan_quantification.surface import Surface
from respan_quantification.swc import Soma, ball_radius_um
from respan_quantification.tree import Tree

SOMA_GAP_UM = 0.5
"""A dendrite that comes this close to a soma belongs to it: labels often leave a thin seam."""


SAMPLED_VOXELS = 400_000
"""Voxels that stand for all of a dendrite where only averages are wanted."""


def find_dendrites(mask: NDArray[np.bool_], spacing: VoxelSpacing, min_volume_um3: float) -> Labels:
    """26-connected dendrites of at least that volume, numbered 1..N."""
    labels = components(mask)
    return keep(labels, volumes_um3(labels, spacing) >= min_volume_um3)


def roots_at_soma(surface: Surface, soma: Surface) -> dict[int, Contact]:
    """Dendrites that touch a soma, each with its nearest voxel."""
    if surface.is_empty or soma.is_empty:
        return {}
    nearest = soma.nearest(surface.index_zyx)
    roots = {}
    order = np.lexsort((nearest.center_um, nearest.gap_um, surface.ids))
    for row in order[np.unique(surface.ids[order], return_index=True)[1]]:
        if nearest.gap_um[row] <= SOMA_GAP_UM:
            z, y, x = (int(edge) for edge in surface.index_zyx[row])
            gap_um = float(nearest.gap_um[row])
            roots[int(surface.ids[row])] = Contact((z, y, x), int(nearest.ids[row]), gap_um)
    return roots


def grow_trees(
    dendrites: Labels,
    spacing: VoxelSpacing,
    roots: dict[int, Contact],
    tick: Callable[[], None],
) -> dict[int, Tree]:
    """Branch graph of each dendrite, in µm of the whole volume."""
    trees = {}
    for number, tight in boxes(dendrites).items():
        tick()
        box = grow(tight, (1, 1, 1), dendrites.shape)
        mask = dendrites[box] == number
        radius_um = inside_distance_um(mask, spacing)[mask]
        voxels = np.argwhere(mask) + [part.start for part in box]
        trees[number] = grow_tree(
            voxels, radius_um, (1, 1, 1), _thinned(voxels), spacing, roots.get(number)
        )
    return trees


def _thinned(voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `SAMPLED_VOXELS` of them."""
    if len(voxels) <= SAMPLED_VOXELS:
        return voxels
    rows = np.random.default_rng(0).choice(len(voxels), SAMPLED_VOXELS, replace=False)
    return np.asarray(voxels[rows])


def soma_samples(somas: Labels, spacing: VoxelSpacing) -> dict[int, Soma]:
    """Each soma as a ball of its volume around its centroid."""
    voxels = Voxels.of(somas)
    samples = {}
    for number, rows in voxels.groups():
        z, y, x = (float(c) for c in spacing.points_um(voxels.index_zyx[rows]).mean(axis=0))
        volume_um3 = (rows.stop - rows.start) * spacing.voxel_volume_um3
        samples[number] = Soma((z, y, x), ball_radius_um(volume_um3))
    return samples


def drawn(
    trees: dict[int, Tree], spacing: VoxelSpacing, shape_zyx: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Voxels that the centerlines pass, shape (n, 3), and the dendrite of each."""
    index, ids = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.uint32)]
    for number, one in trees.items():
        above = one.points_um[np.maximum(one.parents, 0)]
        longest = np.linalg.norm(one.points_um - above, axis=1).max(initial=0)
        steps = np.linspace(0, 1, int(np.ceil(2 * longest / min(spacing.zyx))) + 2)
        dots = one.points_um[:, None] + steps[None, :, None] * (above - one.points_um)[:, None]
        voxels = np.rint(dots.reshape(-1, 3) / spacing.zyx).astype(np.int64)
        voxels = np.unique(np.clip(voxels, 0, np.subtract(shape_zyx, 1)), axis=0)
        index.append(voxels)
        ids.append(np.full(len(voxels), number, np.uint32))
    return np.concatenate(index), np.concatenate(ids)

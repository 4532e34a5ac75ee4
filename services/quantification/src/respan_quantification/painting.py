"""Label images of spines and centerlines, from the voxels that blocks found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, shape_of
from respan_quantification.block_spines import HEAD, INFERRED_NECK
from respan_quantification.objects import Labels
from respan_quantification.tree import Tree


@dataclass(frozen=True)
class SpineVoxels:
    """Voxels of spines: raster number in the whole image, final id, what it is.

    `gap_um` is what lies between its spine and the dendrite.
    """

    linear: NDArray[np.int64]
    ids: NDArray[np.uint32]
    part: NDArray[np.uint8]
    gap_um: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Iterable[SpineVoxels]) -> SpineVoxels:
        """Voxels of several blocks."""
        found = list(parts)
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(one.linear for one in found)]),
            np.concatenate([np.zeros(0, np.uint32), *(one.ids for one in found)]),
            np.concatenate([np.zeros(0, np.uint8), *(one.part for one in found)]),
            np.concatenate([np.zeros(0), *(one.gap_um for one in found)]),
        )

    def inside(self, box: Box, shape_zyx: Zyx) -> tuple[NDArray[np.int64], SpineVoxels]:
        """Those in a box, and their indices from its first voxel, shape (n, 3)."""
        index = np.stack(np.unravel_index(self.linear, shape_zyx), axis=1)
        low, high = [part.start for part in box], [part.stop for part in box]
        rows = np.all((index >= low) & (index < high), axis=1)
        kept = SpineVoxels(self.linear[rows], self.ids[rows], self.part[rows], self.gap_um[rows])
        return index[rows] - low, kept


def spine_labels(voxels: SpineVoxels, box: Box, shape_zyx: Zyx) -> dict[str, Labels]:
    """Label images "spines", "heads" and "necks" of one box.

    A voxel that several claim is theirs who were seen there; of inferred necks the shorter has it,
    then that of the smaller id.
    """
    index, kept = voxels.inside(box, shape_zyx)
    order = np.lexsort((kept.ids, kept.gap_um, kept.part == INFERRED_NECK, kept.linear))
    first = np.append(True, np.diff(kept.linear[order]) > 0) if len(order) else order
    winners = order[first]
    in_head = kept.part[winners] == HEAD
    labels = {}
    for name, rows in (
        ("spines", winners),
        ("heads", winners[in_head]),
        ("necks", winners[~in_head]),
    ):
        labels[name] = np.zeros(shape_of(box), np.uint32)
        labels[name][tuple(index[rows].T)] = kept.ids[rows]
    return labels


def skeleton_labels(
    drawn: Iterable[tuple[int, NDArray[np.int64]]], box: Box, shape_zyx: Zyx
) -> Labels:
    """Label image of centerlines in one box, from each dendrite's id and raster numbers."""
    labels = np.zeros(shape_of(box), np.uint32)
    low, high = [part.start for part in box], [part.stop for part in box]
    for number, linear in drawn:
        index = np.stack(np.unravel_index(linear, shape_zyx), axis=1)
        index = index[np.all((index >= low) & (index < high), axis=1)] - low
        labels[tuple(index.T)] = number
    return labels


def centerline_voxels(tree: Tree, spacing: VoxelSpacing, shape_zyx: Zyx) -> NDArray[np.int64]:
    """Raster numbers of the voxels that a tree passes, each once."""
    above = tree.points_um[np.maximum(tree.parents, 0)]
    longest_um = np.linalg.norm(tree.points_um - above, axis=1).max(initial=0)
    steps = np.linspace(0, 1, int(np.ceil(2 * longest_um / min(spacing.zyx))) + 2)
    dots = tree.points_um[:, None] + steps[None, :, None] * (above - tree.points_um)[:, None]
    index = np.rint(dots.reshape(-1, 3) / spacing.zyx).astype(np.int64)
    index = np.clip(index, 0, np.subtract(shape_zyx, 1))
    return np.unique(np.ravel_multi_index(tuple(index.T), shape_zyx))

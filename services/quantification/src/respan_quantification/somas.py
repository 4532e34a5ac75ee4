"""Somas of an image from blocks: their surfaces, and a ball that stands for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, grow
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Runs, boundary, box_of
from respan_quantification.swc import Soma, ball_radius_um

Ids = NDArray[np.uint32]


@dataclass(frozen=True)
class SomaSurface:
    """Voxels of somas with a face neighbor outside theirs: `index_zyx` in the whole image."""

    index_zyx: NDArray[np.int32]
    ids: Ids

    @classmethod
    def joined(cls, parts: Sequence[SomaSurface]) -> SomaSurface:
        """Those of all blocks, in raster order, whatever the order of blocks."""
        index = np.concatenate([np.zeros((0, 3), np.int32), *(part.index_zyx for part in parts)])
        ids = np.concatenate([np.zeros(0, np.uint32), *(part.ids for part in parts)])
        order = np.lexsort(tuple(index.T[::-1]))
        return cls(index[order], ids[order])

    def named(self, ids: Ids) -> SomaSurface:
        """The same with other ids; voxels of id 0 are no soma's."""
        return SomaSurface(self.index_zyx[ids > 0], ids[ids > 0])


@dataclass(frozen=True)
class SomaMoments:
    """Of each soma in a block: how many voxels, and the sum of their indices, shape (n, 3).

    Indices count from the whole image's first voxel. Whole numbers add up to the same in any order.
    """

    ids: Ids
    voxels: NDArray[np.int64]
    index_sums: NDArray[np.int64]


def soma_surface(somas: Labels, frame: Frame) -> SomaSurface:
    """Surface voxels that a block owns; the image's faces are no surface.

    Parameters
    ----------
    somas : uint32 array, shape (z, y, x)
        Over `frame.outer`, which reaches at least one voxel beyond the owned ones.
    """
    if not somas.any():
        return SomaSurface(np.zeros((0, 3), np.int32), np.zeros(0, np.uint32))
    box = grow(box_of(somas > 0), (1, 1, 1), somas.shape)
    index = np.argwhere(boundary(somas[box])) + [part.start for part in box]
    index = index[frame.owns(index)]
    ids = np.asarray(somas[tuple(index.T)], np.uint32)
    return SomaSurface((index + frame.corner).astype(np.int32), ids)


def soma_moments(somas: Labels, frame: Frame) -> SomaMoments:
    """Moments of the voxels that a block owns.

    Parameters
    ----------
    somas : uint32 array, shape (z, y, x)
        Over `frame.inner`.
    """
    runs = Runs.of(somas > 0)
    ids, which = np.unique(somas[tuple(runs.index_zyx.T)], return_inverse=True)
    index = runs.index_zyx + [part.start for part in frame.inner]
    sums = index * runs.lengths[:, None]
    sums[:, 2] += runs.lengths * (runs.lengths - 1) // 2
    return SomaMoments(ids, *_added(which, len(ids), runs.lengths, sums))


def soma_balls(parts: Sequence[SomaMoments], spacing: VoxelSpacing) -> dict[int, Soma]:
    """Each soma as a ball of its volume around its centroid, from the moments of all blocks."""
    every = np.concatenate([np.zeros(0, np.uint32), *(part.ids for part in parts)])
    ids, which = np.unique(every, return_inverse=True)
    voxels, sums = _added(
        which,
        len(ids),
        np.concatenate([np.zeros(0, np.int64), *(part.voxels for part in parts)]),
        np.concatenate([np.zeros((0, 3), np.int64), *(part.index_sums for part in parts)]),
    )
    centers_um = spacing.points_um(sums / voxels[:, None])
    radii_um = [ball_radius_um(count * spacing.voxel_volume_um3) for count in voxels]
    return {
        int(number): Soma((float(z), float(y), float(x)), radius_um)
        for number, (z, y, x), radius_um in zip(ids, centers_um, radii_um, strict=True)
    }


def _added(
    which: NDArray[np.integer], count: int, voxels: NDArray[np.int64], sums: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of rows that belong to the same of `count` entries."""
    total, moments = np.zeros(count, np.int64), np.zeros((count, 3), np.int64)
    np.add.at(total, which, voxels)
    np.add.at(moments, which, sums)
    return total, moments

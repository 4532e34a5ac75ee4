"""Objects in masks: components, their volumes, boxes and voxels. Ids are uint32, 1..N."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fastremap
import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing
from respan_quantification.arrays import components26

Labels = NDArray[np.uint32]


def components(mask: NDArray[np.bool_]) -> Labels:
    """26-connected components, numbered 1..N.

    Voxels that share only an edge or a corner belong together: a thin oblique dendrite in a
    stack with coarse z steps has no other contact from one slice to the next.
    """
    return components26(mask)


@dataclass(frozen=True)
class Runs:
    """Stretches of objects along x, in raster order: few numbers for many voxels.

    `index_zyx`, shape (n, 3), is the first voxel of each; `lengths` says how many voxels follow
    one another from there, itself included.
    """

    index_zyx: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, objects: NDArray[np.bool_] | Labels) -> Runs:
        """Find the runs of a mask or of labels, shape (z, y, x); a run has one label."""
        first = objects != 0
        last = first.copy()
        changes = objects[..., 1:] != objects[..., :-1]
        first[..., 1:] &= changes
        last[..., :-1] &= changes
        starts, stops = np.flatnonzero(first), np.flatnonzero(last)
        index = np.stack(np.unravel_index(starts, objects.shape), axis=1)
        return cls(index.astype(np.int64), (stops - starts + 1).astype(np.int64))

    @property
    def stops_zyx(self) -> NDArray[np.int64]:
        """One voxel beyond each run along every axis: the far corner of its half-open box."""
        return self.index_zyx + np.stack(
            [np.ones_like(self.lengths), np.ones_like(self.lengths), self.lengths], axis=1
        )


def voxel_counts(labels: Labels) -> NDArray[np.int64]:
    """Voxels of each id; entry 0 is the background."""
    ids, counts = fastremap.unique(labels, return_counts=True)
    table = np.zeros(int(ids[-1]) + 1 if len(ids) else 1, dtype=np.int64)
    table[ids] = counts
    return table


def volumes_um3(labels: Labels, spacing: VoxelSpacing) -> NDArray[np.float64]:
    """Volume of each id in µm³; entry 0 is 0."""
    volumes = np.asarray(voxel_counts(labels) * spacing.voxel_volume_um3, dtype=np.float64)
    volumes[0] = 0.0
    return volumes


def keep(labels: Labels, kept: NDArray[np.bool_]) -> Labels:
    """Only the ids whose entry in `kept` is true, renumbered 1..N in their old order.

    Parameters
    ----------
    kept : bool array, shape (largest id + 1,)
        Entry 0 (background) is ignored.
    """
    table = np.zeros(len(kept), dtype=np.uint32)
    survivors = np.flatnonzero(kept[1:]) + 1
    table[survivors] = np.arange(1, len(survivors) + 1, dtype=np.uint32)
    return np.asarray(table[labels])


def boxes(labels: Labels) -> dict[int, Box]:
    """Tight box of each id that occurs; ids may be far larger than the array."""
    runs = Runs.of(labels)
    ids, which = np.unique(labels[tuple(runs.index_zyx.T)], return_inverse=True)
    low = np.full((len(ids), 3), np.iinfo(np.int64).max)
    high = np.zeros((len(ids), 3), np.int64)
    np.minimum.at(low, which, runs.index_zyx)
    np.maximum.at(high, which, runs.stops_zyx)
    return {
        int(number): _box(*corners)
        for number, *corners in zip(ids, low.tolist(), high.tolist(), strict=True)
    }


def _box(low: Sequence[int], high: Sequence[int]) -> Box:
    z, y, x = (slice(start, stop) for start, stop in zip(low, high, strict=True))
    return (z, y, x)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Tight box of a mask that is not empty."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(side[0]), int(side[-1]) + 1) for side in sides)
    return (z, y, x)


def touches_faces(box: Box, shape_zyx: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a box reaches the array's first or last voxel along one of these axes."""
    return any(box[a].start == 0 or box[a].stop == shape_zyx[a] for a in axes)


def boundary(labels: Labels) -> NDArray[np.bool_]:
    """Voxels of objects with a face neighbor outside theirs; the array's faces do not count."""
    inner = labels > 0
    filled = inner.copy()
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        same = labels[tuple(ahead)] == labels[tuple(behind)]
        inner[tuple(ahead)] &= same
        inner[tuple(behind)] &= same
    return np.asarray(filled & ~inner)


@dataclass(frozen=True)
class Voxels:
    """Voxels of many objects, sorted by id, so that per-object work needs no volume.

    `index_zyx` has shape (n, 3), `ids` shape (n,) and rises; `starts` is the first row of each
    of `present`, the ids that occur.
    """

    index_zyx: NDArray[np.int32]
    ids: NDArray[np.uint32]
    present: NDArray[np.uint32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels) -> Voxels:
        """Gather the voxels of all objects."""
        inside = labels > 0
        ids = labels[inside]
        order = np.argsort(ids, kind="stable")
        ids, linear = ids[order], np.flatnonzero(inside)[order]
        index = np.stack(np.unravel_index(linear, labels.shape), axis=1).astype(np.int32)
        present, starts = np.unique(ids, return_index=True)
        return cls(index, ids, present, starts.astype(np.int64))

    def part(self, chosen: NDArray[np.bool_]) -> Voxels:
        """Only the chosen voxels, one flag per voxel."""
        ids = self.ids[chosen]
        present, starts = np.unique(ids, return_index=True)
        return Voxels(self.index_zyx[chosen], ids, present, starts.astype(np.int64))

    def column(self, values: NDArray[np.floating], count: int) -> NDArray[np.float64]:
        """Values of the present objects as a column for objects 1..count; the others are NaN."""
        column = np.full(count, np.nan)
        column[self.present.astype(np.int64) - 1] = values
        return column

    def groups(self) -> Iterator[tuple[int, slice]]:
        """Each id with the rows that belong to it."""
        stops = self.starts + self.counts
        for number, start, stop in zip(self.present, self.starts, stops, strict=True):
            yield int(number), slice(int(start), int(stop))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Voxels of each present object."""
        return np.diff(np.append(self.starts, len(self.ids)))[: len(self.present)]

    def minimum(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Smallest value of each present object; `values` has one entry per voxel."""
        return self._reduce(np.minimum, values)

    def maximum(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Largest value of each present object."""
        return self._reduce(np.maximum, values)

    def total(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Sum over each present object, in double precision."""
        return self._reduce(np.add, values.astype(np.float64))

    def _reduce(self, ufunc: np.ufunc, values: NDArray[np.floating]) -> NDArray[np.floating]:
        if not len(self.present):
            return np.zeros(0)
        return np.asarray(ufunc.reduceat(values, self.starts))

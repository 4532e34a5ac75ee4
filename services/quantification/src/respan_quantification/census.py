"""Components of an image that is seen block by block, exactly as if it had been seen whole.

Plan: any two voxels that touch lie in a cube of 2 x 2 x 2 voxels. The block that owns the cube's
first voxel sees the whole cube when it looks one voxel beyond its far sides. So every block finds
the components of what it sees, and notes them on the planes that two blocks see: its own first
planes and those beyond its far sides. Two components that hold the same voxel there are one
object. Tables are enough to join them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from respan_common.geometry import Box, Zyx, relative, shape_of
from respan_quantification.brightness import finite
from respan_quantification.classes import Mask
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Runs, components

Table = NDArray[np.int64]
Sums = NDArray[np.float64]

_NOWHERE = np.iinfo(np.int64).max
"""Anchor of a local component that has no voxel of the block's own."""


@dataclass(frozen=True)
class Survey:
    """The components that one block sees, in rows 1..n; row 0 of each table is unused.

    `rows` says which row each component has, in the order in which `paint` finds them; 0 for
    those that are known to be too small. `voxels` counts the voxels that the block owns, `anchors`
    is the raster number of the first of them, `low` and `high`, shape (n + 1, 3), are their
    half-open box; all in the whole image. A component without voxels of the block's own has 0
    voxels and an empty box. `light` is the sum of its own voxels' grey values. `shared_linear` and
    `shared_rows` list the components' voxels on planes that other blocks see as well.
    """

    rows: NDArray[np.uint32]
    voxels: Table
    light: Sums
    anchors: Table
    low: Table
    high: Table
    shared_linear: Table
    shared_rows: NDArray[np.uint32]


@dataclass(frozen=True)
class Census:
    """All objects of an image, numbered 1..N by their first voxel in raster order.

    Entry 0 of `voxels`, `light` (sum of grey values), `anchors` (raster number of the first voxel),
    `low` and `high` (half-open box, shape (N + 1, 3)) is unused. `ids` has one lookup per survey,
    in their order: the object of each local component, 0 for those that were dropped.
    """

    ids: tuple[NDArray[np.uint32], ...]
    voxels: Table
    light: Sums
    anchors: Table
    low: Table
    high: Table

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.voxels) - 1

    def box(self, number: int) -> Box:
        """Tight box of an object, in voxels of the whole image."""
        z, y, x = (
            slice(int(low), int(high))
            for low, high in zip(self.low[number], self.high[number], strict=True)
        )
        return (z, y, x)

    def only(self, kept: Mask) -> Census:
        """The objects that stay, numbered without gaps; entry 0 of `kept` does not matter."""
        stays = np.flatnonzero(kept[1:]) + 1
        numbers = np.zeros(self.count + 1, dtype=np.uint32)
        numbers[stays] = np.arange(1, len(stays) + 1, dtype=np.uint32)
        tables = (self.voxels, self.light, self.anchors, self.low, self.high)
        ids = tuple(numbers[lookup] for lookup in self.ids)
        return Census(ids, *(_headed(table[stays]) for table in tables))


def survey_box(inner: Box, shape_zyx: Zyx) -> Box:
    """What a block must see to survey `inner`: one voxel more at the far side of each axis."""
    z, y, x = (
        slice(part.start, min(part.stop + 1, size))
        for part, size in zip(inner, shape_zyx, strict=True)
    )
    return (z, y, x)


def survey(
    mask: Mask,
    frame: Frame,
    min_voxels: float = 0,
    grey: NDArray[np.generic] | None = None,
) -> Survey:
    """Components of one block.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
        Covers `survey_box(frame.inner, frame.shape_zyx)`; `frame.outer` does not matter.
    min_voxels
        What `merge` is going to demand. Smaller components that no other block can see are left
        out at once, so that a field of specks needs no memory.
    grey
        Grey values of the voxels that the block owns; without them there is no light.
    """
    box, owned = _boxes(mask, frame)
    if not mask.any():
        return _nothing()
    labels = components(mask)
    count = int(labels.max())
    corner = np.array([part.start for part in box], dtype=np.int64)
    runs = Runs.of(mask[owned])
    ids = labels[tuple(runs.index_zyx.T)].astype(np.int64)
    voxels = np.bincount(ids, weights=runs.lengths, minlength=count + 1).astype(np.int64)
    light = np.zeros(count + 1)
    if grey is not None:
        inside = mask[owned]
        np.add.at(light, labels[owned][inside], finite(grey[inside]))
    low, high = _tight(ids, runs.index_zyx + corner, runs.stops_zyx + corner, count)
    anchors = np.full(count + 1, _NOWHERE)
    # The last value written stays, so the first run of each component is written last.
    anchors[ids[::-1]] = _linear(runs.index_zyx[::-1] + corner, frame.shape_zyx)
    shared_linear, shared_ids = _shared(labels, box, frame)
    kept = voxels >= max(min_voxels, 1)
    kept[shared_ids] = True
    kept[0] = False
    rows = np.zeros(count + 1, dtype=np.uint32)
    rows[kept] = np.arange(1, np.count_nonzero(kept) + 1, dtype=np.uint32)
    return Survey(
        rows=rows,
        voxels=_headed(voxels[kept]),
        light=_headed(light[kept]),
        anchors=_headed(anchors[kept]),
        low=_headed(low[kept]),
        high=_headed(high[kept]),
        shared_linear=shared_linear,
        shared_rows=rows[shared_ids],
    )


def merge(surveys: Sequence[Survey], min_voxels: float = 0) -> Census:
    """Join the surveys of blocks that tile an image, as `respan_common.blocks.grid` does.

    Parameters
    ----------
    min_voxels
        Objects with fewer voxels are dropped; the others are numbered without gaps.
    """
    starts = np.cumsum([0, *(len(one.voxels) - 1 for one in surveys)])
    groups, count = _joined(surveys, starts)
    voxels, anchors = np.zeros(count, np.int64), np.full(count, _NOWHERE)
    np.add.at(voxels, groups, _stacked([one.voxels[1:] for one in surveys]))
    light = np.zeros(count)
    np.add.at(light, groups, np.concatenate([np.zeros(0), *(one.light[1:] for one in surveys)]))
    np.minimum.at(anchors, groups, _stacked([one.anchors[1:] for one in surveys]))
    low, high = _tight(
        groups,
        _stacked([one.low[1:] for one in surveys], 3),
        _stacked([one.high[1:] for one in surveys], 3),
        count - 1,
    )
    order = np.argsort(anchors, kind="stable")
    numbers = np.zeros(count, dtype=np.uint32)
    numbers[order] = np.arange(1, count + 1, dtype=np.uint32)
    ids = tuple(
        np.append(np.uint32(0), numbers[groups[start:stop]])[one.rows]
        for one, (start, stop) in zip(surveys, itertools.pairwise(starts), strict=True)
    )
    tables = (voxels, light, anchors, low, high)
    every = Census(ids, *(_headed(table[order]) for table in tables))
    return every.only(every.voxels >= max(min_voxels, 1))


def paint(mask: Mask, frame: Frame, lookup: NDArray[np.uint32]) -> Labels:
    """Objects of the voxels that a block owns.

    Parameters
    ----------
    mask
        As it was surveyed.
    lookup : uint32 array
        The block's entry of `Census.ids`.
    """
    _, owned = _boxes(mask, frame)
    painted = np.zeros(shape_of(frame.inner), dtype=np.uint32)
    inside = mask[owned]
    if inside.any():
        painted[inside] = lookup[components(mask)[owned][inside]]
    return painted


def dropped(mask: Mask, lookup: NDArray[np.uint32]) -> Mask:
    """Voxels of the components that `merge` dropped; mask and lookup as in `paint`.

    Unlike `paint` it says so of the whole surveyed box, so that they can be surveyed with others.
    """
    if not mask.any():
        return mask
    return np.asarray(mask & (lookup[components(mask)] == 0))


def _boxes(mask: Mask, frame: Frame) -> tuple[Box, Box]:
    """What a surveyed mask covers in the whole image, and the owned voxels in the mask."""
    box = survey_box(frame.inner, frame.shape_zyx)
    assert mask.shape == shape_of(box), f"a mask of {shape_of(box)} voxels is surveyed"
    return box, relative(frame.inner, box)


def _nothing() -> Survey:
    one, three = np.zeros(1, np.int64), np.zeros((1, 3), np.int64)
    rows = np.zeros(1, np.uint32)
    return Survey(rows, one, np.zeros(1), one, three, three, np.zeros(0, np.int64), rows[:0])


def _tight(ids: Table, low: Table, high: Table, last: int) -> tuple[Table, Table]:
    """Boxes of ids 0..last around boxes that belong to `ids`."""
    lowest, highest = np.full((last + 1, 3), _NOWHERE), np.zeros((last + 1, 3), np.int64)
    np.minimum.at(lowest, ids, low)
    np.maximum.at(highest, ids, high)
    return lowest, highest


def _linear(index_zyx: Table, shape_zyx: Zyx) -> Table:
    return np.asarray(np.ravel_multi_index(tuple(index_zyx.T), shape_zyx), np.int64)


def _shared(labels: Labels, box: Box, frame: Frame) -> tuple[Table, NDArray[np.uint32]]:
    """Raster numbers and components of the voxels on planes that other blocks see as well."""
    linear, ids = [], []
    for axis, (part, inner) in enumerate(zip(box, frame.inner, strict=True)):
        places = [0] if part.start > 0 else []
        places += [part.stop - part.start - 1] if part.stop > inner.stop else []
        for place in places:
            plane = np.take(labels, place, axis=axis)
            index = np.insert(np.argwhere(plane), axis, place, axis=1)
            ids.append(plane[plane > 0])
            linear.append(_linear(index + [side.start for side in box], frame.shape_zyx))
    if not ids:
        return np.zeros(0, np.int64), np.zeros(0, np.uint32)
    return np.concatenate(linear), np.concatenate(ids)


def _joined(surveys: Sequence[Survey], starts: Table) -> tuple[Table, int]:
    """Group of each row of all surveys, one after the other, and how many groups there are."""
    nodes = _stacked(
        [
            one.shared_rows.astype(np.int64) - 1 + start
            for one, start in zip(surveys, starts, strict=False)
        ]
    )
    linear = _stacked([one.shared_linear for one in surveys])
    order = np.argsort(linear, kind="stable")
    nodes, linear = nodes[order], linear[order]
    same = np.flatnonzero(linear[1:] == linear[:-1])
    total = int(starts[-1])
    pairs = coo_array((np.ones(len(same), np.int8), (nodes[same], nodes[same + 1])), (total, total))
    count, groups = connected_components(pairs, directed=False)
    return groups.astype(np.int64), int(count)


def _stacked(tables: Sequence[Table], columns: int = 0) -> Table:
    """All tables in one, also where there is none."""
    empty = np.zeros((0, columns) if columns else 0, np.int64)
    return np.concatenate([empty, *tables])


def _headed(table: NDArray[Any]) -> NDArray[Any]:
    """The same table with an unused entry 0."""
    return np.concatenate([np.zeros_like(table, shape=(1, *table.shape[1:])), table])

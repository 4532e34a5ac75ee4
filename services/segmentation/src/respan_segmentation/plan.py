"""Cut an image into columns, which are swept one by one, and those into rows of whole shards.

All boxes are (z, y, x). Windows at a column's sides are predicted for both neighbors, so few, wide
columns are cheap; what a sweep keeps grows with a column's cross section, so memory bounds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from respan_common.geometry import Box, Zyx


@dataclass(frozen=True)
class Row:
    """Shards that a sweep finishes together.

    Attributes
    ----------
    column : int
    number : int
        Place in its column.
    shards : tuple of Box
    """

    column: int
    number: int
    box: Box
    shards: tuple[Box, ...]


def rows(region: Box, shard_zyx: Zyx, axis: int, cross: Zyx) -> list[list[Row]]:
    """Columns of rows that cover a region exactly once.

    Parameters
    ----------
    region
        Whole shards, or up to the image's end.
    axis
        The axis along which columns are swept.
    cross
        Voxels of a column across that axis, whole shards; along it the value does not matter.
    """
    sides = [
        _cut(part, part.stop - part.start if own == axis else size)
        for own, (part, size) in enumerate(zip(region, cross, strict=True))
    ]
    columns = []
    for number, (z, y, x) in enumerate(itertools.product(*sides)):
        column: list[Box] = [(z, y, x)]
        along = _cut(column[0][axis], shard_zyx[axis])
        boxes = [_with(column[0], axis, part) for part in along]
        columns.append(
            [Row(number, at, box, _shards(box, shard_zyx)) for at, box in enumerate(boxes)]
        )
    return columns


def halves(box: Box, shard_zyx: Zyx, axis: int) -> tuple[Box, Box] | None:
    """A box cut at a shard's border, across its widest side that is not along `axis`."""
    counts = [
        0 if own == axis else -(-(part.stop - part.start) // edge)
        for own, (part, edge) in enumerate(zip(box, shard_zyx, strict=True))
    ]
    widest = max(range(3), key=counts.__getitem__)
    if counts[widest] < 2:
        return None
    part = box[widest]
    middle = part.start + counts[widest] // 2 * shard_zyx[widest]
    return (
        _with(box, widest, slice(part.start, middle)),
        _with(box, widest, slice(middle, part.stop)),
    )


def widest_column(
    shape: Zyx, shard_zyx: Zyx, axis: int, cost: Callable[[Zyx], tuple[int, int]], most_bytes: int
) -> Zyx:
    """Cross section that needs few windows in all and fits a memory budget.

    Starting from one shard, the side whose doubling saves most windows is doubled, for as long as
    the column fits.

    Parameters
    ----------
    cost
        Number of windows for the whole image and bytes of memory, for columns of a given shape.
    """
    z, y, x = (shape[own] if own == axis else edge for own, edge in enumerate(shard_zyx))
    column = (z, y, x)
    windows, _ = cost(column)
    while True:
        costs = [(cost(larger), larger) for larger in _doubled(column, shape)]
        fitting = [(count, larger) for (count, size), larger in costs if size <= most_bytes]
        if not fitting or min(fitting)[0] >= windows:
            return column
        windows, column = min(fitting)


def tokens(name: str, row: Row) -> list[str]:
    """Names of a row's shards in a step; by place, since another machine may cut other rows."""
    return [
        f"{name} " + " ".join(f"{part.start}-{part.stop}" for part in shard) for shard in row.shards
    ]


def undone(name: str, columns: list[list[Row]], done: set[str]) -> list[list[Row]]:
    """Rows whose tokens are not all done, in runs that follow one another."""
    runs: list[list[Row]] = []
    for column in columns:
        runs.append([])
        for row in column:
            if done.issuperset(tokens(name, row)):
                runs.append([])
            else:
                runs[-1].append(row)
    return [run for run in runs if run]


def starts(runs: list[list[Row]]) -> Iterator[Row]:
    """Rows where a sweep may begin, the best first.

    The first row of the longest run, as every other start predicts some windows twice; where
    somebody sweeps there already, its middle, so that two sweeps share it evenly.
    """
    runs = sorted(runs, key=len, reverse=True)
    yield from (run[0] for run in runs)
    yield from (run[len(run) // 2] for run in runs)
    yield from (row for run in runs for row in run)


def _doubled(column: Zyx, shape: Zyx) -> list[Zyx]:
    """The column doubled along each side that does not yet cover the image."""
    z, y, x = column
    doubled = [(2 * z, y, x), (z, 2 * y, x), (z, y, 2 * x)]
    return [larger for own, larger in enumerate(doubled) if column[own] < shape[own]]


def _cut(part: slice, size: int) -> list[slice]:
    starts = range(part.start, part.stop, max(size, 1))
    return [slice(start, min(start + size, part.stop)) for start in starts]


def _with(box: Box, axis: int, part: slice) -> Box:
    z, y, x = (part if own == axis else other for own, other in enumerate(box))
    return (z, y, x)


def _shards(box: Box, shard_zyx: Sequence[int]) -> tuple[Box, ...]:
    sides = [_cut(part, edge) for part, edge in zip(box, shard_zyx, strict=True)]
    return tuple((z, y, x) for z, y, x in itertools.product(*sides))

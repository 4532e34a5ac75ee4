"""Add up the scores of overlapping windows in one pass over a box, in little memory.

Windows are taken in raster order: row by row along one axis, panel by panel along the second, all
windows along the third at once. A voxel's sum is final when the windows that follow
begin behind it. So all that must be kept is the present panel, as large as a window, and what the
present row shares with the next: a quarter of a window's depth for steps of 0.75.

Letters: K scores per voxel, and as a last channel the sum of the windows' weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx, intersection, relative, shape_of
from respan_segmentation.tiles import Tiling, importance_map

Scored = Iterable[tuple[Box, torch.Tensor]]
"""Windows with their scores, float32, shape (K, *patch)."""


@dataclass(frozen=True)
class Order:
    """Roles of the three axes, each a number 0, 1 or 2."""

    row: int
    """A new row of windows starts along this axis."""
    panel: int
    """Panels of a row follow one another along this axis."""
    deep: int
    """A panel reaches through the whole box along this axis, the shorter of the other two."""

    def box(self, row: slice, panel: slice, deep: slice) -> Box:
        """Box with these parts of the three axes."""
        parts = {self.row: row, self.panel: panel, self.deep: deep}
        return (parts[0], parts[1], parts[2])


def orders(shape: Zyx) -> list[Order]:
    """One order for each axis that may be the row axis; that of the longest axis first."""
    found = []
    for row in sorted(range(3), key=lambda axis: -shape[axis]):
        panel, deep = sorted({0, 1, 2} - {row}, key=lambda axis: -shape[axis])
        found.append(Order(row, panel, deep))
    return found


@dataclass(frozen=True)
class Panel:
    """Windows at one place of the row and panel axes."""

    row: int
    """Number of its row in the sweep."""
    number: int
    """Number of the panel in its row."""
    windows: tuple[Box, ...]
    """All windows along the deep axis, in order."""


@dataclass(frozen=True)
class Strip:
    """Voxels whose sums are final, in the tiling's volume.

    Attributes
    ----------
    sums : float32, shape (K + 1, *shape of `box`), or None where no window was predicted
    """

    box: Box
    sums: torch.Tensor | None


@dataclass
class _Kept:
    """Sums that later windows will add to, and along the panel axis whether there are any."""

    sums: torch.Tensor
    start: int
    """Where they begin along the row axis."""
    filled: NDArray[np.bool_]


class Sweep:
    """One pass over a box.

    Parameters
    ----------
    tiling
        Windows over the whole volume.
    target
        Voxels to predict; all windows that touch it are taken.
    """

    def __init__(self, tiling: Tiling, target: Box, order: Order) -> None:
        self.tiling, self.target, self.order = tiling, target, order
        axes = tiling.touching_axes(target)
        self._rows, self._panels, self._deep = (
            axes[axis] for axis in (order.row, order.panel, order.deep)
        )

    def panels(self) -> Iterator[Panel]:
        """All panels, in the order in which `strips` asks for them."""
        for row, along_row in enumerate(self._rows):
            for number, along_panel in enumerate(self._panels):
                windows = (self.order.box(along_row, along_panel, deep) for deep in self._deep)
                yield Panel(row, number, tuple(windows))

    def strips(
        self, score: Callable[[Panel], Scored], scores: int, device: torch.device
    ) -> Iterator[Strip]:
        """Cover the target with strips, in raster order of rows and panels.

        A strip's sums are its own only until the next one is asked for.

        Parameters
        ----------
        score
            Predicts a panel's windows. It may leave windows out: they weigh nothing.
        scores
            Number K of scores per voxel.
        """
        self._weight = torch.from_numpy(importance_map(self.tiling.patch)).to(device)
        self._memory: torch.Tensor | None = None
        kept = self._nothing_kept(scores, device)
        panels = self.panels()
        for row in range(len(self._rows)):
            part, final = self._shares(self._rows, row, self.order.row)
            tail: torch.Tensor | None = None
            for number in range(len(self._panels)):
                scored = score(next(panels))
                along, done = self._shares(self._panels, number, self.order.panel)
                box = self.order.box(part, along, self.target[self.order.deep])
                sums = self._summed(box, tail, kept, scored)
                into = slice(along.start, done)
                strip = self.order.box(slice(part.start, final), into, box[self.order.deep])
                if _is_filled(strip):
                    yield Strip(strip, None if sums is None else _part(sums, strip, box))
                tail = self._tail(sums, box, done)
                self._keep(kept, sums, box, into, final)
            kept.start = final

    def _shares(self, windows: Sequence[slice], number: int, axis: int) -> tuple[slice, int]:
        """A window's part of the target along an axis, and up to where it is the last to add."""
        own, whole = windows[number], self.target[axis]
        part = slice(max(own.start, whole.start), min(own.stop, whole.stop))
        if number + 1 == len(windows):
            return part, part.stop
        return part, min(max(windows[number + 1].start, part.start), part.stop)

    def _nothing_kept(self, scores: int, device: torch.device) -> _Kept:
        shares = [self._shares(self._rows, row, self.order.row) for row in range(len(self._rows))]
        depth = max(part.stop - final for part, final in shares)
        _, along, deep = (self.target[axis] for axis in _axes(self.order))
        shape = shape_of(self.order.box(slice(0, depth), along, deep))
        filled = np.zeros(along.stop - along.start, dtype=bool)
        sums = torch.zeros((scores + 1, *shape), dtype=torch.float32, device=device)
        return _Kept(sums, shares[0][0].start, filled)

    def _summed(
        self, box: Box, tail: torch.Tensor | None, kept: _Kept, scored: Scored
    ) -> torch.Tensor | None:
        """Sums over a panel so far; None if nothing was added to it yet."""
        fresh = slice(box[self.order.panel].start, box[self.order.panel].stop)
        if tail is not None:
            fresh = slice(fresh.start + tail.shape[self.order.panel + 1], fresh.stop)
        carried = self._carried(kept, box, fresh)
        sums: torch.Tensor | None = None
        if tail is not None or carried is not None:
            sums = self._zeros(kept.sums, box)
        if tail is not None and sums is not None:
            sums.narrow(self.order.panel + 1, 0, tail.shape[self.order.panel + 1]).copy_(tail)
        if carried is not None and sums is not None:
            values, place = carried
            _part(sums, place, box).copy_(values)
        for window, own in scored:
            if sums is None:
                sums = self._zeros(kept.sums, box)
            into, part = _overlap(window, box)
            weight = self._weight[part]
            sums[(slice(0, -1), *into)].addcmul_(own[(slice(None), *part)], weight)
            sums[(-1, *into)].add_(weight)
        return sums

    def _zeros(self, like: torch.Tensor, box: Box) -> torch.Tensor:
        """Zeros for a panel, in the memory of the one before.

        Memory that is new costs more time than the sums: the system gives it page by page.
        """
        shape = (len(like), *shape_of(box))
        if self._memory is None or self._memory.numel() < math.prod(shape):
            self._memory = like.new_empty(math.prod(shape))
        return self._memory[: math.prod(shape)].view(shape).zero_()

    def _carried(self, kept: _Kept, box: Box, fresh: slice) -> tuple[torch.Tensor, Box] | None:
        """What the rows before left for a part of this one, and where it belongs."""
        offset = self.target[self.order.panel].start
        depth = self._depth_kept(kept, box)
        own = slice(fresh.start - offset, fresh.stop - offset)
        if depth <= 0 or not kept.filled[own].any():
            return None
        row = slice(box[self.order.row].start, box[self.order.row].start + depth)
        place = self.order.box(row, fresh, box[self.order.deep])
        source = self.order.box(slice(0, depth), own, _all(kept.sums, self.order.deep))
        return kept.sums[(slice(None), *source)], place

    def _depth_kept(self, kept: _Kept, box: Box) -> int:
        size = box[self.order.row].stop - box[self.order.row].start
        return int(min(kept.sums.shape[self.order.row + 1], size))

    def _tail(self, sums: torch.Tensor | None, box: Box, done: int) -> torch.Tensor | None:
        """What a panel shares with the next one of its row."""
        along = box[self.order.panel]
        if sums is None or done == along.stop:
            return None
        length = along.stop - done
        return sums.narrow(self.order.panel + 1, done - along.start, length).clone()

    def _keep(
        self, kept: _Kept, sums: torch.Tensor | None, box: Box, into: slice, final: int
    ) -> None:
        """Put aside what a panel's final part shares with the next row.

        What was kept there before has been taken already: panels reach at least as far.
        """
        offset = self.target[self.order.panel].start
        own = slice(into.start - offset, into.stop - offset)
        depth = kept.sums.shape[self.order.row + 1]
        place = self.order.box(slice(0, depth), own, _all(kept.sums, self.order.deep))
        target = kept.sums[(slice(None), *place)]
        target.zero_()
        shared = box[self.order.row].stop - final
        kept.filled[own] = sums is not None and shared > 0
        if sums is not None and shared > 0:
            strip = self.order.box(slice(final, final + shared), into, box[self.order.deep])
            target.narrow(self.order.row + 1, 0, shared).copy_(_part(sums, strip, box))


def _axes(order: Order) -> tuple[int, int, int]:
    return (order.row, order.panel, order.deep)


def _all(sums: torch.Tensor, axis: int) -> slice:
    return slice(0, sums.shape[axis + 1])


def _is_filled(box: Box) -> bool:
    return all(part.start < part.stop for part in box)


def _part(sums: torch.Tensor, inner: Box, outer: Box) -> torch.Tensor:
    """View of a box in sums over a larger one."""
    return sums[(slice(None), *relative(inner, outer))]


def _overlap(window: Box, box: Box) -> tuple[Box, Box]:
    """The shared voxels of two boxes, as seen from `box` and as seen from `window`."""
    shared = intersection(window, box)
    assert shared is not None
    return relative(shared, box), relative(shared, window)

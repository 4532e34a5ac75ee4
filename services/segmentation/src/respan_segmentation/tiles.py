"""Where a sliding window stops, how its stops are weighted, and how they add up over a box.

The stops are those that nnU-Net has for the whole volume. A block of the volume takes all stops
that touch it, so that a voxel's sum does not depend on how the volume was cut into blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx, relative, shape_of

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Patches, shape (n, 1, z, y, x), to logits, shape (n, classes, z, y, x)."""


@dataclass(frozen=True)
class Tiling:
    """All stops of a window over a volume. Volumes smaller than the window are padded with 0."""

    shape: Zyx
    """Voxels of the volume."""
    patch: Zyx
    """Voxels of the window."""
    step: float
    """Longest way between two stops, as a share of the window."""

    @cached_property
    def before(self) -> Zyx:
        """Voxels of padding before the volume; nnU-Net pads both sides, the far one more."""
        z, y, x = (
            max(window - size, 0) // 2 for size, window in zip(self.shape, self.patch, strict=True)
        )
        return (z, y, x)

    @cached_property
    def starts(self) -> tuple[list[int], list[int], list[int]]:
        """First voxel of every stop along each axis; negative where the volume is padded."""
        z, y, x = (
            [start - before for start in _starts(max(size, window), window, self.step)]
            for size, window, before in zip(self.shape, self.patch, self.before, strict=True)
        )
        return (z, y, x)

    def touching(self, box: Box) -> list[Box]:
        """Windows that share a voxel with a box, in raster order."""
        return [(z, y, x) for z, y, x in itertools.product(*self._touching_axes(box))]

    def count(self, box: Box) -> int:
        """Number of windows that share a voxel with a box."""
        return int(np.prod([len(parts) for parts in self._touching_axes(box)]))

    def reach(self, box: Box) -> Box:
        """Smallest box around all windows that share a voxel with a box."""
        z, y, x = (slice(parts[0].start, parts[-1].stop) for parts in self._touching_axes(box))
        return (z, y, x)

    def weights(self, box: Box) -> NDArray[np.float32]:
        """Sum of the weights of all windows at each voxel of a box.

        Windows form a lattice and weights are products over the axes, hence so is their sum.
        """
        sums = [
            _sum_of_weights(starts, window, part)
            for starts, window, part in zip(self.starts, self.patch, box, strict=True)
        ]
        return np.asarray(
            sums[0][:, None, None] * sums[1][None, :, None] * sums[2][None, None, :], np.float32
        )

    def _touching_axes(self, box: Box) -> list[list[slice]]:
        return [
            [
                slice(start, start + window)
                for start in starts
                if start < part.stop and part.start < start + window
            ]
            for starts, window, part in zip(self.starts, self.patch, box, strict=True)
        ]


def _starts(size: int, window: int, step: float) -> list[int]:
    """Evenly spread stops that reach both ends (nnU-Net: `compute_steps_for_sliding_window`)."""
    if window == 1:
        return list(range(size))
    stops = int(np.ceil((size - window) / (window * step))) + 1
    if stops == 1:
        return [0]
    return [int(np.round((size - window) / (stops - 1) * number)) for number in range(stops)]


def importance(window: int) -> NDArray[np.float64]:
    """Weight along one axis of a window: a Gaussian, 1/8 of the window wide, 1 at the center.

    As nnU-Net has it (`compute_gaussian`, sigma_scale 1/8), with the center at `window // 2`.
    """
    distances = np.arange(window) - window // 2
    return np.asarray(np.exp(-0.5 * (distances / (window / 8)) ** 2))


def _sum_of_weights(starts: Sequence[int], window: int, part: slice) -> NDArray[np.float64]:
    own = importance(window)
    total = np.zeros(part.stop - part.start)
    for start in starts:
        low, high = max(start, part.start), min(start + window, part.stop)
        if low < high:
            total[low - part.start : high - part.start] += own[low - start : high - start]
    return total


def importance_map(patch: Zyx) -> NDArray[np.float32]:
    """Weight of each voxel of a window."""
    z, y, x = (importance(window) for window in patch)
    return np.asarray(z[:, None, None] * y[None, :, None] * x[None, None, :], np.float32)


def accumulate(
    values: torch.Tensor,
    origin: Zyx,
    box: Box,
    tiling: Tiling,
    predict: Predict,
    classes: int,
    batch: int,
    after_each: Callable[[int], None],
) -> torch.Tensor:
    """Weighted mean of the logits of all windows that touch a box.

    Parameters
    ----------
    values : float32, shape (z, y, x)
        Normalized image that covers every one of those windows.
    origin
        Place of its first voxel in the tiling's volume; negative where the volume is padded.
    box
        Voxels to predict, in the tiling's volume.
    batch
        Windows per call of `predict`. Every call has that many, so that a window's result does not
        depend on its company.
    after_each
        Called after each call with the number of windows in it.

    Returns
    -------
    float32, shape (classes, *shape of `box`)
    """
    weight = torch.from_numpy(importance_map(tiling.patch)).to(values.device)
    total = torch.zeros((classes, *shape_of(box)), dtype=torch.float32, device=values.device)
    for windows in _batches(tiling.touching(box), batch):
        patches = [values[_seen_from(origin, window)] for window in windows]
        patches += [patches[-1]] * (batch - len(windows))
        logits = predict(torch.stack(patches)[:, None])
        for window, own in zip(windows, logits, strict=False):
            into, part = _overlap(window, box)
            total[(slice(None), *into)].addcmul_(own[(slice(None), *part)], weight[part])
        after_each(len(windows))
    return total.div_(torch.from_numpy(tiling.weights(box)).to(values.device))


def _batches(windows: Sequence[Box], batch: int) -> Iterator[Sequence[Box]]:
    for start in range(0, len(windows), batch):
        yield windows[start : start + batch]


def _seen_from(origin: Zyx, box: Box) -> Box:
    z, y, x = (
        slice(part.start - first, part.stop - first)
        for part, first in zip(box, origin, strict=True)
    )
    return (z, y, x)


def _overlap(window: Box, box: Box) -> tuple[Box, Box]:
    """The shared voxels of two boxes, as seen from `box` and as seen from `window`."""
    z, y, x = (
        slice(max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip(window, box, strict=True)
    )
    return relative((z, y, x), box), relative((z, y, x), window)


def choose_block(
    shape: Zyx, least: Zyx, cost: Callable[[Zyx], tuple[int, int]], budget_bytes: int
) -> Zyx:
    """Block that needs few windows in all and fits a memory budget.

    Windows at a block's faces are predicted once for every block that they touch, so larger blocks
    are cheaper. Starting from `least`, the axis whose doubling saves most windows is doubled, for
    as long as the block fits.

    Parameters
    ----------
    shape
        Voxels of the volume.
    least
        Smallest block; the answer is a multiple of it along each axis.
    cost
        Number of windows for the whole volume and bytes of memory, for blocks of a given shape.
    """
    block = least
    windows, _ = cost(block)
    while True:
        costs = [(cost(larger), larger) for larger in _doubled(block, shape)]
        fitting = [(count, larger) for (count, size), larger in costs if size <= budget_bytes]
        if not fitting or min(fitting)[0] >= windows:
            return block
        windows, block = min(fitting)


def _doubled(block: Zyx, shape: Zyx) -> list[Zyx]:
    """The block doubled along each axis on which it does not yet cover the volume."""
    z, y, x = block
    doubled = [(2 * z, y, x), (z, 2 * y, x), (z, y, 2 * x)]
    return [larger for axis, larger in enumerate(doubled) if block[axis] < shape[axis]]

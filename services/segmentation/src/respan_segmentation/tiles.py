"""Where a sliding window stops, and how its voxels are weighted.

The stops are those that nnU-Net has for the whole volume. A part of the volume takes all stops
that touch it, so that a voxel's sum does not depend on how the volume was cut into parts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx


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
        return [(z, y, x) for z, y, x in itertools.product(*self.touching_axes(box))]

    def count(self, box: Box) -> int:
        """Number of windows that share a voxel with a box."""
        return int(np.prod([len(parts) for parts in self.touching_axes(box)]))

    def reach(self, box: Box) -> Box:
        """Smallest box around all windows that share a voxel with a box."""
        z, y, x = (slice(parts[0].start, parts[-1].stop) for parts in self.touching_axes(box))
        return (z, y, x)

    def touching_axes(self, box: Box) -> list[list[slice]]:
        """The same along each axis: windows are all combinations of these."""
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


def importance_map(patch: Zyx) -> NDArray[np.float32]:
    """Weight of each voxel of a window."""
    z, y, x = (importance(window) for window in patch)
    return np.asarray(z[:, None, None] * y[None, :, None] * x[None, None, :], np.float32)

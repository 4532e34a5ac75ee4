"""Grey values of the raw image inside spines, heads and necks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification.objects import Voxels

Columns = dict[str, NDArray[np.float64]]

ReadChannel = Callable[[int], NDArray[np.generic]]
"""Gives the voxels (z, y, x) of a channel, counted from 1."""


def measure(
    parts: dict[str, Voxels],
    read_channel: ReadChannel,
    channels: int,
    spine_count: int,
    spacing: VoxelSpacing,
) -> Columns:
    """Mean, maximum and integrated density of each part in each channel, for spines 1..N.

    The integrated density is the sum of the grey values times a voxel's volume. A part without
    voxels is missing (NaN).
    """
    found: Columns = {}
    for channel in range(1, channels + 1):
        grey = read_channel(channel)
        for part, voxels in parts.items():
            values = grey[tuple(voxels.index_zyx.T)].astype(np.float64)
            total = voxels.total(values)
            name = f"{part}_C{channel}"
            found[f"{name}_mean_int"] = voxels.column(total / voxels.counts, spine_count)
            found[f"{name}_max_int"] = voxels.column(voxels.maximum(values), spine_count)
            density = total * spacing.voxel_volume_um3
            found[f"{name}_int_density"] = voxels.column(density, spine_count)
        del grey
    return found

"""Recipe of the restoration stage: CARE per channel, then Self-Net on one of them.

Every function makes one box of the result from whatever part of its source that box can see, so
memory does not grow with the volume, and the result does not depend on how it was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from respan_common.errors import InputError
from respan_common.geometry import Box, VoxelSpacing, Zyx, grow, relative
from respan_restoration.care import Reader
from respan_restoration.selfnet import (
    RADIUS_VOXELS,
    SMALLEST_SIDE_VOXELS,
    SelfNet,
    axial_weights,
    interpolate,
    isotropic_depth,
    isotropic_spacing,
    restore_axially,
)


@dataclass(frozen=True)
class AxialGrid:
    """The grid that all channels share after axial restoration.

    Raises
    ------
    InputError
        If pixels are not square, z is the finer axis, or an axis is too short for Self-Net.
    """

    raw_shape_zyx: Zyx
    raw_spacing: VoxelSpacing

    def __post_init__(self) -> None:
        # Before the depth: dividing by a wrong pixel size would blame the wrong thing.
        isotropic_spacing(self.raw_spacing)
        if min(self.shape_zyx) < SMALLEST_SIDE_VOXELS:
            raise InputError(
                f"Self-Net needs {SMALLEST_SIDE_VOXELS} voxels along every axis of the isotropic "
                f"volume, which would have {self.shape_zyx} (z, y, x)"
            )

    @property
    def spacing(self) -> VoxelSpacing:
        """Voxel size of the isotropic volume."""
        return isotropic_spacing(self.raw_spacing)

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels of the isotropic volume."""
        depth, height, width = self.raw_shape_zyx
        return (isotropic_depth(depth, self.raw_spacing), height, width)

    @cached_property
    def cubic(self) -> NDArray[np.float32]:
        """Interpolation for the channel that Self-Net restores."""
        return axial_weights(self.raw_shape_zyx[0], self.raw_spacing, order=3)

    @cached_property
    def linear(self) -> NDArray[np.float32]:
        """Interpolation for the other channels: never beyond the values that were measured."""
        return axial_weights(self.raw_shape_zyx[0], self.raw_spacing, order=1)


def stored_dtype(raw: DTypeLike) -> np.dtype[Any]:
    """Type of restored voxels: uint16 if that holds every raw value, else float32."""
    return np.dtype(np.uint16 if np.can_cast(raw, np.uint16) else np.float32)


def to_stored(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Grey values as they are stored: rounded and clipped, so that -3 becomes 0, not 65533."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    if np.can_cast(values.dtype, dtype):
        return values.astype(dtype, copy=False)
    limits = np.iinfo(np.dtype(dtype))
    clipped: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max)
    return clipped.astype(dtype)


def interpolated(read: Reader, box: Box, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Box of the isotropic grid, from those slices of the raw grid that it depends on."""
    rows = weights[box[0]]
    needed = np.flatnonzero(rows.any(axis=0))
    slices = slice(int(needed[0]), int(needed[-1]) + 1)
    return interpolate(read((slices, box[1], box[2])), rows[:, slices])


def axially_restored(
    network: SelfNet,
    read: Reader,
    box: Box,
    grid: AxialGrid,
    grey_values: tuple[float, float],
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Box of the isotropic grid, restored by Self-Net from a channel on the raw grid."""
    outer = grow(box, (RADIUS_VOXELS,) * 3, grid.shape_zyx)
    volume = interpolated(read, outer, grid.cubic)
    return restore_axially(network, volume, relative(box, outer), grey_values, check)

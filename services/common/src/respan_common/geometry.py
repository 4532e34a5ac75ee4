"""Physical size of voxels and boxes of voxels. Arrays are (z, y, x) everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.errors import InputError

Zyx = tuple[int, int, int]
"""Whole numbers along z, y, x."""

Box = tuple[slice, slice, slice]
"""Three half-open slices (z, y, x) with explicit, non-negative start and stop."""


@dataclass(frozen=True)
class VoxelSpacing:
    """Edge lengths of a voxel in µm, in array order."""

    z_um: float
    y_um: float
    x_um: float

    def __post_init__(self) -> None:
        if not all(np.isfinite(edge) and edge > 0 for edge in self.zyx):
            raise InputError(f"a voxel's edges must be positive lengths in µm, not {self.zyx}")

    @property
    def zyx(self) -> tuple[float, float, float]:
        """The three edges as a tuple."""
        return (self.z_um, self.y_um, self.x_um)

    @property
    def voxel_volume_um3(self) -> float:
        """Volume of one voxel."""
        return self.z_um * self.y_um * self.x_um

    def voxels_in(self, volume_um3: float) -> float:
        """How many voxels fill a volume; not rounded."""
        return volume_um3 / self.voxel_volume_um3

    def reach(self, distance_um: float) -> Zyx:
        """Whole voxels along each axis that cover a distance."""
        z, y, x = (int(np.ceil(distance_um / edge - 1e-9)) for edge in self.zyx)
        return (z, y, x)

    def points_um(self, index_zyx: NDArray[np.generic]) -> NDArray[np.float64]:
        """Physical positions of voxel centers, shape (n, 3); voxel (0, 0, 0) sits at 0."""
        points: NDArray[np.float64] = np.asarray(index_zyx, dtype=np.float64) * np.asarray(self.zyx)
        return points


def whole(shape_zyx: Zyx) -> Box:
    """Box that covers an array of that shape."""
    z, y, x = (slice(0, size) for size in shape_zyx)
    return (z, y, x)


def grow(box: Box, margin_zyx: Zyx, shape_zyx: Zyx) -> Box:
    """Box widened by a margin on every side, clipped at the array's faces."""
    z, y, x = (
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, margin, size in zip(box, margin_zyx, shape_zyx, strict=True)
    )
    return (z, y, x)


def clipped(box: Box, shape_zyx: Zyx) -> Box:
    """The part of a box that lies in an array of that shape."""
    return grow(box, (0, 0, 0), shape_zyx)


def hull(boxes: Sequence[Box]) -> Box:
    """Smallest box around some boxes."""
    z, y, x = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )
    return (z, y, x)


def intersection(one: Box, other: Box) -> Box | None:
    """The voxels that two boxes share; None if there are none."""
    z, y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return (z, y, x) if all(part.start < part.stop for part in (z, y, x)) else None


def relative(inner: Box, outer: Box) -> Box:
    """`inner` as seen from the first voxel of `outer`."""
    z, y, x = (
        slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)
    )
    return (z, y, x)


def absolute(inner: Box, outer: Box) -> Box:
    """The box that is `inner` when seen from the first voxel of `outer`."""
    z, y, x = (
        slice(i.start + o.start, i.stop + o.start) for i, o in zip(inner, outer, strict=True)
    )
    return (z, y, x)


def shape_of(box: Box) -> Zyx:
    """Number of voxels of a box along each axis."""
    z, y, x = (part.stop - part.start for part in box)
    return (z, y, x)

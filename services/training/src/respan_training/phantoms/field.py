"""The imaged box and its voxels. Voxel (0, 0, 0) is centered at 0 µm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, Zyx


@dataclass(frozen=True)
class Field:
    """Box of voxels in space."""

    shape_zyx: Zyx
    spacing: VoxelSpacing

    @property
    def low_um(self) -> NDArray[np.float64]:
        """Outer corner of the first voxel."""
        return np.asarray(-0.5 * np.asarray(self.spacing.zyx))

    @property
    def high_um(self) -> NDArray[np.float64]:
        """Outer corner of the last voxel."""
        return np.asarray((np.asarray(self.shape_zyx) - 0.5) * np.asarray(self.spacing.zyx))

    @property
    def size_um(self) -> NDArray[np.float64]:
        """Edges of the box."""
        return self.high_um - self.low_um

    def contains(self, points_um: NDArray[np.float64], margin_um: float = 0.0) -> NDArray[np.bool_]:
        """Which points, shape (n, 3), lie in the box widened by a margin."""
        inside = (points_um >= self.low_um - margin_um) & (points_um <= self.high_um + margin_um)
        return np.asarray(inside.all(axis=-1))

    def index_zyx(self, points_um: NDArray[np.float64]) -> NDArray[np.intp]:
        """Voxel that holds each point, shape (n, 3); points outside go to the nearest voxel."""
        index = np.rint(points_um / np.asarray(self.spacing.zyx)).astype(np.intp)
        return np.asarray(np.clip(index, 0, np.asarray(self.shape_zyx) - 1))

    def axis_um(self, axis: int) -> NDArray[np.float64]:
        """Positions of voxel centers along one axis."""
        return np.asarray(
            np.arange(self.shape_zyx[axis]) * self.spacing.zyx[axis], dtype=np.float64
        )

    def length_inside_um(
        self, start_um: NDArray[np.float64], end_um: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Length of the part of each straight piece, shape (n, 3), that lies in the box.

        Slab method: a piece is inside an axis's slab between two fractions of its length.
        """
        step = end_um - start_um
        safe = np.where(np.abs(step) < 1e-12, 1e-12, step)
        at_low, at_high = (self.low_um - start_um) / safe, (self.high_um - start_um) / safe
        enters = np.minimum(at_low, at_high).max(axis=1, initial=0.0)
        leaves = np.minimum(np.maximum(at_low, at_high).min(axis=1, initial=1.0), 1.0)
        fraction = np.clip(leaves - enters, 0, 1)
        return np.asarray(fraction * np.linalg.norm(step, axis=1), dtype=np.float64)

"""The imaged box and its voxels. Voxel (0, 0, 0) is centered at 0 µm."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from respan_common.errors import CapacityError
from respan_common.geometry import VoxelSpacing, Zyx

SLAB_VOXELS = 4_000_000
"""Voxels at a time, where all of them are gone through."""

MOST_BYTES_IN_MEMORY = 128 * 2**20
"""Of one array over the field; a larger one lies in a file."""


@dataclass(frozen=True)
class Field:
    """Box of voxels in space.

    Attributes
    ----------
    scratch : Path or None
        Folder for arrays that are too large for the memory; None: the system's.
    """

    shape_zyx: Zyx
    spacing: VoxelSpacing
    scratch: Path | None = None

    def zeros(self, dtype: DTypeLike, *, channels: int | None = None) -> NDArray[Any]:
        """New array (z, y, x) over the field, or (c, z, y, x) of several channels.

        A large one lies in a file that has no name: it is gone with the array, or the process.

        Raises
        ------
        CapacityError
            If the disk does not hold it.
        """
        shape = self.shape_zyx if channels is None else (channels, *self.shape_zyx)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= MOST_BYTES_IN_MEMORY:
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            # A file with holes, on a disk that fills up, would kill the process later.
            if sys.platform == "linux":
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    raise CapacityError(
                        f"a phantom of {' × '.join(map(str, shape))} voxels needs "
                        f"{size / 1e9:.1f} GB more than the disk of {self.scratch or 'TMPDIR'} has "
                        f"({error.strerror}): free some, or ask for a smaller shape"
                    ) from error
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))

    def slabs(self) -> Iterator[slice]:
        """Runs of whole planes, one after the other, of about `SLAB_VOXELS` each."""
        depth, rows, columns = self.shape_zyx
        step = max(1, SLAB_VOXELS // (rows * columns))
        for first in range(0, depth, step):
            yield slice(first, min(first + step, depth))

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

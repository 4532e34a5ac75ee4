"""Where the arrays at hand lie in the whole image: what a block owns, and where it was cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, relative, shape_of, whole


@dataclass(frozen=True)
class Frame:
    """A block's place: arrays cover `outer`; objects whose anchor lies in `inner` are its own.

    Boxes are in voxels of the whole image. Indices that methods take and give, shape (n, 3), count
    from the first voxel of `outer`, as those of the arrays do.
    """

    outer: Box
    inner: Box
    shape_zyx: Zyx
    """Voxels of the whole image."""
    spacing: VoxelSpacing

    @classmethod
    def of_whole(cls, shape_zyx: Zyx, spacing: VoxelSpacing) -> Frame:
        """The frame of an image that is treated in one piece."""
        return cls(whole(shape_zyx), whole(shape_zyx), shape_zyx, spacing)

    @property
    def corner(self) -> NDArray[np.int64]:
        """First voxel of the arrays, in voxels of the whole image."""
        return np.array([part.start for part in self.outer], dtype=np.int64)

    @property
    def outer_shape(self) -> Zyx:
        """Shape of the arrays."""
        return shape_of(self.outer)

    @property
    def inner_in_outer(self) -> Box:
        """Where the owned voxels lie in the arrays."""
        return relative(self.inner, self.outer)

    def owns(self, index_zyx: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether these voxels lie in the owned part."""
        inner = self.inner_in_outer
        low, high = [part.start for part in inner], [part.stop for part in inner]
        return np.asarray(np.all((index_zyx >= low) & (index_zyx < high), axis=1))

    def points_um(self, index_zyx: NDArray[np.generic]) -> NDArray[np.float64]:
        """Voxel centers in µm of the whole image, whose first voxel's center is at 0."""
        return self.spacing.points_um(np.asarray(index_zyx, np.float64) + self.corner)

    def linear(self, index_zyx: NDArray[np.integer]) -> NDArray[np.int64]:
        """Raster number of these voxels in the whole image."""
        place = np.asarray(index_zyx, np.int64) + self.corner
        return np.asarray(np.ravel_multi_index(tuple(place.T), self.shape_zyx), np.int64)

    def index_of(self, linear: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of voxels with these raster numbers; it may lie outside the arrays."""
        return np.stack(np.unravel_index(linear, self.shape_zyx), axis=1) - self.corner

    def cut_distance_um(self, index_zyx: NDArray[np.integer]) -> NDArray[np.float64]:
        """From each voxel's center to the nearest side where the arrays were cut off.

        Beyond a cut there is more image; the faces of the image itself are no cuts. Infinite where
        nothing was cut.
        """
        nearest = np.full(len(index_zyx), np.inf)
        for axis, edge_um in enumerate(self.spacing.zyx):
            part, place = self.outer[axis], np.asarray(index_zyx)[:, axis]
            if part.start > 0:
                nearest = np.minimum(nearest, (place + 0.5) * edge_um)
            if part.stop < self.shape_zyx[axis]:
                nearest = np.minimum(nearest, (part.stop - part.start - place - 0.5) * edge_um)
        return nearest

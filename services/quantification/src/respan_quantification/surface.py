"""Distances to the surfaces of labelled objects, in µm, by nearest surface voxels.

Nothing here builds a distance map of the volume, or keeps a label image: surfaces are small next
to it. Voxels are counted in the whole image, so that a block and the whole image give the same
answer, also where several surface voxels are equally near.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing, Zyx
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels

_TIED = 1e-9
"""Relative difference of two distances that are the same, but for rounding."""

_RIVALS = 8
"""Surface voxels that are fetched for each asked one; more are fetched where all of them tie."""


@dataclass(frozen=True)
class Nearest:
    """For each of n asked voxels: the nearest surface voxel and the way there.

    `center_um` runs between voxel centers; `gap_um` between the facing sides of both voxels, 0
    if they touch; `ids` is the object that owns the surface voxel `index_zyx`.
    """

    center_um: NDArray[np.float64]
    gap_um: NDArray[np.float64]
    ids: NDArray[np.uint32]
    index_zyx: NDArray[np.int32]

    def rows(self, chosen: slice | NDArray[np.generic]) -> Nearest:
        """Some of the asked voxels."""
        return Nearest(
            self.center_um[chosen], self.gap_um[chosen], self.ids[chosen], self.index_zyx[chosen]
        )

    def joined(self, other: Nearest) -> Nearest:
        """The asked voxels of both, these first."""
        return Nearest(
            np.concatenate([self.center_um, other.center_um]),
            np.concatenate([self.gap_um, other.gap_um]),
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.index_zyx, other.index_zyx]),
        )

    @classmethod
    def of_nothing(cls, count: int = 0) -> Nearest:
        """Infinitely far from everything."""
        far = np.full(count, np.inf)
        return cls(far, far, np.zeros(count, np.uint32), np.zeros((count, 3), np.int32))


class Surface:
    """Surface voxels of labelled objects, ready to be asked who is nearest."""

    def __init__(
        self, index_zyx: NDArray[np.integer], ids: NDArray[np.uint32], spacing: VoxelSpacing
    ) -> None:
        self._spacing = spacing
        order = np.lexsort(np.asarray(index_zyx).T[::-1])
        self.index_zyx = np.asarray(index_zyx, np.int32)[order]
        self.ids = np.asarray(ids, np.uint32)[order]
        self._shape = tuple(int(edge) + 2 for edge in self.index_zyx.max(axis=0, initial=0))
        self._linear = np.ravel_multi_index(tuple(self.index_zyx.T), self._shape)
        self._tree = cKDTree(spacing.points_um(self.index_zyx)) if len(order) else None

    @classmethod
    def of_labels(cls, labels: Labels, frame: Frame) -> Surface:
        """Surface voxels of the objects in a block's arrays; the arrays' faces are no surface."""
        index, ids = shell(labels)
        return cls(index + frame.corner, ids, frame.spacing)

    @classmethod
    def of_voxels(
        cls,
        index_zyx: NDArray[np.integer],
        ids: NDArray[np.uint32],
        spacing: VoxelSpacing,
        shape_zyx: Zyx,
    ) -> Surface:
        """Of surface voxels that were gathered before, counted in the whole image."""
        assert not len(index_zyx) or (np.max(index_zyx, axis=0) < shape_zyx).all()
        return cls(index_zyx, ids, spacing)

    @property
    def is_empty(self) -> bool:
        """Whether there is no object at all."""
        return self._tree is None

    def nearest(self, index_zyx: NDArray[np.integer]) -> Nearest:
        """Nearest surface voxel of each voxel; a voxel that touches it (26 neighbors) wins.

        Of several that are equally near, the first in raster order.
        """
        assert self._tree is not None, "ask is_empty first"
        asked = np.asarray(index_zyx, np.int32)
        points = self._spacing.points_um(asked)
        center_um, row = self._first_of_the_nearest(points)
        row = self._touched(asked, center_um, row)
        between = points - self._spacing.points_um(self.index_zyx[row])
        center_um = np.linalg.norm(between, axis=1)
        gap = np.maximum(center_um - chord_um(between, self._spacing), 0.0)
        gap[np.abs(asked - self.index_zyx[row]).max(axis=1, initial=0) <= 1] = 0.0
        return Nearest(center_um, gap, self.ids[row], self.index_zyx[row])

    def _first_of_the_nearest(
        self, points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        assert self._tree is not None
        fetched = min(_RIVALS, len(self.ids))
        found = self._tree.query(points, k=[*range(1, fetched + 1)])
        distance, rows = np.asarray(found[0]), np.asarray(found[1])
        limit = distance[:, 0] * (1 + _TIED)
        # Rows are in raster order: the smallest of the tied ones is the first voxel.
        first = np.where(distance <= limit[:, None], rows, len(self.ids)).min(axis=1)
        if fetched < len(self.ids):
            crowded = np.flatnonzero(distance[:, -1] <= limit)
            balls = self._tree.query_ball_point(points[crowded], limit[crowded])
            first[crowded] = [min(ball) for ball in balls]
        return np.asarray(distance[:, 0], np.float64), np.asarray(first, np.int64)

    def _touched(
        self,
        asked: NDArray[np.int32],
        center_um: NDArray[np.float64],
        row: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Row of the touched surface voxel where there is one, else `row`."""
        # The nearest center need not be the nearest side: in a stack with coarse z steps the
        # voxel below touches although centers in the same slice are nearer.
        close = np.flatnonzero(center_um <= np.linalg.norm(self._spacing.zyx) * (1 + _TIED))
        found = row.copy()
        for shift in _shifts_far_to_near(self._spacing):
            there = asked[close] + shift
            inside = np.all((there >= 0) & (there < self._shape), axis=1)
            linear = np.ravel_multi_index(tuple(there[inside].T), self._shape)
            place = np.minimum(np.searchsorted(self._linear, linear), len(self._linear) - 1)
            hit = self._linear[place] == linear
            found[close[inside][hit]] = place[hit]
        return found


def shell(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Voxels with a face neighbor of another object or none, shape (n, 3), and their ids.

    The array's faces are no surface; but if they leave none at all, every voxel is one: an
    object that fills its array must not vanish.
    """
    flat = np.ascontiguousarray(labels).ravel()
    linear = np.flatnonzero(flat)
    ids = flat[linear]
    index = np.stack(np.unravel_index(linear, labels.shape), axis=1)
    outside = np.zeros(len(linear), dtype=bool)
    for axis in range(3):
        stride = int(np.prod(labels.shape[axis + 1 :]))
        for step, end in ((-1, 0), (1, labels.shape[axis] - 1)):
            asked = np.flatnonzero(~outside & (index[:, axis] != end))
            outside[asked] = flat[linear[asked] + step * stride] != ids[asked]
    if not outside.any():
        return index, ids
    return index[outside], ids[outside]


def _shifts_far_to_near(spacing: VoxelSpacing) -> NDArray[np.int32]:
    """The 26 neighbors, corners first; of equally near ones the first in raster order last."""
    shifts = np.array([s for s in itertools.product((1, 0, -1), repeat=3) if any(s)], np.int32)
    length_um = np.linalg.norm(shifts * np.asarray(spacing.zyx), axis=1)
    return shifts[np.argsort(-length_um, kind="stable")]


def chord_um(direction_um: NDArray[np.float64], spacing: VoxelSpacing) -> NDArray[np.float64]:
    """Length of the straight line through a voxel's center inside that voxel.

    Parameters
    ----------
    direction_um : float array, shape (n, 3)
        Direction (z, y, x), of any length; a zero vector gives 0.
    """
    length = np.linalg.norm(direction_um, axis=1)
    steps = np.max(np.abs(direction_um) / spacing.zyx, axis=1)
    return np.asarray(np.divide(length, steps, out=np.zeros_like(length), where=steps > 0))

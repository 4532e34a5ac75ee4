"""Distances to the surfaces of labelled objects, in µm, by nearest surface voxels.

Nothing here builds a distance map of the volume: surfaces are small next to it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.objects import Labels, boundary


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


class Surface:
    """Surface voxels of labelled objects, ready to be asked who is nearest."""

    def __init__(self, labels: Labels, spacing: VoxelSpacing) -> None:
        self._spacing = spacing
        self._labels = labels
        shell = np.argwhere(boundary(labels))
        if not len(shell):  # an object that fills the whole array has no surface inside it
            shell = np.argwhere(labels)
        self.index_zyx = shell.astype(np.int32)
        self.ids = labels[tuple(shell.T)]
        self._tree = cKDTree(spacing.points_um(self.index_zyx)) if len(shell) else None

    @property
    def is_empty(self) -> bool:
        """Whether there is no object at all."""
        return self._tree is None

    def nearest(self, index_zyx: NDArray[np.int32]) -> Nearest:
        """Nearest surface voxel of each voxel; a voxel that touches it (26 neighbors) wins."""
        assert self._tree is not None, "ask is_empty first"
        points = self._spacing.points_um(index_zyx)
        center_um, row = _query(self._tree, points)
        found, ids = self.index_zyx[row], self.ids[row]
        # The nearest center need not be the nearest side: in a stack with coarse z steps the
        # voxel below touches although centers in the same slice are nearer.
        for shift in _shifts_far_to_near(self._spacing):
            there = index_zyx + shift
            touched = self._ids_at(there)
            touches = touched > 0
            found[touches], ids[touches] = there[touches], touched[touches]
            center_um[touches] = np.linalg.norm(shift * np.asarray(self._spacing.zyx))
        between = points - self._spacing.points_um(found)
        gap = np.maximum(center_um - chord_um(between, self._spacing), 0.0)
        return Nearest(np.asarray(center_um), gap, ids, found)

    def _ids_at(self, index_zyx: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Ids at these voxels; 0 outside the array."""
        inside = np.all((index_zyx >= 0) & (index_zyx < self._labels.shape), axis=1)
        ids = np.zeros(len(index_zyx), dtype=np.uint32)
        ids[inside] = self._labels[tuple(index_zyx[inside].T)]
        return ids


def _query(
    tree: cKDTree, points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    distance, row = tree.query(points, workers=-1)
    return np.asarray(distance, dtype=np.float64), np.asarray(row, dtype=np.int64)


def _shifts_far_to_near(spacing: VoxelSpacing) -> NDArray[np.int32]:
    """The 26 neighbors, corners first."""
    shifts = np.array([s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)], np.int32)
    return shifts[np.argsort(-np.linalg.norm(shifts * np.asarray(spacing.zyx), axis=1))]


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

"""A dendrite's branch graph: a rooted tree of nodes in µm."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.centerline import Curve, Points


@dataclass(frozen=True)
class Tree:
    """Nodes of one dendrite; a node's parent comes before it, the first node is the root.

    `points_um` has shape (n, 3); `parents` is -1 at the root; `walked_um` is the distance from
    the root along the tree. `soma_id` is 0 if the dendrite touches no soma; `soma_gap_um` is the
    way from the root to the soma's surface.
    """

    points_um: Points
    parents: NDArray[np.int64]
    radius_um: Points
    walked_um: Points
    soma_id: int = 0
    soma_gap_um: float = 0.0

    @property
    def length_um(self) -> float:
        """Length of all branches together."""
        return float(_steps_um(self.points_um, self.parents).sum())

    @property
    def branches(self) -> int:
        """Stretches between root, branch points and tips."""
        children = np.bincount(self.parents[1:], minlength=len(self.parents))
        forks = children[(children > 1) & (self.parents >= 0)].sum()
        return int(forks + children[0])

    def position_um(self, points_um: Points) -> Points:
        """Distance from the root, along the tree, of the places nearest to these points."""
        node = cKDTree(self.points_um).query(points_um)[1]
        up = self.points_um[np.maximum(self.parents[node], 0)] - self.points_um[node]
        length = np.linalg.norm(up, axis=1)
        toward_root = np.einsum("ij,ij->i", points_um - self.points_um[node], up)
        share = np.divide(toward_root, length, out=np.zeros_like(length), where=length > 0)
        # Past a node by more than half the way to its parent, that parent would be nearer.
        walked = self.walked_um[node] - np.clip(share, -length, length)
        return np.asarray(np.maximum(walked, 0.0))


def join(curves: list[Curve], radius_um: NDArray[np.float32], spacing: VoxelSpacing) -> Tree:
    """One tree from the curves of a dendrite.

    Parameters
    ----------
    curves
        From `centerline.fit`; each begins on an earlier one.
    radius_um : float array, shape (z, y, x)
        Distance to the background's voxel centers, in the curves' frame.
    """
    starts = np.cumsum([0] + [len(curve.points_um) for curve in curves])
    points = np.concatenate([curve.points_um for curve in curves])
    parents = np.arange(len(points), dtype=np.int64) - 1
    for curve, start in zip(curves, starts, strict=False):
        if curve.parent >= 0:
            low, high = starts[curve.parent], starts[curve.parent + 1]
            distance = np.linalg.norm(points[low:high] - points[start], axis=1)
            parents[start] = low + int(np.argmin(distance))
    return Tree(points, parents, _radii(points, radius_um, spacing), _walked(points, parents))


def _radii(points: Points, radius_um: NDArray[np.float32], spacing: VoxelSpacing) -> Points:
    """Largest distance to the background among the voxels around each node.

    A centerline runs between voxels, where the distance map has no value; its crest is near.
    """
    index = np.rint(points / spacing.zyx).astype(np.int64)
    last = np.subtract(radius_um.shape, 1)
    shifts = itertools.product((-1, 0, 1), repeat=3)
    around = [radius_um[tuple(np.clip(index + shift, 0, last).T)] for shift in shifts]
    return np.asarray(np.maximum.reduce(around), dtype=np.float64)


def _steps_um(points: Points, parents: NDArray[np.int64]) -> Points:
    steps = np.linalg.norm(points - points[np.maximum(parents, 0)], axis=1)
    steps[0] = 0.0
    return np.asarray(steps)


def _walked(points: Points, parents: NDArray[np.int64]) -> Points:
    steps = _steps_um(points, parents)
    walked = np.zeros(len(points))
    for node in range(1, len(points)):
        walked[node] = walked[parents[node]] + steps[node]
    return walked

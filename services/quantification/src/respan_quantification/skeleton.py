"""Topology of a dendrite: which paths run through it. Voxel paths, not yet a centerline.

Plan (after TEASAR, Sato et al. 2000): walk from one end of the dendrite to the voxel farthest
from it, along the middle; everything near that path is explained by it; repeat from the farthest
voxel left, until nothing is left. Each path after the first begins on an earlier one. The
result is a tree, so loops (a hole in a mask, two branches that touch) are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import dijkstra3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import percentile_filter
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.classes import Mask

EXPLAINED_RADII = 2.0
"""A path explains what lies within twice the local radius: spurs shorter than a radius end here."""

EXPLAINED_SPREADS = 1.3
"""... or within 1.3 times the local extent across the path, for dendrites smeared along z."""

SPREAD_WINDOW_UM = 4.0
SPREAD_PERCENTILE = 75.0
"""Window and percentile of that extent: a side branch fills less than a quarter of the window."""

Index = tuple[int, int, int]


@dataclass(frozen=True)
class VoxelPath:
    """Voxels of one path, shape (n, 3), from its root side to its tip, n >= 1.

    `parent` is the path it begins on, -1 for the first; its first voxel is that path's voxel
    (the root, if there is no parent). `radius_um` holds the distance to the background.
    """

    index_zyx: NDArray[np.int64]
    parent: int
    radius_um: NDArray[np.float64]


def trace(
    mask: Mask,
    spacing: VoxelSpacing,
    root: Index | None,
    radius_um: NDArray[np.float32],
    samples_um: NDArray[np.float64],
    workers: int = 1,
) -> list[VoxelPath]:
    """Voxel paths of one connected dendrite.

    Parameters
    ----------
    mask : bool array, shape (z, y, x), with at least one voxel
    root
        Where the tree is rooted; absent: at one of the dendrite's ends.
    radius_um : float array, shape (z, y, x)
        Distance to the background; positive inside the mask.
    samples_um : float array, shape (n, 3)
        Points that stand for all of the dendrite, counted from the first voxel's center.
    """
    filled = mask.astype(np.uint8)
    if root is None:
        anywhere = np.unravel_index(int(np.argmax(radius_um)), mask.shape)
        root = _farthest(filled, (int(anywhere[0]), int(anywhere[1]), int(anywhere[2])), spacing)
    far_um = dijkstra3d.euclidean_distance_field(filled, root, anisotropy=spacing.zyx)
    parents = dijkstra3d.parental_field(_cost(mask, radius_um), root)
    index = np.argwhere(mask)
    order = np.argsort(-far_um[tuple(index.T)], kind="stable")
    return _Tracer(mask, spacing, radius_um, parents, samples_um, workers).paths(index[order])


def _farthest(filled: NDArray[np.uint8], start: Index, spacing: VoxelSpacing) -> Index:
    _, end = dijkstra3d.euclidean_distance_field(
        filled, start, anisotropy=spacing.zyx, return_max_location=True
    )
    return (int(end[0]), int(end[1]), int(end[2]))


def _cost(mask: Mask, radius_um: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cost of a step: the inverse square of the local radius, so that middles are cheap."""
    cost = np.full(mask.shape, np.inf, dtype=np.float32)
    cost[mask] = 1.0 / np.square(radius_um[mask])
    return cost


class _Tracer:
    """The state of one trace: what no path explains yet, and the paths so far."""

    def __init__(
        self,
        mask: Mask,
        spacing: VoxelSpacing,
        radius_um: NDArray[np.float32],
        parents: NDArray[np.uint32],
        samples_um: NDArray[np.float64],
        workers: int,
    ) -> None:
        self._spacing = spacing
        self._radius_um = radius_um
        self._parents = parents
        self._left = mask.copy()
        self._owner: dict[Index, int] = {}
        self._samples_um = samples_um
        self._workers = workers

    def paths(self, by_distance: NDArray[np.int64]) -> list[VoxelPath]:
        """All paths; `by_distance` lists the voxels, farthest from the root first."""
        found: list[VoxelPath] = []
        row = 0
        while (row := self._next_tip(by_distance, row)) < len(by_distance):
            path = self._path_from(by_distance[row], len(found))
            found.append(path)
            self._explain(path)
        return found

    def _next_tip(self, by_distance: NDArray[np.int64], row: int) -> int:
        """First row at or after `row` whose voxel no path explains."""
        while row < len(by_distance):
            chunk = by_distance[row : row + 65536]
            left = self._left[tuple(chunk.T)]
            if left.any():
                return row + int(np.argmax(left))
            row += len(chunk)
        return row

    def _path_from(self, tip: NDArray[np.int64], number: int) -> VoxelPath:
        walk = dijkstra3d.path_from_parents(self._parents, tuple(int(i) for i in tip))
        walk = np.asarray(walk, dtype=np.int64)
        steps = [(int(z), int(y), int(x)) for z, y, x in walk]
        joint = next((n for n in range(len(steps) - 1, -1, -1) if steps[n] in self._owner), 0)
        parent = self._owner.get(steps[joint], -1)
        for step in steps[joint:]:
            self._owner.setdefault(step, number)
        kept = walk[joint:]
        return VoxelPath(kept, parent, self._radius_um[tuple(kept.T)].astype(np.float64))

    def _explain(self, path: VoxelPath) -> None:
        """Take away everything near a path, ball by ball, and its own voxels in any case."""
        self._left[tuple(path.index_zyx.T)] = False
        reach_um = np.maximum(
            EXPLAINED_RADII * path.radius_um, EXPLAINED_SPREADS * self._spread_um(path)
        ) + max(self._spacing.zyx)
        points = self._spacing.points_um(path.index_zyx)
        walked = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
        next_at = 0.0
        for n in range(len(points)):
            if walked[n] >= next_at or n == len(points) - 1:
                self._carve(path.index_zyx[n], float(reach_um[n]))
                next_at = walked[n] + reach_um[n] / 4
        index = np.rint(self._samples_um / self._spacing.zyx).astype(np.int64)
        self._samples_um = self._samples_um[self._left[tuple(index.T)]]

    def _carve(self, center: NDArray[np.int64], reach_um: float) -> None:
        reach = self._spacing.reach(reach_um)
        low = [max(int(c) - r, 0) for c, r in zip(center, reach, strict=True)]
        high = [int(c) + r + 1 for c, r in zip(center, reach, strict=True)]
        part = self._left[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        squares = [
            np.square((np.arange(size) + a - c) * edge)
            for size, a, c, edge in zip(part.shape, low, center, self._spacing.zyx, strict=True)
        ]
        z, y, x = np.ix_(*squares)
        part[(z + y + x) <= reach_um**2] = False

    def _spread_um(self, path: VoxelPath) -> NDArray[np.float64]:
        """Extent of the mask across the path, per path voxel: a running percentile."""
        points = self._spacing.points_um(path.index_zyx)
        spread = np.zeros(len(points))
        if len(points) < 2 or not len(self._samples_um):
            return spread
        bound = 6.0 * float(path.radius_um.max()) + max(self._spacing.zyx)
        distance, row = cKDTree(points).query(
            self._samples_um, distance_upper_bound=bound, workers=self._workers
        )
        distance, row = np.asarray(distance), np.asarray(row)
        near = np.isfinite(distance)
        np.maximum.at(spread, row[near], distance[near])
        per_step = float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())
        window = 2 * round(SPREAD_WINDOW_UM / per_step / 2) + 1
        window = min(window, 2 * len(points) - 1)
        return np.asarray(percentile_filter(spread, SPREAD_PERCENTILE, size=window))

"""Where dendrites come near somas, decided the same way in every block.

The gap between two voxels is the straight way between their facing sides. Of the way L between
centers, L / k lies in the two voxels themselves, half in each, if they are k steps apart along
the axis with most steps. So the gap is L (1 - 1/k), and 0 between any of the 26 neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing, Zyx, grow
from respan_quantification.frame import Frame
from respan_quantification.growth import Contact
from respan_quantification.objects import Labels, boundary, box_of

SOMA_GAP_UM = 0.5
"""A dendrite that comes this close to a soma belongs to it: labels often leave a thin seam."""

_DECIMALS = 9
"""Ways that differ by less are equal: one that is flipped or turned may differ in its last bit."""

_EPS_UM = 1e-6

Ids = NDArray[np.uint32]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Contacts:
    """The nearest contact of each dendrite that has one, by rising dendrite.

    `voxels`, shape (n, 3), are the dendrites' in the whole image. Ties of the gap are settled by
    the way between centers, then the first voxel in raster order, then the smaller soma id.
    """

    ids: Ids
    somas: Ids
    gaps_um: NDArray[np.float64]
    centers_um: NDArray[np.float64]
    voxels: Index

    @classmethod
    def nearest(cls, parts: Sequence[Contacts]) -> Contacts:
        """The nearest contact of each dendrite among all of these, in any order."""
        every = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)]
        ids, somas, gaps_um, centers_um, voxels = every
        order = np.lexsort((somas, *voxels.T[::-1], centers_um, gaps_um, ids))
        best = order[np.unique(ids[order], return_index=True)[1]]
        return cls(*(column[best] for column in every))

    @classmethod
    def none(cls) -> Contacts:
        """No contact."""
        ids, lengths_um = np.zeros(0, np.uint32), np.zeros(0, np.float64)
        return cls(ids, ids, lengths_um, lengths_um, np.zeros((0, 3), np.int64))

    def part(self, rows: slice) -> Contacts:
        """Some of the rows."""
        return Contacts(*(column[rows] for column in vars(self).values()))

    def of(self, number: int) -> Contact | None:
        """The contact of one dendrite."""
        row = int(np.searchsorted(self.ids, number))
        if row == len(self.ids) or self.ids[row] != number:
            return None
        z, y, x = (int(at) for at in self.voxels[row])
        return Contact((z, y, x), int(self.somas[row]), float(self.gaps_um[row]))


def reach_zyx(spacing: VoxelSpacing) -> Zyx:
    """Voxels along each axis within which two objects can be in contact."""
    z, y, x = (int(np.floor(SOMA_GAP_UM / edge + _EPS_UM)) + 1 for edge in spacing.zyx)
    return (z, y, x)


def find_contacts(dendrites: Labels, somas: Labels, frame: Frame) -> Contacts:
    """Nearest contact of each dendrite, among the dendrite voxels that a block owns.

    Parameters
    ----------
    dendrites, somas : uint32 array, shape (z, y, x)
        Over `frame.outer`, which reaches `reach_zyx` beyond the owned voxels.
    """
    index, ids = _facing(dendrites, somas, frame)
    found = [Contacts.none()]
    for way in _ways(frame.spacing):
        if not len(ids):
            break
        touching = _touching(index, ids, somas, way, frame)
        found.append(touching)
        left = ~np.isin(ids, touching.ids)
        index, ids = index[left], ids[left]
    return Contacts.nearest(found)


class _Way(NamedTuple):
    """Steps of equal gap and equal length, shape (n, 3)."""

    steps: Index
    gap_um: float
    center_um: float


@lru_cache(maxsize=8)
def _ways(spacing: VoxelSpacing) -> list[_Way]:
    """All steps from a voxel to one in contact, the nearest first."""
    reach = reach_zyx(spacing)
    steps = np.indices([2 * size + 1 for size in reach]).reshape(3, -1).T - reach
    steps = steps[np.any(steps != 0, axis=1)]
    length = np.linalg.norm(steps * np.asarray(spacing.zyx), axis=1)
    gap = np.round(_gap_um(steps, length), _DECIMALS)
    length = np.round(length, _DECIMALS)
    kept = gap <= SOMA_GAP_UM
    ways, which = np.unique(np.stack([gap, length], axis=1)[kept], axis=0, return_inverse=True)
    return [_Way(steps[kept][which == n], *map(float, way)) for n, way in enumerate(ways)]


def _gap_um(steps: Index, length_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gap between voxels that lie so many steps, not all 0, and so far apart."""
    return np.asarray(length_um * (1 - 1 / np.abs(steps).max(axis=1)))


def _facing(dendrites: Labels, somas: Labels, frame: Frame) -> tuple[Index, Ids]:
    """Owned dendrite voxels, in indices of the arrays, that may be their dendrite's contact.

    A gap is shorter than the way between centers by at most a voxel's diagonal. So a voxel whose
    nearest soma voxel is that much farther than some gap of its dendrite is no contact.
    """
    none = np.zeros((0, 3), np.int64), np.zeros(0, np.uint32)
    if not somas.any():
        return none
    near = tuple(step + 1 for step in reach_zyx(frame.spacing))
    box = grow(box_of(somas > 0), (near[0], near[1], near[2]), somas.shape)
    start = [part.start for part in box]
    index = np.argwhere(boundary(dendrites[box])) + start
    index = index[frame.owns(index)]
    shell = np.argwhere(boundary(somas[box])) + start
    if not len(index) or not len(shell):
        return none
    diagonal_um = float(np.linalg.norm(frame.spacing.zyx))
    center_um, row = cKDTree(frame.spacing.points_um(shell)).query(
        frame.spacing.points_um(index), distance_upper_bound=SOMA_GAP_UM + diagonal_um + _EPS_UM
    )
    within = np.isfinite(center_um)
    index, center_um, row = index[within], np.asarray(center_um)[within], np.asarray(row)[within]
    ids = dendrites[tuple(index.T)]
    present, which = np.unique(ids, return_inverse=True)
    least_um = np.full(len(present), SOMA_GAP_UM)
    np.minimum.at(least_um, which, _gap_um(shell[row] - index, center_um))
    kept = center_um - diagonal_um <= least_um[which] + _EPS_UM
    return index[kept], ids[kept]


def _touching(index: Index, ids: Ids, somas: Labels, way: _Way, frame: Frame) -> Contacts:
    """Contacts over one way; a dendrite's first voxel in raster order wins."""
    found = [Contacts.none()]
    for step in way.steps:
        there = index + step
        inside = np.flatnonzero(np.all((there >= 0) & (there < somas.shape), axis=1))
        reached = somas[tuple(there[inside].T)]
        rows = inside[reached > 0]
        found.append(
            Contacts(
                ids=ids[rows],
                somas=reached[reached > 0],
                gaps_um=np.full(len(rows), way.gap_um),
                centers_um=np.full(len(rows), way.center_um),
                voxels=index[rows] + frame.corner,
            )
        )
    return Contacts.nearest(found)

"""Which dendrite a spine stands on, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification.objects import Voxels
from respan_quantification.surface import Nearest


@dataclass(frozen=True)
class Base:
    """Where a spine meets its dendrite, or comes nearest to it.

    `voxel_zyx` is the spine's voxel, `dendrite_zyx` the dendrite's. `touches` says whether they
    are among each other's 26 neighbors; `gap_um` is then 0.
    """

    dendrite_id: int
    touches: bool
    gap_um: float
    voxel_zyx: tuple[int, int, int]
    dendrite_zyx: tuple[int, int, int]


def bases(voxels: Voxels, nearest: Nearest, spacing: VoxelSpacing) -> dict[int, Base]:
    """Base of each spine, given every voxel's nearest dendrite voxel.

    A spine belongs to the dendrite that it touches with most voxels; one that touches none, to
    the dendrite whose surface is nearest in µm.
    """
    touching = np.abs(voxels.index_zyx - nearest.index_zyx).max(axis=1, initial=0) <= 1
    return {
        number: _base(voxels.index_zyx[rows], nearest.rows(rows), touching[rows], spacing)
        for number, rows in voxels.groups()
    }


def _base(
    index: NDArray[np.int32], nearest: Nearest, touching: NDArray[np.bool_], spacing: VoxelSpacing
) -> Base:
    if not touching.any():
        row = int(np.lexsort((nearest.center_um, nearest.gap_um))[0])
        return _base_at(row, index, nearest, touches=False)
    dendrites, votes = np.unique(nearest.ids[touching], return_counts=True)
    contact = np.flatnonzero(touching & (nearest.ids == dendrites[np.argmax(votes)]))
    points = spacing.points_um(index[contact] - index[contact[0]])
    off_center = np.linalg.norm(points - points.mean(axis=0), axis=1)
    # A thick neck stands on many voxels: its middle is the base, not its rim.
    row = int(contact[np.lexsort((nearest.center_um[contact], np.round(off_center, 6)))[0]])
    return _base_at(row, index, nearest, touches=True)


def _base_at(row: int, index: NDArray[np.int32], nearest: Nearest, *, touches: bool) -> Base:
    z, y, x = (int(edge) for edge in index[row])
    to_z, to_y, to_x = (int(edge) for edge in nearest.index_zyx[row])
    gap_um = 0.0 if touches else float(nearest.gap_um[row])
    return Base(int(nearest.ids[row]), touches, gap_um, (z, y, x), (to_z, to_y, to_x))

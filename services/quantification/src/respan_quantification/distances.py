"""Distance images: how far every voxel is from the dendrite, and how far along it.

Made block by block; cutting the image into blocks changes no value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, Zyx, grow
from respan_quantification.arrays import inside_distance
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Voxels
from respan_quantification.tree import Tree

# A tenth of a nanometer: a distance's last digit differs with the place in the array.
_DECIMALS = 4
_POINTS_AT_ONCE = 100_000


def halo(reach_um: float, spacing: VoxelSpacing) -> Zyx:
    """Voxels around a block that distances of up to `reach_um` depend on."""
    return spacing.reach(reach_um)


def to_dendrite_um(dendrites: Labels, frame: Frame, reach_um: float) -> NDArray[np.float32]:
    """Distance from every voxel's center to that of the nearest dendrite's voxel.

    Parameters
    ----------
    dendrites
        Over `frame.outer`, which must hold `halo` around `frame.inner`.
    reach_um
        The largest distance that is told apart: farther voxels, and all voxels of an image
        without dendrites, have this value.

    Returns
    -------
    float32 array
        Over `frame.inner`, in µm; 0 inside dendrites.
    """
    needed = grow(frame.inner, halo(reach_um, frame.spacing), frame.shape_zyx)
    assert all(
        have.start <= need.start and need.stop <= have.stop
        for have, need in zip(frame.outer, needed, strict=True)
    ), f"{frame.outer} does not hold the halo {needed}"
    far = inside_distance(dendrites == 0, frame.spacing)
    return np.asarray(
        np.round(np.minimum(far[frame.inner_in_outer], reach_um), _DECIMALS), np.float32
    )


def along_dendrite_um(
    dendrites: Labels, frame: Frame, trees: Mapping[int, Tree]
) -> NDArray[np.float32]:
    """Way along its dendrite's tree, from the root to the place nearest to each voxel.

    Parameters
    ----------
    dendrites
        Over `frame.inner`.
    trees
        Tree of each dendrite; voxels of a dendrite without one have no value.

    Returns
    -------
    float32 array
        Over `frame.inner`, in µm; NaN outside dendrites.
    """
    along = np.full(dendrites.shape, np.nan, np.float32)
    voxels = Voxels.of(dendrites)
    corner = [part.start for part in frame.inner]
    for number, rows in voxels.groups():
        if number not in trees:
            continue
        for start in range(rows.start, rows.stop, _POINTS_AT_ONCE):
            index = voxels.index_zyx[start : min(start + _POINTS_AT_ONCE, rows.stop)]
            points_um = frame.spacing.points_um(index + np.asarray(corner))
            along[tuple(index.T)] = np.round(trees[number].position_um(points_um), _DECIMALS)
    return along

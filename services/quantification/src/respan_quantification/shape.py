"""Volume, surface and extent of objects. The volume is that of the voxels, which is unbiased."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from respan_common.geometry import VoxelSpacing
from respan_quantification import meshes
from respan_quantification.classes import Mask
from respan_quantification.meshes import Mesh

FEWEST_VOXELS = 4
"""Fewer have no shape that a mesh could show: volume and area only."""

MISSING = float("nan")


@dataclass(frozen=True)
class Shape:
    """Measurements of one object; what cannot be measured is NaN.

    `area_um2` is the projection along z; `extent` and `solidity` are volume over bounding box
    and over convex hull; `mesh_um3` is the volume of marching cubes on the bare voxels.
    """

    area_um2: float = MISSING
    volume_um3: float = MISSING
    surface_um2: float = MISSING
    bbox_um3: float = MISSING
    extent: float = MISSING
    solidity: float = MISSING
    convex_um3: float = MISSING
    mesh_um3: float = MISSING

    @property
    def sphericity(self) -> float:
        """Surface of the ball of the same volume over the surface: 1 for a ball, else less."""
        return float(np.pi ** (1 / 3) * (6 * self.volume_um3) ** (2 / 3) / self.surface_um2)

    @property
    def equivalent_diameter_um(self) -> float:
        """Diameter of the ball of the same volume."""
        return float(np.cbrt(6 * self.volume_um3 / np.pi))


def measure(mask: Mask, spacing: VoxelSpacing) -> Shape:
    """Shape of the voxels of a mask, shape (z, y, x); an empty mask has none."""
    return measure_with_mesh(mask, spacing)[0]


def measure_with_mesh(mask: Mask, spacing: VoxelSpacing) -> tuple[Shape, Mesh | None]:
    """Shape of the voxels of a mask, and its mesh (first voxel at 0) if it has one."""
    voxels = int(np.count_nonzero(mask))
    if voxels == 0:
        return Shape(), None
    area_um2 = int(np.count_nonzero(mask.any(axis=0))) * spacing.y_um * spacing.x_um
    volume_um3 = voxels * spacing.voxel_volume_um3
    if voxels < FEWEST_VOXELS:
        return Shape(area_um2=area_um2, volume_um3=volume_um3), None
    mesh = meshes.of_mask(mask, spacing)
    bbox_um3 = float(np.ptp(mesh.vertices_um, axis=0).prod())
    convex_um3 = _hull_um3(mesh.vertices_um)
    found = Shape(
        area_um2=area_um2,
        volume_um3=volume_um3,
        surface_um2=mesh.surface_um2,
        bbox_um3=bbox_um3,
        extent=volume_um3 / bbox_um3,
        solidity=volume_um3 / convex_um3,
        convex_um3=convex_um3,
        mesh_um3=meshes.bare_volume_um3(mask, spacing),
    )
    return found, mesh


def _hull_um3(vertices: NDArray[np.float64]) -> float:
    try:
        return float(ConvexHull(vertices).volume)
    except QhullError:
        return MISSING


def asymmetries(
    index_zyx: NDArray[np.integer], starts: NDArray[np.int64], spacing: VoxelSpacing
) -> NDArray[np.float64]:
    """1 - shortest / longest principal axis of many objects: 0 for a ball.

    Parameters
    ----------
    index_zyx : int array, shape (n, 3)
        Voxels, object by object.
    starts : int array, shape (objects,)
        First row of each object.
    """
    if not len(starts):
        return np.zeros(0)
    counts = np.diff(np.append(starts, len(index_zyx)))
    # From a voxel of the object itself: where in the image it lies must not change the rounding.
    points = (index_zyx - np.repeat(index_zyx[starts], counts, axis=0)) * np.asarray(spacing.zyx)
    mean = np.add.reduceat(points, starts, axis=0) / counts[:, None]
    off = points - np.repeat(mean, counts, axis=0)
    products = np.einsum("ij,ik->ijk", off, off)
    spread = np.add.reduceat(products, starts, axis=0) / counts[:, None, None]
    # A voxel is a box, not a point: without its own spread a flat object would have no thickness.
    spread += np.diag(np.square(spacing.zyx) / 12)
    axes = np.sqrt(np.linalg.eigvalsh(spread))
    return np.asarray(1 - axes[:, 0] / axes[:, 2])

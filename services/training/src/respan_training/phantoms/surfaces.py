"""Surfaces of spines, as their solids have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from respan_training.phantoms.solids import Cones, Points, union_distance_um
from respan_training.phantoms.spines import Spine

STEPS_UM = (0.01, 0.03)
"""Least and greatest edge of the cells in which a surface is sought."""


@dataclass(frozen=True)
class Surface:
    """Closed triangle mesh; its faces look outwards when coordinates are taken as x, y, z.

    Attributes
    ----------
    vertices_um : float64, shape (n, 3)
        (z, y, x)
    faces : int64, shape (m, 3)
    """

    vertices_um: Points
    faces: NDArray[np.int64]

    def write(self, path: Path) -> None:
        """Write as PLY (or what the suffix says); x, y, z in µm."""
        mesh = trimesh.Trimesh(self.vertices_um[:, ::-1], self.faces, process=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh.export(path)


def spine_surface(spine: Spine, shafts: Cones) -> Surface:
    """Surface of head and neck outside of all shafts.

    Marching cubes on the solids' own distance: vertices are off by the square of a cell's edge over
    eight radii, which is below 1 nm for heads.
    """
    radius_um = spine.neck_radius_um or spine.head.across_um
    step_um = float(np.clip(radius_um / 2, *STEPS_UM))
    low_um, high_um = spine.low_um - 2 * step_um, spine.high_um + 2 * step_um
    z, y, x = (
        np.arange(low, high + step_um, step_um) for low, high in zip(low_um, high_um, strict=True)
    )
    at = (z[:, None, None], y[:, None], x)
    own_um = np.minimum(spine.head.distance_um(*at), union_distance_um(*at, spine.neck))
    shaft_um = union_distance_um(*at, shafts.near(low_um[None], high_um[None]))
    outside_um = np.maximum(own_um, -shaft_um)
    # A corner of a cell on the surface itself would give triangles without area, and holes.
    least_um = 1e-3 * step_um
    outside_um[np.abs(outside_um) < least_um] = least_um
    vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        outside_um, 0.0, spacing=(step_um,) * 3, gradient_direction="ascent"
    )
    return Surface(vertices + low_um, np.asarray(faces, dtype=np.int64))

"""Closed, smooth surfaces of objects, by marching cubes on a field made from their voxels.

Marching cubes on a bare 0/1 mask keeps the grid's steps, and with coarse slices whole terraces: at
1 × 0.1 × 0.1 µm a ball's surface comes out 30 % too large. So the mask becomes a smooth field
first. Where voxels are nearly cubes it is blurred. Where slices are coarse, the outlines of
neighboring slices are interpolated by their distances (Raya and Udupa, 1990). The surface is
then laid, and scaled a little, so that it holds exactly the voxels' volume, which is unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from skimage.measure import marching_cubes

from respan_common.geometry import VoxelSpacing
from respan_quantification.classes import Mask

Floats = NDArray[np.float64]
Field = NDArray[np.float32]

BLUR_VOXELS = 0.7
"""Standard deviation: the least that removes the grid's steps from a ball's surface."""

COARSE = 1.5
"""Slices thicker than this many voxel edges are interpolated."""

_MARGIN = 3
"""Voxels of background around a mask, beyond the reach of the blur."""

_THIN = 0.7
"""Where nothing around it stays brighter after the blur, a voxel belongs to something two voxels
wide or less, such as a neck."""

_THIN_STAYS = 0.55
"""Value of such voxels, a little above the surface's level: a neck is not blurred away."""

_LEAST_OFF = 0.01
"""How far a voxel's value stays from the surface's level: of 1 (a mask or a probability), or of
the shortest voxel edge (a distance)."""

_MOST_BETWEEN = 4
"""Interpolated slices per slice."""


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes
    ----------
    vertices_um : float array, shape (V, 3)
        Points (z, y, x).
    faces : int array, shape (F, 3)
        Rows of `vertices_um`; seen from outside, in a right-handed frame (x, y, z), they turn
        counterclockwise.
    """

    vertices_um: Floats
    faces: NDArray[np.int64]

    @property
    def volume_um3(self) -> float:
        """Enclosed volume, by the divergence theorem; negative if the faces look inwards."""
        x, y, z = self._columns()
        (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = x, y, z
        flux = x0 * (y1 * z2 - z1 * y2) - y0 * (x1 * z2 - z1 * x2) + z0 * (x1 * y2 - y1 * x2)
        return float(flux.sum() / 6)

    @property
    def surface_um2(self) -> float:
        """Area of all triangles."""
        (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = self._columns()
        ax, ay, az, bx, by, bz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
        normal = (ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2
        return float(np.sqrt(normal).sum() / 2)

    def _columns(self) -> tuple[Floats, Floats, Floats]:
        """Coordinates x, y, z of the faces' corners, each of shape (3, F), from a near origin."""
        near = self.vertices_um - self.vertices_um[0]
        z, y, x = near.T[:, self.faces.T]
        return x, y, z

    def scaled_to(self, volume_um3: float) -> Mesh:
        """The mesh blown up about its center until it holds this volume."""
        center = self.vertices_um.mean(axis=0)
        growth = np.cbrt(volume_um3 / self.volume_um3)
        return Mesh(center + growth * (self.vertices_um - center), self.faces)

    def moved(self, way_um: Floats) -> Mesh:
        """The mesh elsewhere."""
        return Mesh(self.vertices_um + way_um, self.faces)


def of_mask(mask: Mask, spacing: VoxelSpacing) -> Mesh:
    """Surface of an object; it is closed also where the object touches the array's faces.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
        At least one voxel. The first voxel's center is at 0.
    """
    coarse = int(np.argmax(spacing.zyx))
    if spacing.zyx[coarse] > COARSE * min(spacing.zyx):
        field, edges, margin = _between_slices(mask, spacing, coarse)
        unit = min(spacing.zyx)
    else:
        field, edges, margin, unit = _blurred(mask), spacing.zyx, (_MARGIN,) * 3, 1.0
    volume_um3 = int(np.count_nonzero(mask)) * spacing.voxel_volume_um3
    level = _level(field, volume_um3 / float(np.prod(edges)))
    mesh = _isosurface(field, level, edges, unit)
    return mesh.scaled_to(volume_um3).moved(-np.multiply(margin, spacing.zyx))


def of_field(field: NDArray[np.floating], spacing: VoxelSpacing, level: float = 0.5) -> Mesh | None:
    """Surface where a smooth field, such as a probability, crosses a level.

    Parameters
    ----------
    field : float array, shape (z, y, x)
        Around one object; outside of the array it counts as its least value.

    Returns
    -------
    Mesh or None
        The first voxel's center is at 0. None if nothing is above the level.
    """
    padded = np.pad(np.asarray(field, np.float32), 1, constant_values=min(field.min(), level - 1))
    if not (padded > level).any():
        return None
    return _isosurface(padded, level, spacing.zyx).moved(-np.asarray(spacing.zyx))


def bare_volume_um3(mask: Mask, spacing: VoxelSpacing) -> float:
    """Volume of marching cubes on the mask itself, as RESPAN has it: corners are cut off."""
    return _isosurface(np.pad(mask, 1).astype(np.float32), 0.5, spacing.zyx).volume_um3


def _isosurface(field: Field, level: float, edges: tuple[float, ...], unit: float = 1.0) -> Mesh:
    # Where a voxel has just the level's value, triangles shrink to points, and programs that merge
    # near points find holes: such voxels get a value a little beside it.
    off = field - np.float32(level)
    least = np.float32(_LEAST_OFF * unit)
    off = np.where(np.abs(off) < least, np.where(off < 0, -least, least), off)
    found = marching_cubes(off, 0.0, spacing=edges)  # type: ignore[no-untyped-call]
    return Mesh(np.asarray(found[0], np.float64), np.asarray(found[1], np.int64))


def _level(field: Field, voxels: float) -> float:
    """Level above which as many of the field's voxels lie; between two values of the field."""
    count = min(max(round(voxels), 1), field.size - 1)
    ranked = np.partition(field.ravel(), (field.size - count - 1, field.size - count))
    below, above = ranked[field.size - count - 1], ranked[field.size - count]
    level = (float(below) + float(above)) / 2
    return level if below < above else np.nextafter(np.float32(level), np.float32(-np.inf))


def _blurred(mask: Mask) -> Field:
    padded = np.pad(mask, _MARGIN)
    blurred = gaussian_filter(padded.astype(np.float32), BLUR_VOXELS)
    thin = padded & (maximum_filter(blurred, 3) < _THIN)
    blurred[thin] = np.maximum(blurred[thin], np.float32(_THIN_STAYS))
    return blurred


def _between_slices(
    mask: Mask, spacing: VoxelSpacing, axis: int
) -> tuple[Field, tuple[float, ...], tuple[int, ...]]:
    """Signed distance to the outlines in each slice, interpolated between slices; µm, inside > 0.

    Returns
    -------
    field, edges, margin
        The field, the edges of its voxels in µm, and how many of the mask's voxels it begins
        before the mask.
    """
    fine_um = min(spacing.zyx)
    margin = [_MARGIN] * 3
    margin[axis] = 2
    slices = np.moveaxis(np.pad(mask, [(m, m) for m in margin]), axis, 0)
    in_slice = [edge for a, edge in enumerate(spacing.zyx) if a != axis]
    outlines = _outlines(np.ascontiguousarray(slices), in_slice)
    pieces = min(max(round(spacing.zyx[axis] / fine_um / 2), 2), _MOST_BETWEEN)
    place = np.arange((len(outlines) - 1) * pieces + 1) / pieces
    below = np.minimum(place.astype(np.int64), len(outlines) - 2)
    share = (place - below).astype(np.float32)[:, None, None]
    field = outlines[below] * (1 - share) + outlines[below + 1] * share
    piece_um = spacing.zyx[axis] / pieces
    field = gaussian_filter(field, BLUR_VOXELS * fine_um / np.array([piece_um, *in_slice]))
    edges = list(spacing.zyx)
    edges[axis] = piece_um
    return np.moveaxis(field, 0, axis), tuple(edges), tuple(margin)


def _outlines(slices: Mask, in_slice_um: list[float]) -> Field:
    """Signed distance to the outline in each slice, µm; beyond the last slice it falls to a tip."""
    # Distances across slices are made so large that none of them is the smallest.
    edges = (1e6, *in_slice_um)
    # Two labels: from inside to the outside and from outside to the inside at once.
    apart = edt.edt(slices.view(np.uint8) + np.uint8(1), anisotropy=edges, parallel=1)
    half_um = np.float32(min(in_slice_um) / 2)
    signed = np.where(slices, apart - half_um, half_um - apart)
    filled = np.asarray(slices.any(axis=(1, 2)))
    full = np.flatnonzero(filled)
    for empty in np.flatnonzero(~filled).tolist():
        near = [*full[full < empty][-1:], *full[full > empty][:1]]
        # A cone with its tip in the middle of the first empty slice, and on from there.
        cones = [signed[n] - abs(empty - n) * signed[n].max() for n in near]
        signed[empty] = np.max(cones, axis=0)
    return np.asarray(signed, np.float32)

"""Dendrites around known curves, as voxels. Points are (z, y, x) in µm, voxel (0, 0, 0) at 0."""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.growth import Contact, grow_tree
from respan_quantification.tree import Tree

Points = NDArray[np.float64]
Voxels = NDArray[np.int64]

FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)
TWO_PHOTON = VoxelSpacing(1.0, 0.102, 0.102)
TENFOLD = VoxelSpacing(1.0, 0.1, 0.1)


def line(start: Sequence[float], stop: Sequence[float]) -> Points:
    """Dense points of a straight curve."""
    a, b = np.asarray(start, float), np.asarray(stop, float)
    count = int(np.ceil(np.linalg.norm(b - a) / 0.02)) + 1
    return a + np.linspace(0, 1, count)[:, None] * (b - a)


def arc(radius: float, angle: float) -> Points:
    """Dense points of a part of a circle in the plane of y and x."""
    at = np.linspace(0, angle, int(np.ceil(radius * angle / 0.02)) + 1)
    return np.stack([np.zeros_like(at), radius * np.sin(at), radius * np.cos(at)], axis=1)


def helix(radius: float, pitch: float, turns: float) -> Points:
    """Dense points of a helix around z."""
    at = np.linspace(
        0, 2 * np.pi * turns, int(np.ceil(turns * (2 * np.pi * radius + pitch) / 0.02))
    )
    return np.stack([pitch * at / (2 * np.pi), radius * np.sin(at), radius * np.cos(at)], axis=1)


def curve_length(curve: Points) -> float:
    return float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum())


def rotation(rng: np.random.Generator) -> Points:
    """A random rotation of space."""
    matrix, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(upper))
    return np.asarray(matrix * np.sign(np.linalg.det(matrix)))


def tube(curve: Points, radius: float, spacing: VoxelSpacing) -> Voxels:
    """Voxels whose centers lie within `radius` of the curve; the ends are flat."""
    reach = np.asarray(spacing.reach(radius))
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1)
    stride = max(int(min(spacing.zyx) / 0.02 / 2), 1)
    middles = np.unique(np.rint(curve[::stride] / spacing.zyx).astype(np.int64), axis=0)
    low = middles.min(axis=0) - reach
    near = np.zeros(middles.max(axis=0) + reach - low + 1, bool)
    for offset in offsets.reshape(-1, 3):
        near[tuple((middles + offset - low).T)] = True
    voxels = np.argwhere(near) + low
    points = spacing.points_um(voxels)
    distance, row = cKDTree(curve).query(points)
    before = np.einsum("ij,j->i", points - curve[0], curve[1] - curve[0]) < -1e-9
    after = np.einsum("ij,j->i", points - curve[-1], curve[-1] - curve[-2]) > 1e-9
    beyond = ((row == 0) & before) | ((row == len(curve) - 1) & after)
    return voxels[(distance <= radius + 1e-9) & ~beyond]


def ball(center: Sequence[float], radius: float, spacing: VoxelSpacing) -> Voxels:
    point = np.asarray(center, float)
    return tube(np.stack([point, point]), radius, spacing)


def union(*parts: Voxels) -> Voxels:
    return np.unique(np.concatenate(parts), axis=0)


def grown(
    voxels: Voxels,
    spacing: VoxelSpacing,
    factor: tuple[int, int, int] = (1, 1, 1),
    contact: Contact | None = None,
    margin: int = 1,
) -> Tree:
    """Tree of these voxels of the whole image; without a margin its faces cut them."""
    corner = voxels.min(axis=0) - margin
    mask = np.zeros(voxels.max(axis=0) - corner + 1 + margin, bool)
    mask[tuple((voxels - corner).T)] = True
    inside = edt.edt(mask, anisotropy=spacing.zyx, black_border=False)[tuple((voxels - corner).T)]
    inside = np.minimum(inside, np.linalg.norm(np.multiply(mask.shape, spacing.zyx)))
    cells, row = np.unique(voxels // factor, axis=0, return_inverse=True)
    radius = np.zeros(len(cells))
    np.maximum.at(radius, row.ravel(), inside)
    return grow_tree(cells, radius, factor, voxels, spacing, contact)

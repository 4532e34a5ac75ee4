"""Spine instances: which head voxels belong to one spine.

Plan: components first. Where the model predicts cores (RESPAN's type 4), each core is a spine
and grows into the shell around it. Elsewhere touching spines are cut at their waist: a spine has
a thickest place, and between two of them the distance to the background dips.
"""

from __future__ import annotations

from collections.abc import Callable

import edt
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from respan_common.geometry import Box, VoxelSpacing, grow
from respan_common.params import QuantificationParams
from respan_quantification.classes import Mask
from respan_quantification.objects import Labels, Voxels, boxes, components

BLUR_VOXELS = 0.7
"""Standard deviation of the blur that rounds a mask's steps off."""

_MOST_FINE_VOXELS = 2**24
"""A component whose box is larger on the finer grid is no cluster of spines, but noise or a cell;
it is divided on the image's own grid, in bounded time and memory."""

FULL = np.ones((3, 3, 3), dtype=bool)
"""26 neighbors."""


def divide(
    heads: Mask, cores: Mask | None, spacing: VoxelSpacing, params: QuantificationParams
) -> Labels:
    """Number every putative spine among head voxels, 1..N, before any filter.

    Parameters
    ----------
    heads : bool array, shape (z, y, x)
        Whole components, with a margin of background where they do not touch the image's faces.
    cores
        Voxels of cores, where the model predicts them: a component without one is no spine.
    """
    pieces = components(heads)
    if cores is not None:
        return _replace_parts(
            pieces, lambda mask, box: _grow_cores(mask, cores[box] & mask, spacing)
        )
    if params.spine_splitting == "connected":
        return pieces
    return _replace_parts(pieces, lambda mask, box: split_at_waists(mask, spacing, params))


def split_at_waists(mask: Mask, spacing: VoxelSpacing, params: QuantificationParams) -> Labels:
    """Parts of one component, numbered 1..N, cut where it is narrow.

    A part that would be too small for a spine is no spine: its seed is dropped and its
    neighbors take its voxels.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
        One component, with a margin of background where it does not touch the image's faces.
    """
    inside_um = inside_distance_um(mask, spacing)
    seeds = mask.astype(np.int32)
    if _count(local_maxima(inside_um, connectivity=3)) > 1:  # type: ignore[no-untyped-call]
        seeds = _seeds(mask, spacing, params.split_merge_depth_um)
    smallest = spacing.voxels_in(params.min_spine_volume_um3)
    while True:
        parts = np.asarray(watershed(-inside_um, seeds, mask=mask, connectivity=FULL), np.uint32)  # type: ignore[no-untyped-call]
        counts = np.bincount(parts.ravel())[1:]
        if len(counts) < 2 or counts.min() >= smallest:
            return parts
        # The smallest first, but half of them at a time: a field of specks has thousands.
        small = np.flatnonzero(counts < smallest)
        dropped = small[np.argsort(counts[small], kind="stable")][: max(len(small) // 2, 1)]
        seeds[np.isin(seeds, dropped + 1)] = 0
        seeds = _renumber(seeds)


def inside_distance_um(mask: Mask, spacing: VoxelSpacing) -> NDArray[np.float32]:
    """Distance of each mask voxel to the nearest background voxel's center; 0 outside.

    The array's faces are not background. In an array without any background every distance is
    the array's diagonal, which is larger than any real one.
    """
    distance = edt.edt(np.ascontiguousarray(mask), anisotropy=spacing.zyx, black_border=False)
    diagonal = float(np.linalg.norm(np.multiply(mask.shape, spacing.zyx)))
    return np.asarray(np.minimum(distance, diagonal), dtype=np.float32)


def _seeds(mask: Mask, spacing: VoxelSpacing, depth_um: float) -> NDArray[np.int32]:
    """One numbered voxel in each thickest place.

    Distances between voxel centers jump by a voxel from one cross section to the next, which
    hides a shallow waist and carves false ones. They are taken on a grid of half a voxel through
    the blurred mask instead.
    """
    fine_um = min(spacing.zyx) / 2
    factors = [max(round(edge / fine_um), 1) for edge in spacing.zyx]
    if mask.size * np.prod(factors) > _MOST_FINE_VOXELS:
        fine_um, factors = max(spacing.zyx), [1, 1, 1]
    blurred = gaussian_filter(mask.astype(np.float32), BLUR_VOXELS)
    level = np.float32(min(0.5, 0.6 * float(blurred.max())))
    finer = zoom(blurred, factors, order=1, grid_mode=True, mode="nearest") > level
    inside_um = inside_distance_um(finer, VoxelSpacing(*np.divide(spacing.zyx, factors)))
    peaks = components(_deep_maxima(inside_um, max(depth_um, 1.01 * fine_um)))
    voxels = Voxels.of(peaks)
    index = voxels.index_zyx[voxels.starts] // factors
    inside = mask[tuple(index.T)]
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(index[inside].T)] = np.arange(1, inside.sum() + 1)
    return seeds if seeds.any() else mask.astype(np.int32)


def _deep_maxima(inside_um: NDArray[np.float32], depth_um: float) -> Mask:
    """Maxima that rise at least `depth_um` above the pass to a higher one (h-maxima)."""
    lowered = np.maximum(inside_um - np.float32(depth_um), 0)
    flooded = reconstruction(lowered, inside_um, footprint=FULL)  # type: ignore[no-untyped-call]
    peaks = local_maxima(flooded, connectivity=3)  # type: ignore[no-untyped-call]
    return np.asarray(peaks & (inside_um > 0), dtype=np.bool_)


def _count(mask: Mask) -> int:
    return int(components(np.asarray(mask, dtype=bool)).max(initial=0))


def _renumber(seeds: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.unique(seeds, return_inverse=True)[1].reshape(seeds.shape).astype(np.int32)


def _grow_cores(mask: Mask, core: Mask, spacing: VoxelSpacing) -> Labels:
    """Cores grow through core and shell; a shell without any core stays unlabelled."""
    seeds = components(core).astype(np.int32)
    if not core.any():
        return seeds.astype(np.uint32)
    outward_um = inside_distance_um(~core, spacing)
    return np.asarray(watershed(outward_um, seeds, mask=mask, connectivity=FULL), np.uint32)  # type: ignore[no-untyped-call]


def _replace_parts(labels: Labels, divide: Callable[[Mask, Box], Labels]) -> Labels:
    """Divide each component in its own box and number all parts 1..N."""
    result = np.zeros_like(labels)
    parts_so_far = 0
    for number, tight in boxes(labels).items():
        box = grow(tight, (1, 1, 1), labels.shape)
        mask = labels[box] == number
        parts = divide(mask, box)
        result[box][mask] = np.where(parts[mask] > 0, parts[mask] + parts_so_far, 0)
        parts_so_far += int(parts.max(initial=0))
    return result

"""Spine instances: which head voxels belong to one spine.

Plan: components first. Where the model predicts cores (RESPAN's type 4), each core is a spine
and grows into the shell around it. Elsewhere touching spines are cut at their waist: a spine has
a thickest place, and between two of them the distance to the background dips. What has no waist is
cut where the image darkens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from respan_common.geometry import Box, VoxelSpacing, grow
from respan_common.neighbors import touching_parts
from respan_common.params import QuantificationParams
from respan_quantification.arrays import inside_distance
from respan_quantification.classes import Mask
from respan_quantification.dips import split_at_dips
from respan_quantification.objects import Labels, boxes, components
from respan_quantification.waists import Waist, halves, waist

BLUR_VOXELS = 0.7
"""Standard deviation of the blur that rounds a mask's steps off."""

_MOST_CANDIDATES = 64
"""A component with more thick places is no cluster of spines, but noise or a cell; it is divided
by its thickness alone, in bounded time."""

Look = Callable[[NDArray[np.bool_], NDArray[np.bool_]], Waist]
"""Judges the waist between two parts, given as flags of voxels."""

FULL = np.ones((3, 3, 3), dtype=bool)
"""26 neighbors."""


def divide(
    heads: Mask,
    cores: Mask | None,
    grey: NDArray[Any],
    spacing: VoxelSpacing,
    params: QuantificationParams,
) -> Labels:
    """Number every putative spine among head voxels, 1..N, before any filter.

    Parameters
    ----------
    heads : bool array, shape (z, y, x)
        Whole components, with a margin of background where they do not touch the image's faces.
    cores
        Voxels of cores, where the model predicts them: a component without one is no spine.
    grey : same shape as `heads`
        The neuron's channel.
    """
    pieces = components(heads)
    smallest = spacing.voxels_in(params.min_spine_volume_um3)
    if cores is not None:
        return _replace_parts(
            pieces, lambda mask, box: _grow_cores(mask, cores[box] & mask, spacing, smallest)
        )
    if params.spine_splitting == "connected":
        return pieces

    def cut(mask: Mask, box: Box) -> Labels:
        parts, light = split_at_waists(mask, spacing, params), grey[box]
        return _replace_parts(
            parts, lambda part, inside: split_at_dips(part, light[inside], spacing, smallest)
        )

    return _replace_parts(pieces, cut)


def split_at_waists(mask: Mask, spacing: VoxelSpacing, params: QuantificationParams) -> Labels:
    """Parts of one component, numbered 1..N, cut where it is narrow.

    Its thickest places are candidates, and so are the halves of what they give. A cut between
    two parts is kept if both look like spines that touch (see `waists`).

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
        One component, with a margin of background where it does not touch the image's faces.
    """
    index = np.argwhere(mask)
    smallest = spacing.voxels_in(params.min_spine_volume_um3)
    if len(index) < 2 * smallest:
        return mask.astype(np.uint32)
    candidates = _thick_places(mask, spacing)
    if candidates.max() > _MOST_CANDIDATES:
        return _without_small_parts(mask, candidates, -inside_distance_um(mask, spacing), smallest)
    points = spacing.points_um(index)

    def look(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Waist:
        return waist(
            points[first],
            points[second],
            spacing,
            params.split_merge_depth_um,
            params.min_spine_volume_um3,
        )

    parts = _merged(candidates, mask, look)
    pieces = [piece for part in parts for piece in _bisected(part, points, look)]
    labels = np.zeros(mask.shape, dtype=np.uint32)
    for number, piece in enumerate(pieces, start=1):
        labels[tuple(index[piece].T)] = number
    return labels


def _thick_places(mask: Mask, spacing: VoxelSpacing) -> Labels:
    """Each voxel's thickest place, 1..N: basins of the smoothed distance to the background."""
    inside_um = gaussian_filter(inside_distance_um(mask, spacing), BLUR_VOXELS)
    peaks = local_maxima(np.where(mask, inside_um, 0), connectivity=3)  # type: ignore[no-untyped-call]
    seeds = components(np.asarray(peaks & mask, dtype=bool)).astype(np.int32)
    return np.asarray(watershed(-inside_um, seeds, mask=mask, connectivity=FULL), np.uint32)  # type: ignore[no-untyped-call]


def _merged(candidates: Labels, mask: Mask, look: Look) -> list[NDArray[np.bool_]]:
    """Parts between which all cuts are waists; the least of the others are healed first."""
    owner = candidates[mask]
    parts = {int(number): owner == number for number in np.unique(owner)}
    pairs = {pair: look(parts[pair[0]], parts[pair[1]]) for pair in _neighbors(candidates)}
    while any(not found.splits for found in pairs.values()):
        one, other = max(
            (pair for pair, found in pairs.items() if not found.splits),
            key=lambda pair: (pairs[pair].dip, pair),
        )
        parts[one] = parts[one] | parts.pop(other)
        around = {number for pair in pairs if {one, other} & set(pair) for number in pair}
        pairs = {pair: found for pair, found in pairs.items() if not {one, other} & set(pair)}
        for number in sorted(around - {one, other}):
            pair = (min(one, number), max(one, number))
            pairs[pair] = look(parts[pair[0]], parts[pair[1]])
    return list(parts.values())


def _neighbors(labels: Labels) -> list[tuple[int, int]]:
    """Pairs of labels of which some voxels are 26-neighbors."""
    pairs = set()
    for here, there in touching_parts(labels.shape):
        one, other = labels[here], labels[there]
        touch = (one != other) & (one > 0) & (other > 0)
        if touch.any():
            both = np.sort(np.stack([one[touch], other[touch]], axis=1), axis=1)
            pairs |= {(int(a), int(b)) for a, b in np.unique(both, axis=0)}
    return sorted(pairs)


def _bisected(
    part: NDArray[np.bool_], points: NDArray[np.float64], look: Look
) -> list[NDArray[np.bool_]]:
    """Pieces of a part that are cut again and again as long as halves look like spines."""
    rows = np.flatnonzero(part)
    if len(rows) < 2:
        return [part]
    second = np.zeros(len(part), dtype=bool)
    second[rows[halves(points[rows])]] = True
    first = part & ~second
    if not first.any() or not second.any():
        return [part]
    found = look(first, second)
    center = points[first].mean(axis=0)
    way = points[second].mean(axis=0) - center
    beyond = (points - center) @ way > found.cut_um * np.linalg.norm(way)
    first, second = part & ~beyond, part & beyond
    if not first.any() or not second.any() or not look(first, second).splits:
        return [part]
    return _bisected(first, points, look) + _bisected(second, points, look)


def _without_small_parts(
    mask: Mask, parts: Labels, height: NDArray[np.float32], smallest: float
) -> Labels:
    """Parts that are too small for a spine go to their neighbors, in the order of `height`."""
    while True:
        counts = np.bincount(parts.ravel())[1:]
        if len(counts) < 2 or counts.min() >= smallest:
            return parts
        # The smallest first, but half of them at a time: a field of specks has thousands.
        small = np.flatnonzero(counts < smallest)
        dropped = small[np.argsort(counts[small], kind="stable")][: max(len(small) // 2, 1)]
        seeds = parts.astype(np.int32)
        seeds[np.isin(parts, dropped + 1)] = 0
        seeds = _renumber(seeds)
        parts = np.asarray(watershed(height, seeds, mask=mask, connectivity=FULL), np.uint32)  # type: ignore[no-untyped-call]


def inside_distance_um(mask: Mask, spacing: VoxelSpacing) -> NDArray[np.float32]:
    """Distance of each mask voxel to the nearest background voxel's center; 0 outside.

    The array's faces are not background. In an array without any background every distance is
    the array's diagonal, which is larger than any real one.
    """
    distance = inside_distance(mask, spacing)
    diagonal = float(np.linalg.norm(np.multiply(mask.shape, spacing.zyx)))
    return np.asarray(np.minimum(distance, diagonal), dtype=np.float32)


def _renumber(seeds: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.unique(seeds, return_inverse=True)[1].reshape(seeds.shape).astype(np.int32)


def _grow_cores(mask: Mask, core: Mask, spacing: VoxelSpacing, smallest: float) -> Labels:
    """Cores grow through core and shell; a shell without any core stays unlabelled.

    A speck of core that gets too little for a spine is none: its neighbors take it.
    """
    seeds = components(core).astype(np.int32)
    if not core.any():
        return seeds.astype(np.uint32)
    outward_um = inside_distance_um(~core, spacing)
    parts = np.asarray(watershed(outward_um, seeds, mask=mask, connectivity=FULL), np.uint32)  # type: ignore[no-untyped-call]
    return _without_small_parts(mask, parts, outward_um, smallest)


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

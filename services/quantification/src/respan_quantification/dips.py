"""Spines that touch in the mask, but between which the image darkens.

A model calls the voxels between two heads spine as well, since the blur of both is bright there. A
waist need not be left, but a dip of the light is, or nobody would see two spines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from respan_common.geometry import VoxelSpacing
from respan_common.neighbors import touching_parts
from respan_common.saddles import Saddles, keep_brightest, renamed
from respan_quantification.classes import Mask
from respan_quantification.objects import Labels, components

DEEP = 0.2
"""Least depth of a dip, as a share of the dimmer peak's height above the object's darkest place."""

NOISES = 3.0
"""... and in standard deviations of the noise that smoothing leaves."""

EVEN = 1e-4
"""... and as a share of the brightest value: less is rounding."""

_MOST_PEAKS = 64
"""A component with more is no cluster of spines, but noise or a cell."""

_FULL = np.ones((3, 3, 3), dtype=bool)


def split_at_dips(mask: Mask, grey: NDArray[Any], spacing: VoxelSpacing, smallest: float) -> Labels:
    """Parts of one component, numbered 1..N, between which the image has a dip.

    Only the component's own grey values count: what lies around it changes nothing.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
    grey : same shape
    smallest
        Voxels of a part, at least.
    """
    whole = mask.astype(np.uint32)
    if mask.sum() < 2 * smallest:
        return whole
    light, noise = _smoothed(mask, np.nan_to_num(np.asarray(grey, np.float32)), spacing)
    peaks = local_maxima(np.where(mask, light, light[mask].min() - 1), connectivity=3)  # type: ignore[no-untyped-call]
    seeds = components(np.asarray(peaks & mask, dtype=bool)).astype(np.int32)
    if not 2 <= seeds.max() <= _MOST_PEAKS:
        return whole
    parts = np.asarray(watershed(-light, seeds, mask=mask, connectivity=_FULL), np.uint32)  # type: ignore[no-untyped-call]
    low, high = float(light[mask].min()), float(np.abs(light[mask]).max())
    return _merged(parts, light, low, max(NOISES * noise, EVEN * high), smallest)


def _smoothed(
    mask: Mask, grey: NDArray[np.float32], spacing: VoxelSpacing
) -> tuple[NDArray[np.float32], float]:
    """Mean of each voxel's neighbors in the mask, and the noise that is left in it.

    The neighborhood is as small as the finest voxels; slices that are thick are not mixed.
    """
    sigma = min(spacing.zyx) / np.asarray(spacing.zyx)
    weight = gaussian_filter(mask.astype(np.float32), sigma)
    summed = gaussian_filter(np.where(mask, grey, 0), sigma)
    light = np.divide(summed, weight, out=np.zeros_like(grey), where=mask)
    point = np.zeros((9, 9, 9))
    point[4, 4, 4] = 1
    kernel = gaussian_filter(point, sigma)
    kept = float(np.square(kernel).sum())
    # The rest of a voxel's noise after the mean, which holds a part of it, is taken away.
    rest = 1 - 2 * float(kernel[4, 4, 4]) + kept
    variance = float(np.square(grey - light)[mask].mean()) / rest
    return light, float(np.sqrt(variance * kept))


def _merged(
    parts: Labels, light: NDArray[np.float32], floor: float, least: float, smallest: float
) -> Labels:
    """Parts between which every saddle is a dip; the shallowest of the others are filled first."""
    sizes = np.bincount(parts.ravel()).astype(np.float64)
    peaks = np.zeros(len(sizes))
    np.maximum.at(peaks, parts.ravel(), np.where(parts > 0, light, 0).ravel())
    owner = np.arange(len(sizes))
    saddles = _saddles(parts, light)

    def depth(pair: tuple[int, int]) -> float:
        """Of a dip, over what it must be; 0 beside a part that is too small."""
        lower = min(peaks[list(pair)])
        enough = max(DEEP * (lower - floor), least)
        is_large = min(sizes[list(pair)]) >= smallest
        return (lower - saddles[pair]) / enough if is_large and enough > 0 else 0.0

    while saddles:
        pair = min(saddles, key=lambda pair: (depth(pair), pair))
        if depth(pair) >= 1:
            break
        kept, gone = pair
        owner[owner == gone] = kept
        peaks[kept], sizes[kept] = max(peaks[list(pair)]), sizes[kept] + sizes[gone]
        saddles = renamed(saddles, gone, kept)
    numbers = np.unique(owner[1:])
    return np.asarray(np.searchsorted(numbers, owner)[parts] + 1, np.uint32) * (parts > 0)


def _saddles(parts: Labels, light: NDArray[np.float32]) -> Saddles:
    found: Saddles = {}
    for here, there in touching_parts(parts.shape):
        one, other = parts[here], parts[there]
        touch = (one != other) & (one > 0) & (other > 0)
        lower = np.minimum(light[here], light[there])[touch]
        keep_brightest(found, zip(one[touch], other[touch], lower, strict=True))
    return found

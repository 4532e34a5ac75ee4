"""Which spines that touch in an image can be told apart in it.

Two things are seen where the light dips between them (Rayleigh's and Sparrow's criteria differ in
how much); where it does not, everybody draws one, however many there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from respan_common.neighbors import HALF_OF_26
from respan_common.saddles import Saddles, keep_brightest, renamed
from respan_training.phantoms.raster import Image

APART = 0.9
"""Least light on the way between two spines, at most, as a share of the dimmer one's peak."""


def seen_as(
    index: NDArray[np.intp], numbers: NDArray[np.uint32], light: Image, count: int
) -> NDArray[np.uint32]:
    """The spine that each of 0..count is drawn as: itself, or the brightest of those it melts into.

    Parameters
    ----------
    index : int, shape (n, 3)
        Voxels of spines, in rising order (z, y, x).
    numbers : uint32, shape (n,)
        Spine of each voxel.
    light : float32, shape (n,)
        Sharp light of everything there.
    """
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, numbers, light)
    passes = _passes(index, numbers, light)
    seen = np.arange(count + 1, dtype=np.uint32)
    while passes:
        one, other = max(passes, key=lambda pair: passes[pair] / min(peaks[list(pair)]))
        if passes[one, other] <= APART * min(peaks[one], peaks[other]):
            break
        kept, gone = (one, other) if peaks[one] >= peaks[other] else (other, one)
        seen[seen == gone] = kept
        passes = renamed(passes, gone, kept)
    return seen


def _passes(index: NDArray[np.intp], numbers: NDArray[np.uint32], light: Image) -> Saddles:
    found: Saddles = {}
    if not len(index):
        return found
    # One number per voxel, of a box with a margin: no step leads from one of its sides to another.
    shape = index.max(axis=0) - index.min(axis=0) + 3
    places = np.ravel_multi_index((index - index.min(axis=0) + 1).T, shape)
    for shift in HALF_OF_26:
        there = places + int(np.dot(shift, (shape[1] * shape[2], shape[2], 1)))
        at = np.minimum(np.searchsorted(places, there), len(places) - 1)
        touch = (places[at] == there) & (numbers[at] != numbers)
        lower = np.minimum(light, light[at])[touch]
        keep_brightest(found, zip(numbers[touch], numbers[at][touch], lower, strict=True))
    return found

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


def seen_as(instances: NDArray[np.uint32], light: Image, count: int) -> NDArray[np.uint32]:
    """The spine that each of 0..count is drawn as: itself, or the brightest of those it melts into.

    Parameters
    ----------
    instances : (z, y, x)
        Spine numbers; 0: none.
    light : same shape
        Sharp light of everything.
    """
    index = np.argwhere(instances > 0)
    numbers, values = instances[tuple(index.T)], light[tuple(index.T)]
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, numbers, values)
    passes = _passes(index, instances, light)
    seen = np.arange(count + 1, dtype=np.uint32)
    while passes:
        one, other = max(passes, key=lambda pair: passes[pair] / min(peaks[list(pair)]))
        if passes[one, other] <= APART * min(peaks[one], peaks[other]):
            break
        kept, gone = (one, other) if peaks[one] >= peaks[other] else (other, one)
        seen[seen == gone] = kept
        passes = renamed(passes, gone, kept)
    return seen


def _passes(index: NDArray[np.intp], instances: NDArray[np.uint32], light: Image) -> Saddles:
    around, lit = np.pad(instances, 1), np.pad(light, 1)
    here = tuple((index + 1).T)
    found: Saddles = {}
    for shift in HALF_OF_26:
        there = tuple((index + 1 + shift).T)
        touch = (around[there] > 0) & (around[there] != around[here])
        lower = np.minimum(lit[here], lit[there])[touch]
        keep_brightest(found, zip(around[here][touch], around[there][touch], lower, strict=True))
    return found

"""Which spines that touch in an image can be told apart in it.

Two things are seen where the light dips between them (Rayleigh's and Sparrow's criteria differ in
how much); where it does not, everybody draws one, however many there are.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from respan_training.phantoms.raster import Image

APART = 0.9
"""Least light on the way between two spines, at most, as a share of the dimmer one's peak."""

_HALF_OF_26 = [shift for shift in itertools.product((-1, 0, 1), repeat=3) if shift > (0, 0, 0)]

Passes = dict[tuple[int, int], float]
"""Of two spines, the lower number first: the most light at which one can step to the other."""


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
        passes = _renamed(passes, gone, kept)
    return seen


def _passes(index: NDArray[np.intp], instances: NDArray[np.uint32], light: Image) -> Passes:
    around, lit = np.pad(instances, 1), np.pad(light, 1)
    here = tuple((index + 1).T)
    found: Passes = {}
    for shift in _HALF_OF_26:
        there = tuple((index + 1 + shift).T)
        touch = (around[there] > 0) & (around[there] != around[here])
        lower = np.minimum(lit[here], lit[there])[touch]
        for a, b, value in zip(around[here][touch], around[there][touch], lower, strict=True):
            pair = (int(min(a, b)), int(max(a, b)))
            found[pair] = max(found.get(pair, 0.0), float(value))
    return found


def _renamed(passes: Passes, old: int, new: int) -> Passes:
    """The same with one spine taken for another."""
    kept: Passes = {}
    for pair, value in passes.items():
        one, other = (new if number == old else number for number in pair)
        if one != other:
            key = (min(one, other), max(one, other))
            kept[key] = max(kept.get(key, 0.0), value)
    return kept

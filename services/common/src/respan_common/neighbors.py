"""Voxels that touch: each of 26 neighbors, and every two of them once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

HALF_OF_26 = [shift for shift in itertools.product((-1, 0, 1), repeat=3) if shift > (0, 0, 0)]
"""One of each two opposite steps (z, y, x) to a neighboring voxel."""

Part = tuple[slice, ...]


def touching_parts(shape_zyx: tuple[int, ...]) -> Iterator[tuple[Part, Part]]:
    """For each step of `HALF_OF_26`, two parts of an array: voxels, and those a step further."""
    for shift in HALF_OF_26:
        steps = list(zip(shift, shape_zyx, strict=True))
        here = tuple(slice(max(-step, 0), min(size - step, size)) for step, size in steps)
        there = tuple(slice(max(step, 0), min(size + step, size)) for step, size in steps)
        yield here, there

"""Cut a volume into blocks that are each owned once and seen with a halo."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from respan_common.geometry import Box, Zyx, grow, relative


@dataclass(frozen=True)
class Block:
    """One piece of a volume."""

    number: int
    """Place in the grid's raster order, from 0."""
    inner: Box
    """Voxels that this block owns."""
    outer: Box
    """`inner` and its halo, clipped at the volume's faces."""

    @property
    def inner_in_outer(self) -> Box:
        """Where the owned voxels lie in an array that holds `outer`."""
        return relative(self.inner, self.outer)


def grid(shape_zyx: Zyx, block_zyx: Zyx, halo_zyx: Zyx = (0, 0, 0)) -> list[Block]:
    """Blocks whose inner boxes cover every voxel of a volume exactly once.

    Parameters
    ----------
    shape_zyx
        Voxels of the volume.
    block_zyx
        Voxels of a block; the last one along an axis may be smaller.
    halo_zyx
        Voxels seen beyond the owned ones on every side.
    """
    edges = [range(0, size, step) for size, step in zip(shape_zyx, block_zyx, strict=True)]
    blocks = []
    for number, corner in enumerate(itertools.product(*edges)):
        z, y, x = (
            slice(start, min(start + step, size))
            for start, step, size in zip(corner, block_zyx, shape_zyx, strict=True)
        )
        blocks.append(Block(number, (z, y, x), grow((z, y, x), halo_zyx, shape_zyx)))
    return blocks

"""Read volumes plane by plane, in the order of a TIFF, without holding the volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from respan_common.events import Reporter
from respan_common.geometry import Box, Zyx
from respan_common.volumes import Volume

_SLAB_BYTES = 256 * 2**20
_CHUNK_DEPTH = 32  # reading fewer planes at once decodes the same chunks again


def planes(
    volume: Volume, report: Reporter, channel: int = 1, readers: int = 1
) -> Iterator[NDArray[Any]]:
    """Planes (y, x) of a volume in order; reads whole chunks at once where memory allows.

    Parameters
    ----------
    channel
        Counted from 1.
    readers
        How many volumes are read side by side: they share the memory.
    """
    depth, height, width = volume.shape_zyx
    step = slab_depth(volume.shape_zyx, volume.dtype.itemsize * readers)
    for start in range(0, depth, step):
        report.check()
        box: Box = (slice(start, min(start + step, depth)), slice(0, height), slice(0, width))
        yield from volume.read(box, channel)


def slab_depth(shape_zyx: Zyx, itemsize: int) -> int:
    """Planes to read at once: whole chunks if they fit the memory, else as many as do."""
    affordable = _SLAB_BYTES // max(shape_zyx[1] * shape_zyx[2] * itemsize, 1)
    whole = affordable // _CHUNK_DEPTH * _CHUNK_DEPTH
    return max(min(whole or affordable, 2 * _CHUNK_DEPTH), 1)

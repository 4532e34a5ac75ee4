"""Pictures of what an analysis got wrong: false finds and missed spines, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HALF = 24
"""Half the edge of a tile, in pixels."""
ZOOM = 3
COLUMNS = 12
RED, GREEN = (255, 60, 60), (60, 255, 60)

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Stack:
    """An image with what was found and what is annotated in it.

    Attributes
    ----------
    grey : (z, y, x)
    spines : uint32, same shape
        Labels of the found spines.
    heads : float, shape (n, 3)
        Annotated heads, in voxels.
    """

    grey: NDArray[np.uint8]
    spines: NDArray[np.uint32]
    heads: NDArray[np.float64]


def montage(stack: Stack, rows: Sequence[NDArray[np.float64]]) -> Image.Image:
    """One row of tiles for each set of places (n, 3), in voxels; the first `COLUMNS` of each.

    A tile is the plane of the place. Red: outlines of found spines; green: annotated heads at most
    two planes away.
    """
    lines = []
    for places in rows:
        cells = [tile(stack, place) for place in places[:COLUMNS]]
        cells += [np.full_like(_blank(), 128)] * (COLUMNS - len(cells))
        lines.append(np.concatenate([_framed(cell) for cell in cells], axis=1))
    return Image.fromarray(np.concatenate(lines))


def tile(stack: Stack, place: NDArray[np.float64]) -> Rgb:
    """One place, enlarged and marked."""
    z, y, x = np.rint(place).astype(int)
    grey, spines = (_cut(a[z], y, x) for a in (stack.grey, stack.spines))
    white = max(60.0, float(np.quantile(grey, 0.995)))
    shades = (grey / white * 255).clip(0, 255).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
    picture: Rgb = np.stack([shades] * 3, axis=-1)
    picture[_outline(spines.repeat(ZOOM, 0).repeat(ZOOM, 1))] = RED
    near = np.abs(stack.heads - (z, y, x)) <= (2, HALF - 2, HALF - 2)
    for head in stack.heads[near.all(axis=1)]:
        row, column = (np.rint((head[1:] - (y, x) + HALF) * ZOOM)).astype(int)
        picture[row - 3 : row + 4, column] = GREEN
        picture[row, column - 3 : column + 4] = GREEN
    return picture


def _blank() -> Rgb:
    return np.zeros((2 * HALF * ZOOM, 2 * HALF * ZOOM, 3), dtype=np.uint8)


def _framed(cell: Rgb) -> Rgb:
    return np.asarray(np.pad(cell, ((0, 3), (0, 3), (0, 0)), constant_values=128), dtype=np.uint8)


def _cut(plane: NDArray[np.generic], y: int, x: int) -> NDArray[np.float64]:
    """Square around a pixel; black beyond the image."""
    padded = np.pad(plane, HALF)
    return np.asarray(padded[y : y + 2 * HALF, x : x + 2 * HALF], dtype=np.float64)


def _outline(labels: NDArray[np.float64]) -> NDArray[np.bool_]:
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edge

"""One pass over an image before it is segmented: grey values, and where there may be anything.

Most windows over a sparse image see background alone. Which can be told without a network: means
over cells as large as a dendrite is thick are compared with the background's own mean and noise,
both learned from the image. Smaller cells would flag noise: where photons are few, it has a long
tail that only the mean of many voxels loses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool3d, max_pool3d

from respan_common.blocks import grid
from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_segmentation.normalization import Gathering, Statistics

CELL_UM = 1.0
"""Edge of a cell: a dendrite's thickness."""
DETAIL_UM = 0.35
"""Edge of a cell for `Survey.roughness`: a small head."""
HALO_UM = 4.0
"""What lies nearer than this to anything is looked at: a spine, however dim, hangs on a dendrite
that is brighter, and RESPAN's longest spine is 4 µm long."""
NOISES = 5.0
"""A cell is something when it is above the background by so many standard deviations of cells
(Rose's criterion); by chance, that happens to one in 3 million."""
_MAP_UM = 2.0
"""Edge of a square of the map."""
_READING_BLOCK: Zyx = (64, 512, 512)
_FEWEST_CELLS = 500
"""An image of fewer cells is looked at everywhere: it costs little, and tells little."""
_MOST_CELLS = 2**21
"""Cells from which the background is learned; more tell no more."""


@dataclass(frozen=True)
class Occupancy:
    """A coarse map of the image: which squares hold a cell that is more than background.

    Attributes
    ----------
    occupied : bool, shape (z, y, x)
    square : voxels of a square along each axis
    halo : voxels
    """

    occupied: NDArray[np.bool_]
    square: Zyx
    halo: Zyx

    @property
    def share(self) -> float:
        """Share of the squares that are more than background."""
        return float(self.occupied.mean())

    def holds_something(self, box: Box) -> bool:
        """Whether a box of the image, or anything near it, is more than background."""
        z, y, x = (
            slice(max(part.start - halo, 0) // edge, -(-(part.stop + halo) // edge))
            for part, halo, edge in zip(box, self.halo, self.square, strict=True)
        )
        return bool(self.occupied[z, y, x].any())


@dataclass(frozen=True)
class Survey:
    """What is known of an image before it is segmented."""

    statistics: Statistics
    occupancy: Occupancy
    roughness: float
    """Half the mean squared difference of neighboring cells in a slice, over the cells' variance:
    0 for an image without detail, 1 for noise."""

    def save(self, path: Path) -> None:
        """Write it; the file appears whole."""
        own, squares = self.statistics, self.occupancy
        box = [] if own.box is None else [(part.start, part.stop) for part in own.box]
        values = {name: getattr(own, name) for name in _NUMBERS}
        draft = path.with_name(f"{path.name}.partial")
        with draft.open("wb") as file:
            np.savez(
                file,
                box=np.array(box, dtype=np.int64),
                occupied=squares.occupied,
                square=squares.square,
                halo=squares.halo,
                roughness=self.roughness,
                **values,
            )
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> Survey:
        """Read what `save` wrote."""
        with np.load(path) as saved:
            box = [slice(int(start), int(stop)) for start, stop in saved["box"]]
            numbers = {name: float(saved[name]) for name in _NUMBERS}
            occupancy = Occupancy(saved["occupied"], _three(saved["square"]), _three(saved["halo"]))
            roughness = float(saved["roughness"])
        statistics = Statistics((box[0], box[1], box[2]) if box else None, **numbers)
        return cls(statistics, occupancy, roughness)


_NUMBERS = tuple(part.name for part in fields(Statistics) if part.name != "box")


def survey(
    read: Callable[[Box], NDArray[Any]],
    shape_zyx: Zyx,
    spacing: VoxelSpacing,
    check: Callable[[], None] = lambda: None,
) -> Survey:
    """Look at a whole image once, block by block.

    Parameters
    ----------
    read
        Gives the voxels of any box.
    check
        Called before every block; may raise to stop.

    Raises
    ------
    InputError
        If a value is not finite.
    """
    detail, cell, square = _edges(spacing)
    fine, coarse = (_Map(shape_zyx, edge, square) for edge in (detail, cell))
    gathering = Gathering()
    for block in grid(shape_zyx, _multiple(_READING_BLOCK, square)):
        check()
        values = read(block.inner)
        gathering.add(block.inner, values)
        grey = torch.from_numpy(values.astype(np.float32))[None, None]
        fine.add(block.inner, grey)
        coarse.add(block.inner, grey)
    occupancy = Occupancy(coarse.occupied(), square, spacing.reach(HALO_UM))
    return Survey(gathering.finish(), occupancy, fine.roughness)


class _Map:
    """The brightest cell in each square, and a sample of cells."""

    def __init__(self, shape: Zyx, cell: Zyx, square: Zyx) -> None:
        self._cell, self._square = cell, square
        self._brightest = np.zeros(
            [-(-size // edge) for size, edge in zip(shape, square, strict=True)], np.float32
        )
        cells = float(np.prod(shape)) / float(np.prod(cell))
        self._every = max(int(cells // _MOST_CELLS), 1)
        self._sample: list[NDArray[np.float32]] = []
        self._pairs_sample: list[NDArray[np.float32]] = []
        self._differences, self._pairs = 0.0, 0

    def add(self, box: Box, grey: torch.Tensor) -> None:
        """Take a block, shape (1, 1, z, y, x), whose first voxel is the first of a square."""
        means = avg_pool3d(grey, _fitting(self._cell, grey), ceil_mode=True)
        per_square = [edge // own for edge, own in zip(self._square, self._cell, strict=True)]
        highest = max_pool3d(means, _fitting(per_square, means), ceil_mode=True)
        z, y, x = (
            slice(part.start // edge, part.start // edge + size)
            for part, edge, size in zip(box, self._square, highest.shape[2:], strict=True)
        )
        self._brightest[z, y, x] = highest[0, 0].numpy()
        self._sample.append(means.numpy().ravel()[:: self._every].copy())
        self._differ(means[0, 0].numpy())

    def _differ(self, means: NDArray[np.float32]) -> None:
        pairs = np.stack([means[:, :, :-1].ravel(), means[:, :, 1:].ravel()])
        self._pairs_sample.append(pairs[:, :: self._every].copy())
        for steps in (np.diff(means, axis=1), np.diff(means, axis=2)):
            self._differences += float(np.square(steps, dtype=np.float64).sum())
            self._pairs += steps.size

    @property
    def roughness(self) -> float:
        """See `Survey`; 0 for an image of one grey value."""
        variance = float(np.concatenate(self._sample).var(dtype=np.float64))
        if variance <= 0 or not self._pairs:
            return 0.0
        return self._differences / self._pairs / 2 / variance

    def occupied(self) -> NDArray[np.bool_]:
        """Squares with a cell that is more than background; all, if there are too few to tell."""
        sample = np.concatenate(self._sample)
        if len(sample) < _FEWEST_CELLS:
            return np.ones(self._brightest.shape, dtype=bool)
        mean, spread = background(sample)
        noise = min(spread, noise_in_the_dark(np.concatenate(self._pairs_sample, axis=1)))
        return np.asarray(self._brightest > mean + NOISES * noise)


def background(values: NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation of an image's background.

    The most frequent value, and the spread of what is darker: nothing but noise is darker than
    background. Of an image without noise below its background the spread is 0, and of one that is
    more structure than background both come out low: then less is taken for background, never more.

    Parameters
    ----------
    values
        A sample of the image.
    """
    low, middle = np.quantile(values, (0.001, 0.5))
    if low == middle:
        return float(low), 0.0
    counts, edges = np.histogram(values, bins=64, range=(low, middle + (middle - low) / 31))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    most = int(smooth[:62].argmax())
    peak = float(edges[most] + edges[most + 1]) / 2
    darker = values[values < peak].astype(np.float64)
    spread = float(np.sqrt(np.mean((peak - darker) ** 2))) if darker.size else 0.0
    return peak, spread


def noise_in_the_dark(pairs: NDArray[np.floating]) -> float:
    """Standard deviation of noise, from neighbors in the darker half of an image.

    Of an image full of structure the spread of what is dark is structure, too. Neighbors differ by
    less; where there is noise alone, by the square root of 2 of its standard deviation.

    Parameters
    ----------
    pairs : shape (2, n)
        Values of neighbors.
    """
    if not pairs.size:
        return 0.0
    brightness = pairs.sum(axis=0)
    dark = pairs[:, brightness <= np.median(brightness)]
    # 1.4826 makes a standard deviation of the median deviation of Gaussian noise.
    return float(1.4826 * np.median(np.abs(dark[1] - dark[0])) / np.sqrt(2))


def _edges(spacing: VoxelSpacing) -> tuple[Zyx, Zyx, Zyx]:
    """Voxels of both kinds of cells and of a square; each is a whole number of the one before."""
    sizes: list[Zyx] = [(1, 1, 1)]
    for edge_um in (DETAIL_UM, CELL_UM, _MAP_UM):
        z, y, x = (
            own * max(round(edge_um / (own * edge)), 1)
            for own, edge in zip(sizes[-1], spacing.zyx, strict=True)
        )
        sizes.append((z, y, x))
    return sizes[1], sizes[2], sizes[3]


def _multiple(block: Zyx, square: Zyx) -> Zyx:
    z, y, x = (max(size // edge, 1) * edge for size, edge in zip(block, square, strict=True))
    return (z, y, x)


def _fitting(window: Iterator[int] | list[int] | Zyx, values: torch.Tensor) -> list[int]:
    """A pooling window no larger than what is pooled, which PyTorch would refuse."""
    return [min(edge, size) for edge, size in zip(window, values.shape[2:], strict=True)]


def _three(values: Any) -> Zyx:
    z, y, x = (int(value) for value in values)
    return (z, y, x)

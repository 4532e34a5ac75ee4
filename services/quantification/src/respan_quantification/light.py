"""Where a spine's head is: the middle of its light, finer than voxels are.

Slices of a microscope are often thicker than a head. Its mask then fills one or two of them, and a
mask's centroid is off by up to half a slice. How bright the slices are says more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Voxels
from respan_quantification.spines import Spines


def centroids(heads: Voxels, frame: Frame, count: int) -> NDArray[np.float64]:
    """Centroid of each head in voxels of the whole image, shape (count, 3); NaN without a head."""
    index = heads.index_zyx + frame.corner
    means = [heads.total(index[:, axis].astype(np.float64)) / heads.counts for axis in range(3)]
    return np.stack([heads.column(mean, count) for mean in means], axis=1)


def centers_of_light(
    heads: Voxels,
    spines: Spines,
    frame: Frame,
    classes: ClassImage,
    dendrites: Labels,
    grey: NDArray[np.generic],
    background: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Centroid of each head's light above the background, in voxels of the whole image.

    Light is summed over the head's voxels and, in every column along z, over the voxels right above
    and below them, unless one of these is another object's: its light would pull to that side.

    Parameters
    ----------
    classes, dendrites
        Over `frame.outer`; every value of the class image but 0 is an object.
    grey
        Raw values over `frame.outer`; what is no finite number counts as dark.
    background
        Grey value around each of the N spines.

    Returns
    -------
    float64, shape (N, 3)
        The head's plain centroid where nothing is brighter than the background, or that is unknown.
    """
    count = len(background)
    plain = centroids(heads, frame, count)
    index, ids = _with_planes_beside(heads, spines, frame, classes, dendrites)
    light = _above(grey[tuple(index.T)], background[ids - 1])
    # Counted from a voxel of the head, sums round alike wherever the image was cut.
    first = np.zeros((count, 3), dtype=np.int64)
    first[heads.present - 1] = heads.index_zyx[heads.starts]
    away = index - first[ids - 1]
    total = np.bincount(ids - 1, light, count)
    sums = [np.bincount(ids - 1, light * away[:, axis], count) for axis in range(3)]
    is_lit = (total > 0)[:, None]
    away_mean = np.stack(sums, axis=1) / np.where(is_lit, total[:, None], 1.0)
    return np.where(is_lit, first + frame.corner + away_mean, plain)


def _with_planes_beside(
    heads: Voxels, spines: Spines, frame: Frame, classes: ClassImage, dendrites: Labels
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of the heads and of the planes that count with them, and whose they are."""
    index, ids = heads.index_zyx.astype(np.int64), heads.ids.astype(np.int64)
    order = np.lexsort((index[:, 0], index[:, 2], index[:, 1], ids))
    columns = np.column_stack([ids, index[:, 1:]])[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (columns[1:] != columns[:-1]).any(axis=1)
    lowest, highest = index[order[is_first]], index[order[np.roll(is_first, -1)]]
    whose = ids[order[is_first]]
    step = np.array([1, 0, 0])
    below, above = lowest - step, highest + step
    own = _keys(spines.voxels.index_zyx, spines.voxels.ids, frame)
    last = np.array(dendrites.shape) - 1
    counts = (below[:, 0] >= 0) & (above[:, 0] <= last[0])
    for beside in (below, above):
        inside = np.clip(beside, 0, last)
        place = tuple(inside.T)
        is_object = (classes.values[place] != 0) | (dendrites[place] != 0)
        counts &= ~is_object | np.isin(_keys(inside, whose, frame), own)
    return (
        np.concatenate([index, below[counts], above[counts]]),
        np.concatenate([ids, whose[counts], whose[counts]]),
    )


def _keys(index: NDArray[np.integer], ids: NDArray[np.integer], frame: Frame) -> NDArray[np.int64]:
    """One number for a voxel and the spine it is looked at for."""
    voxels = int(np.prod(frame.shape_zyx, dtype=np.int64))
    return ids.astype(np.int64) * voxels + frame.linear(index)


def _above(values: NDArray[np.generic], background: NDArray[np.float64]) -> NDArray[np.float64]:
    excess = values.astype(np.float64) - background
    return np.where(np.isfinite(excess), np.maximum(excess, 0.0), 0.0)

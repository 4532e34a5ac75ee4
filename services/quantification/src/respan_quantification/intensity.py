"""Grey values of the raw image in and around spines: what they hold, and against what.

A grey value means little by itself: it grows with laser power and detector gain, and sits on an
offset. So every spine has its own background and its own piece of shaft to be compared with, both
taken from its surroundings. Nothing here costs more than the boxes around the spines.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.light import centers_of_light, centroids
from respan_quantification.objects import Labels, Voxels
from respan_quantification.spines import Spines
from respan_quantification.surroundings import Surroundings, surroundings

Columns = dict[str, NDArray[np.float64]]

ReadChannel = Callable[[int], NDArray[np.generic]]
"""Gives the voxels (z, y, x) of a channel, counted from 1."""

# The standard error of a mean of 20 voxels is a quarter of the noise: less would say nothing.
_LEAST_BACKGROUND = 20
_LEAST_SHAFT = 5
_LEAST_NUMBERS = 0.5


def spine_intensities(
    spines: Spines,
    frame: Frame,
    classes: ClassImage,
    dendrites: Labels,
    grey: ReadChannel,
    channels: int,
    params: QuantificationParams,
    uncertainty: NDArray[np.floating] | None = None,
) -> Columns:
    """Grey values of every spine, head and neck in every channel, for spines 1..N.

    Parameters
    ----------
    classes, dendrites
        Over `frame.outer`; every value of the class image but 0 is an object.
    grey
        Gives a channel over `frame.outer`. Each is asked for once; values that are no finite
        numbers are left out.
    channels
        Number of channels.
    uncertainty
        Over `frame.outer`, if there is such an image.

    Returns
    -------
    dict
        For each part (spine, head, neck) and channel n: mean, maximum, sum, integrated density
        (sum times a voxel's volume) and mean less the background. For each channel: background,
        mean of the local shaft, and background-corrected means of spine and head divided by that
        of the shaft. `z_um`, `y_um`, `x_um`: the middle of the head's light, or the head's
        centroid where there is none. `spine_intensity_vol` in µm³ and `uncertainty`. Missing is
        NaN: a part without voxels or with numbers in less than half of them, too little
        background or shaft, a shaft no brighter than the background.
    """
    parts = _parts(spines)
    around = surroundings(spines, frame, classes, dendrites, params)
    columns: Columns = {}
    centers = centroids(parts["head"], frame, spines.count)
    volume_um3 = np.full(spines.count, np.nan)
    for channel in range(1, channels + 1):
        values = grey(channel)
        found = _channel_columns(parts, around, values, channel, spines.count, frame.spacing)
        if channel == params.channel:
            centers = centers_of_light(
                parts["head"], spines, frame, classes, dendrites, values,
                found[f"background_C{channel}_int"],
            )  # fmt: skip
            volume_um3 = _intensity_volumes(around, values, found, channel, frame.spacing)
        columns |= found
        del values
    _forget_unknown_widths(columns, spines)
    columns |= dict(zip(("z_um", "y_um", "x_um"), frame.spacing.points_um(centers).T, strict=True))
    columns["spine_intensity_vol"] = volume_um3
    columns["uncertainty"] = np.full(spines.count, np.nan)
    if uncertainty is not None:
        columns["uncertainty"] = _mean(parts["spine"], uncertainty, spines.count)[0]
    return columns


def _parts(spines: Spines) -> dict[str, Voxels]:
    return {
        "spine": spines.voxels.part(~spines.inferred),
        "head": spines.voxels.part(spines.in_head),
        "neck": spines.voxels.part(~spines.in_head),
    }


def _channel_columns(
    parts: dict[str, Voxels],
    around: list[Surroundings],
    values: NDArray[np.generic],
    channel: int,
    count: int,
    spacing: VoxelSpacing,
) -> Columns:
    flat = values.reshape(-1)
    background = np.array([_middle_mean(flat[near.background]) for near in around], np.float64)
    shaft = np.array([_finite_mean(flat[near.shaft], _LEAST_SHAFT) for near in around], np.float64)
    found: Columns = {}
    for part, voxels in parts.items():
        mean, highest = _mean(voxels, values, count)
        total = mean * voxels.column(voxels.counts.astype(np.float64), count)
        found[f"{part}_C{channel}_mean_int"] = mean
        found[f"{part}_C{channel}_max_int"] = highest
        found[f"{part}_C{channel}_int_density"] = total * spacing.voxel_volume_um3
        found[f"{part}_C{channel}_sum_int"] = total
        found[f"{part}_C{channel}_corrected_mean_int"] = mean - background
    found[f"background_C{channel}_int"] = background
    found[f"shaft_C{channel}_mean_int"] = shaft
    contrast = _positive(shaft - background)
    for part in ("spine", "head"):
        corrected = found[f"{part}_C{channel}_corrected_mean_int"]
        found[f"{part}_C{channel}_shaft_ratio"] = corrected / contrast
    return found


def _mean(
    voxels: Voxels, values: NDArray[np.generic], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and maximum of each object's numbers; NaN if less than half of its voxels have one."""
    there = values[tuple(voxels.index_zyx.T)].astype(np.float64)
    is_number = np.isfinite(there)
    numbers = voxels.total(is_number.astype(np.float64))
    total = voxels.total(np.where(is_number, there, 0.0))
    highest = voxels.maximum(np.where(is_number, there, -np.inf))
    enough = (numbers > 0) & (numbers >= _LEAST_NUMBERS * voxels.counts)
    mean = np.divide(total, numbers, out=np.full(len(total), np.nan), where=enough)
    return voxels.column(mean, count), voxels.column(np.where(enough, highest, np.nan), count)


def _intensity_volumes(
    around: list[Surroundings],
    values: NDArray[np.generic],
    found: Columns,
    channel: int,
    spacing: VoxelSpacing,
) -> NDArray[np.float64]:
    """Volume of shaft that would give as much light as each spine, in µm³.

    Fluorophores that fill the cytoplasm are as dense in a spine as in the shaft, so light is
    volume, however much the optics spread it: what a mask cannot measure below the resolution,
    light can (Svoboda, Tank & Denk 1996; Matsuzaki et al. 2001; Holtmaat et al. 2005). Light is
    summed over the spine and the blur around it. A shaft thinner than the blur is dimmer than the
    dye in it; `Surroundings.shaft_share` makes up for that.
    """
    flat = values.reshape(-1)
    background = found[f"background_C{channel}_int"]
    contrast = _positive(found[f"shaft_C{channel}_mean_int"] - background)
    light = np.array(
        [_sum_above(flat[near.catchment], b) for near, b in zip(around, background, strict=True)],
        np.float64,
    )
    share = np.array([near.shaft_share for near in around], np.float64)
    return _positive(light * share / contrast * spacing.voxel_volume_um3)


def _sum_above(values: NDArray[np.generic], background: float) -> float:
    """Sum of what exceeds the background; voxels without a number count as the others' mean."""
    return (_finite_mean(values, 1) - background) * len(values)


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan)


def _finite_mean(values: NDArray[np.generic], least: int) -> float:
    """Mean of what is a number; NaN if that is fewer than `least`, or less than half."""
    numbers = values.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    enough = len(numbers) >= max(least, _LEAST_NUMBERS * len(values))
    return float(numbers.mean()) if enough else np.nan


def _middle_mean(values: NDArray[np.generic]) -> float:
    """Mean of the middle half of the values (interquartile mean).

    Up to a quarter of the voxels may hold light of something nobody segmented. A median would be
    as robust, but of whole numbers it is a whole number, too coarse for dim 8-bit images.
    """
    numbers = values.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < _LEAST_BACKGROUND:
        return np.nan
    cut = len(numbers) // 4
    ordered = np.partition(numbers, (cut, len(numbers) - cut - 1))
    return float(ordered[cut : len(numbers) - cut].mean())


def _forget_unknown_widths(columns: Columns, spines: Spines) -> None:
    """An inferred neck is a line: it has grey values along it, but no sum over its volume."""
    numbers = range(1, spines.count + 1)
    unknown = np.array([spines.attached[number] == "inferred" for number in numbers], dtype=bool)
    for name, column in columns.items():
        if name.startswith("neck_") and name.endswith(("_int_density", "_sum_int")):
            column[unknown] = np.nan

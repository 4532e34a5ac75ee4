"""How spine volumes, lengths and densities are spread, as numbers that a page can draw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEASURES = {"spine_vol": ("Spine volume", "µm³"), "spine_length": ("Spine length", "µm")}
"""Columns of the spine table that are drawn: title and unit."""

_BARS = 24
_BEYOND = 99.0
"""Percentile where a histogram's last bar begins: one giant does not flatten all others."""
_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Histogram:
    """One sub-folder's distribution of one measure."""

    sub_folder: str
    count: int
    median: float
    heights: tuple[float, ...]
    """Bars, as parts of the highest bar that any sub-folder has."""
    captions: tuple[str, ...]
    """What each bar says when it is pointed at."""


@dataclass(frozen=True)
class Distribution:
    """One measure in all sub-folders, on one axis that starts at 0."""

    title: str
    unit: str
    top: float
    """End of the axis."""
    ticks: tuple[float, ...]
    histograms: tuple[Histogram, ...]


@dataclass(frozen=True)
class Density:
    """Spines per µm of dendrite in one sub-folder: name and value of every image."""

    sub_folder: str
    points: tuple[tuple[str, float], ...]
    mean: float


@dataclass(frozen=True)
class Densities:
    """Densities of all sub-folders, on one axis that starts at 0."""

    top: float
    ticks: tuple[float, ...]
    rows: tuple[Density, ...]


def distribution(
    column: str, values: Mapping[str, Sequence[NDArray[np.float64]]]
) -> Distribution | None:
    """Distribution of a measure; None if nothing was measured.

    Parameters
    ----------
    column
        One of `MEASURES`.
    values
        One array per image, by sub-folder. What is not finite was not measured.
    """
    title, unit = MEASURES[column]
    measured = {name: _finite(arrays) for name, arrays in values.items()}
    measured = {name: array for name, array in measured.items() if array.size}
    if not measured:
        return None
    most = float(np.percentile(np.concatenate(list(measured.values())), _BEYOND))
    step = round_up(most / (_BARS - 1)) if most > 0 else 1 / _BARS
    edges = np.append(np.arange(_BARS) * step, np.inf)
    shares = {name: np.histogram(array, edges)[0] / array.size for name, array in measured.items()}
    highest = max(float(share.max()) for share in shares.values())
    histograms = tuple(
        Histogram(
            sub_folder=name,
            count=array.size,
            median=float(np.median(array)),
            heights=tuple(float(part) / highest for part in shares[name]),
            captions=tuple(_caption(n, step, part, unit) for n, part in enumerate(shares[name])),
        )
        for name, array in measured.items()
    )
    top = step * _BARS
    return Distribution(title, unit, top, ticks(top), histograms)


def densities(found: Iterable[tuple[str, str, float | None]]) -> Densities | None:
    """Densities of images (sub-folder, name, value); None if no image has one."""
    points: dict[str, list[tuple[str, float]]] = {}
    for sub_folder, name, value in found:
        if value is not None:
            points.setdefault(sub_folder, []).append((name, value))
    if not points:
        return None
    highest = max(value for images in points.values() for _, value in images)
    top = round_up(highest * 1.05) if highest > 0 else 1.0
    rows = tuple(
        Density(name, tuple(images), statistics.fmean(value for _, value in images))
        for name, images in points.items()
    )
    return Densities(top, ticks(top), rows)


def round_up(value: float) -> float:
    """Next round number (1, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten) from a value on."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * (1 - 1e-9))


def ticks(top: float) -> tuple[float, ...]:
    """Round numbers from 0 to the end of an axis, at most seven."""
    step = round_up(top / 6)
    return tuple(number * step for number in range(int(top / step + 1e-9) + 1))


def _finite(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    every = np.concatenate([np.empty(0), *arrays])
    return np.asarray(every[np.isfinite(every)])


def _caption(number: int, step: float, share: float, unit: str) -> str:
    end = f"–{(number + 1) * step:.3g}" if number < _BARS - 1 else " or more"
    return f"{number * step:.3g}{end} {unit}: {share:.1%}"

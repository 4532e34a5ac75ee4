"""nnU-Net's intensity normalization, from statistics of the whole image gathered block by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.errors import InputError, ModelError
from respan_common.geometry import Box

SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
_LEAST_SPREAD = 1e-8
"""nnU-Net's guard against division by 0."""


@dataclass(frozen=True)
class Statistics:
    """Grey values of an image inside the box that holds its values other than 0."""

    box: Box | None
    """Smallest box around the values other than 0, which is all that nnU-Net looks at."""
    mean: float = 0.0
    deviation: float = 0.0
    low: float = 0.0
    high: float = 0.0
    skewness: float = 0.0
    """Third standardized moment; of an image of bright threads in the dark it is well above 0."""
    masked_mean: float = 0.0
    """Mean of the values other than 0."""
    masked_deviation: float = 0.0
    """Standard deviation of the values other than 0."""
    masked_low: float = 0.0
    """Lowest value other than 0."""
    masked_high: float = 0.0
    """Highest value other than 0."""


class Gathering:
    """Collects what `Statistics` needs from blocks that cover an image once, in any order.

    Zeros outside the box of other values add nothing to sums and squares: only the count of voxels
    has to wait until the box is known.
    """

    def __init__(self) -> None:
        self._moments = np.zeros(3)
        self._shift: float | None = None
        self._count = 0
        self._low = np.inf
        self._high = -np.inf
        self._box: list[list[int]] | None = None

    def add(self, box: Box, values: NDArray[Any]) -> None:
        """Take one block's values, shape of `box`.

        Raises
        ------
        InputError
            If a value is not finite.
        """
        grey, counts = _tallied(values)
        if not grey.size:
            return
        if not np.isfinite(grey).all():
            raise InputError("the image has values that are not numbers (NaN or infinite)")
        # Squares of differences from a typical value do not cancel as squares of values would.
        self._shift = (
            float(np.average(grey, weights=counts)) if self._shift is None else self._shift
        )
        shifted = grey - self._shift
        self._moments += [float(np.dot(shifted**power, counts)) for power in (1, 2, 3)]
        self._count += int(counts.sum())
        self._low = min(self._low, float(grey.min()))
        self._high = max(self._high, float(grey.max()))
        self._widen(box, values, whole=int(counts.sum()) == values.size)

    def finish(self) -> Statistics:
        """The whole image's statistics; `box` is None if every value is 0."""
        if self._box is None or self._shift is None:
            return Statistics(box=None)
        first, second, third = (slice(start, stop) for start, stop in self._box)
        zeros = int(np.prod([stop - start for start, stop in self._box])) - self._count
        count = self._count + zeros
        powers = np.array([(-self._shift) ** power for power in (1, 2, 3)])
        mean, deviation, skewness = _described((self._moments + zeros * powers) / count)
        masked_mean, masked_deviation, _ = _described(self._moments / self._count)
        return Statistics(
            box=(first, second, third),
            mean=self._shift + mean,
            deviation=deviation,
            low=min(self._low, 0.0) if zeros else self._low,
            high=max(self._high, 0.0) if zeros else self._high,
            skewness=skewness,
            masked_mean=self._shift + masked_mean,
            masked_deviation=masked_deviation,
            masked_low=self._low,
            masked_high=self._high,
        )

    def _widen(self, box: Box, values: NDArray[Any], *, whole: bool) -> None:
        own = [[part.start, part.stop] for part in box]
        filled = None if whole else values != 0
        for axis in range(3) if filled is not None else ():
            others = tuple(other for other in range(3) if other != axis)
            places = np.flatnonzero(filled.any(axis=others))  # type: ignore[union-attr]
            start = box[axis].start
            own[axis] = [start + int(places[0]), start + int(places[-1]) + 1]
        if self._box is None:
            self._box = own
        self._box = [
            [min(start, new_start), max(stop, new_stop)]
            for (start, stop), (new_start, new_stop) in zip(self._box, own, strict=True)
        ]


def _tallied(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values other than 0 and how often each occurs; whole numbers of few bits are counted."""
    if values.dtype not in (np.uint8, np.uint16):
        grey = values[values != 0].astype(np.float64)
        return grey, np.ones(len(grey))
    size = 2 ** (8 * values.dtype.itemsize)
    counts = np.zeros(size, dtype=np.int64)
    for plane in values:
        counts += np.bincount(plane.ravel(), minlength=size)
    counts[0] = 0
    grey = np.flatnonzero(counts)
    return grey.astype(np.float64), counts[grey].astype(np.float64)


def _described(moments: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, standard deviation and skewness from mean powers (1, 2, 3) around any origin."""
    first, second, third = (float(moment) for moment in moments)
    deviation = float(np.sqrt(max(second - first**2, 0.0)))
    central = third - 3 * first * second + 2 * first**3
    return first, deviation, central / deviation**3 if deviation > 0 else 0.0


def statistics_of(blocks: Iterable[tuple[Box, NDArray[Any]]]) -> Statistics:
    """Statistics of an image from blocks that cover it once."""
    gathering = Gathering()
    for box, values in blocks:
        gathering.add(box, values)
    return gathering.finish()


@dataclass(frozen=True)
class Normalization:
    """Linear map of grey values: clip, shift, divide."""

    shift: float = 0.0
    divisor: float = 1.0
    clip: tuple[float, float] | None = None
    zeros_stay: bool = False
    """Values of 0 stay 0, for models trained on images with an empty surround."""

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Normalized values, float32, same shape."""
        grey = np.array(values, dtype=np.float32)
        empty = grey == 0 if self.zeros_stay else None
        if self.clip is not None:
            np.clip(grey, *self.clip, out=grey)
        grey -= np.float32(self.shift)
        grey /= np.float32(self.divisor)
        if empty is not None:
            grey[empty] = 0
        return grey


def normalized_range(scheme: Normalization, statistics: Statistics) -> tuple[float, float]:
    """Lowest and highest value of the normalized image."""
    ends = statistics.low, statistics.high
    if scheme.zeros_stay:  # those lie between the others, at their mean
        ends = statistics.masked_low, statistics.masked_high
    low, high = scheme.apply(np.array(ends))
    return float(low), float(high)


def normalization(
    scheme: str,
    statistics: Statistics,
    intensities: Mapping[str, float],
    *,
    mask_zeros: bool = False,
) -> Normalization:
    """One of nnU-Net's five schemes for one image.

    Parameters
    ----------
    scheme
        nnU-Net's class name, as plans.json has it.
    intensities
        Grey values of the training data's foreground (`foreground_intensity_properties...`).
    mask_zeros
        The plans' `use_mask_for_norm`: only values other than 0 count, and zeros stay.

    Raises
    ------
    ModelError
        If the scheme is not one of nnU-Net's, or its intensities are missing.
    InputError
        If the image cannot be what the scheme expects.
    """
    if scheme == "ZScoreNormalization" and mask_zeros:
        spread = max(statistics.masked_deviation, _LEAST_SPREAD)
        return Normalization(statistics.masked_mean, spread, zeros_stay=True)
    if scheme == "ZScoreNormalization":
        return Normalization(statistics.mean, max(statistics.deviation, _LEAST_SPREAD))
    if scheme == "CTNormalization":
        return _of_training_data(intensities)
    if scheme == "NoNormalization":
        return Normalization()
    if scheme == "RescaleTo01Normalization":
        spread = max(statistics.high - statistics.low, _LEAST_SPREAD)
        return Normalization(statistics.low, spread)
    if scheme == "RGBTo01Normalization":
        return _of_bytes(statistics)
    raise ModelError(
        f"the model's normalization '{scheme}' is unknown; known: {', '.join(SCHEMES)}"
    )


def _of_training_data(intensities: Mapping[str, float]) -> Normalization:
    try:
        return Normalization(
            intensities["mean"],
            max(intensities["std"], _LEAST_SPREAD),
            clip=(intensities["percentile_00_5"], intensities["percentile_99_5"]),
        )
    except KeyError as error:
        raise ModelError(
            f"plans.json lacks {error} of the training data's intensities, which CTNormalization "
            "needs: copy plans.json from the training again"
        ) from error


def _of_bytes(statistics: Statistics) -> Normalization:
    if statistics.low < 0 or statistics.high > 255:
        raise InputError(
            f"the model was trained on values of 0 to 255, but the image has {statistics.low:g} to "
            f"{statistics.high:g}: convert it to 8 bits or use another model"
        )
    return Normalization(divisor=255.0)

"""Local linear regression of points on a coordinate along a curve.

N points, B bins. Points are summed in bins first, so that the work beyond one pass over the points
does not depend on N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def smooth_curve(
    along: Floats,
    points: Floats,
    first: float,
    last: float,
    width: float,
    sharpness: Floats | None = None,
) -> Floats:
    """Nodes of the smooth curve through points, from `first` to `last`.

    Unlike a running mean, a local line neither pulls ends in nor follows uneven sampling.

    Parameters
    ----------
    along : float array, shape (N,)
        Each point's coordinate along the curve.
    points : float array, shape (N, 3)
    width
        Standard deviation of the Gaussian kernel; nodes are half of it apart.
    sharpness : float array, shape (3,)
        Share, per axis, of the residuals' own smooth curve that is put back ("twicing", Tukey
        1977): at 1, a bend is no longer cut short by half its curvature times the kernel's
        variance.
    """
    bins = max(int(np.ceil((last - first) / (width / 4))), 2)
    edge = (last - first) / bins
    rows = np.clip(((along - first) / edge).astype(np.int64), 0, bins - 1)
    lag = along - (first + (rows + 0.5) * edge)
    sums = _Sums(rows, lag, bins, edge, width)
    values, slopes = sums.lines(points)
    if sharpness is not None and sharpness.any():
        back, tilt = sums.lines(points - values[rows] - slopes[rows] * lag[:, None])
        values, slopes = values + sharpness * back, slopes + sharpness * tilt
    ends = values[[0, -1]] + slopes[[0, -1]] * np.array([[-edge / 2], [edge / 2]])
    middle = values[sums.weight > 0][1:-1:2]
    return np.concatenate([ends[:1], middle, ends[1:]])


class _Sums:
    """Kernel-weighted sums around the center of every bin.

    `rows` is each point's bin, `lag` its distance from that bin's center.
    """

    def __init__(
        self, rows: NDArray[np.int64], lag: Floats, bins: int, edge: float, width: float
    ) -> None:
        self._rows, self._lag, self._bins = rows, lag, bins
        self._reach = int(np.ceil(3 * width / edge))
        self._offset = np.arange(-self._reach, self._reach + 1) * edge
        self._kernel = np.exp(-0.5 * np.square(self._offset / width))
        ones = np.ones_like(lag)
        self.weight = self._moment(ones, 0)
        self._mean = self._moment(ones, 1)
        self._spread = (
            self._around(self._binned(ones), 2)
            + 2 * self._around(self._binned(lag), 1)
            + self._around(self._binned(lag**2), 0)
        )

    def lines(self, points: Floats) -> tuple[Floats, Floats]:
        """Value and slope of the local line at every bin's center, shape (B, 3) each."""
        determinant = self.weight * self._spread - self._mean**2
        # Points in a single slice make no line: there the mean has to do.
        is_line = determinant > 1e-9 * np.square(self.weight * self._offset[-1])
        divisor = np.where(is_line, determinant, 1.0)[:, None]
        total = np.stack([self._moment(column, 0) for column in points.T], axis=1)
        tilt = np.stack([self._moment(column, 1) for column in points.T], axis=1)
        s0, s1, s2 = (part[:, None] for part in (self.weight, self._mean, self._spread))
        mean = total / np.maximum(s0, 1e-12)
        values = np.where(is_line[:, None], (s2 * total - s1 * tilt) / divisor, mean)
        slopes = np.where(is_line[:, None], (s0 * tilt - s1 * total) / divisor, 0.0)
        return values, slopes

    def _moment(self, values: Floats, power: int) -> Floats:
        """Sum of kernel x distance^power x values, for power 0 or 1."""
        if power == 0:
            return self._around(self._binned(values), 0)
        return self._around(self._binned(values), 1) + self._around(
            self._binned(values * self._lag), 0
        )

    def _binned(self, values: Floats) -> Floats:
        return np.bincount(self._rows, values, self._bins).astype(np.float64)

    def _around(self, binned: Floats, power: int) -> Floats:
        """Sum over bins of kernel x offset^power x binned."""
        kernel = (self._kernel * self._offset**power)[::-1]
        return np.asarray(np.convolve(np.pad(binned, self._reach), kernel, mode="valid"))

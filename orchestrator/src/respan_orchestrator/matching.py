"""Match found spines with true ones, one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


@dataclass(frozen=True)
class Agreement:
    """How many true spines were found, and how many found ones are true."""

    matched: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the found that are true; NaN if nothing was found."""
        return self.matched / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true that were found; NaN if there are none."""
        return self.matched / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if both sides are empty."""
        both = self.found + self.true
        return 2 * self.matched / both if both else float("nan")


def match_points(
    found_um: NDArray[np.float64],
    true_um: NDArray[np.float64],
    limit_um: float,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> NDArray[np.intp]:
    """Pairs (found, true) of the assignment with the most matches, and of those the nearest.

    Parameters
    ----------
    found_um, true_um
        Points (z, y, x), shapes (n, 3) and (m, 3).
    limit_um
        Largest distance of a pair.
    weights
        Factor on the distance along each axis, before it is compared with the limit.

    Returns
    -------
    int array, shape (k, 2)
        Indices into both inputs; each index occurs at most once.
    """
    if not len(found_um) or not len(true_um):
        return np.empty((0, 2), dtype=np.intp)
    scale = np.asarray(weights)
    distance_um = cdist(found_um * scale, true_um * scale)
    # A pair beyond the limit costs more than any number of pairs within it, so that the
    # assignment never gives up a match to make another one shorter.
    beyond = limit_um * (min(distance_um.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(distance_um <= limit_um, distance_um, beyond))
    kept = distance_um[rows, columns] <= limit_um
    return np.column_stack([rows[kept], columns[kept]])


def agreement(
    found_um: NDArray[np.float64],
    true_um: NDArray[np.float64],
    limit_um: float,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Agreement:
    """Counts of `match_points`."""
    matched = len(match_points(found_um, true_um, limit_um, weights))
    return Agreement(matched, len(found_um), len(true_um))

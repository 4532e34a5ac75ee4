"""Sholl analysis: how often dendrites cross spheres around their soma, and what lies between.

Spheres have the radii step, 2 step, ... (shells 1..K). Straight pieces of centerline are cut by
spheres exactly, so results do not depend on how finely a centerline is divided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_quantification.tree import Points, Tree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sholl:
    """Per shell 1..K in rows 0..K-1; `length_um` and `spines` count since the sphere before."""

    step_um: float
    intersections: Ints
    length_um: Floats
    spines: Ints

    @classmethod
    def of(cls, tree: Tree, spines_um: Points, center_um: Points, step_um: float) -> Sholl:
        """One dendrite's share.

        Parameters
        ----------
        spines_um : float array, shape (n, 3)
            Centroids of its spines' heads; n may be 0.
        center_um : float array, shape (3,)
            The soma's center, or the dendrite's root.
        """
        spines_um = np.asarray(spines_um, np.float64).reshape(-1, 3)
        nodes, parents = tree.points_um - center_um, np.maximum(tree.parents, 0)
        pieces = _Pieces(nodes[parents[1:]], nodes[1:])
        away_um = np.linalg.norm(spines_um - center_um, axis=1)
        farthest = max(np.linalg.norm(nodes, axis=1).max(), away_um.max(initial=0.0))
        count = max(int(np.ceil(farthest / step_um)), 1)
        shell = np.maximum(np.ceil(away_um / step_um).astype(np.int64), 1)
        return cls(
            step_um,
            pieces.crossings(step_um, count),
            pieces.lengths_um(step_um, count),
            np.bincount(shell - 1, minlength=count).astype(np.int64),
        )

    @classmethod
    def total(cls, parts: Iterable[Sholl]) -> Sholl:
        """All dendrites of one soma together; at least one, all with the same step."""
        parts = list(parts)
        count = max(len(part.intersections) for part in parts)
        columns = [
            np.sum([_padded(values, count) for values in column], axis=0)
            for column in zip(
                *((one.intersections, one.length_um, one.spines) for one in parts), strict=True
            )
        ]
        return cls(parts[0].step_um, *columns)

    def rows(
        self, soma_id: int | None = None, dendrite_id: int | None = None
    ) -> list[dict[str, Any]]:
        """One row per sphere; density is missing where there is no centerline."""
        return [
            {
                "soma_id": soma_id,
                "dendrite_id": dendrite_id,
                "radius_um": (shell + 1) * self.step_um,
                "intersections": int(self.intersections[shell]),
                "length_um": float(self.length_um[shell]),
                "spines": int(self.spines[shell]),
                "spines_per_um": float(self.spines[shell] / self.length_um[shell])
                if self.length_um[shell] > 0
                else float("nan"),
            }
            for shell in range(len(self.intersections))
        ]


class _Pieces:
    """Straight pieces from `start` to `stop`, both of shape (n, 3), around a center at 0."""

    def __init__(self, start: Points, stop: Points) -> None:
        self._from_um = np.linalg.norm(start, axis=1)
        self._to_um = np.linalg.norm(stop, axis=1)
        self._long_um = np.linalg.norm(stop - start, axis=1)
        unit = (stop - start) / np.maximum(self._long_um, 1e-12)[:, None]
        # Way from the start to the point of the whole line that is nearest to the center.
        self._foot_um = -np.einsum("ij,ij->i", start, unit)
        self._off_um2 = np.maximum(np.square(self._from_um) - np.square(self._foot_um), 0.0)

    def crossings(self, step_um: float, count: int) -> Ints:
        """How many times all pieces together cross each sphere from in to out or out to in."""
        near = np.minimum(self._from_um, self._to_um)
        far = np.maximum(self._from_um, self._to_um)
        dips = (self._foot_um > 0) & (self._foot_um < self._long_um)
        lowest = np.where(dips, np.sqrt(self._off_um2), near)
        once, twice = _covered(near, far, step_um, count), _covered(lowest, near, step_um, count)
        return once + 2 * twice

    def lengths_um(self, step_um: float, count: int) -> Floats:
        """Length of all pieces between each sphere and the one before."""
        lowest = np.sqrt(self._off_um2)
        first = np.minimum(lowest, np.minimum(self._from_um, self._to_um))
        last = np.maximum(self._from_um, self._to_um)
        low = np.floor(first / step_um).astype(np.int64)
        shells = np.minimum(np.ceil(last / step_um).astype(np.int64), count) - low
        shells = np.maximum(shells, 1)
        piece = np.repeat(np.arange(len(low)), shells)
        within = np.arange(len(piece)) - np.repeat(np.cumsum(shells) - shells, shells)
        shell = np.minimum(low[piece] + within, count - 1)
        inside = self._inside_um(piece, (shell + 1) * step_um)
        outer = np.where(within == shells[piece] - 1, self._long_um[piece], inside)
        inner = np.where(within == 0, 0.0, self._inside_um(piece, shell * step_um))
        return np.bincount(shell, outer - inner, count).astype(np.float64)

    def _inside_um(self, piece: Ints, radius_um: Floats) -> Floats:
        """Length of these pieces inside spheres of these radii."""
        half = np.sqrt(np.maximum(np.square(radius_um) - self._off_um2[piece], 0.0))
        foot, long = self._foot_um[piece], self._long_um[piece]
        return np.asarray(np.clip(foot + half, 0, long) - np.clip(foot - half, 0, long))


def _covered(above: Floats, up_to: Floats, step_um: float, count: int) -> Ints:
    """How many of the intervals (above, up_to] hold each of the radii step, 2 step, ..."""
    first = np.floor(above / step_um).astype(np.int64)
    last = np.minimum(np.floor(up_to / step_um).astype(np.int64), count)
    some = last > first
    begun = np.bincount(first[some], minlength=count + 1)
    ended = np.bincount(last[some], minlength=count + 1)
    return np.cumsum(begun - ended)[:count].astype(np.int64)


def _padded(values: NDArray[Any], count: int) -> NDArray[Any]:
    return np.pad(values, (0, count - len(values)))

"""Solids that phantoms are made of: cones with round ends, balls among them, and ellipsoids.

Everything is analytic. A point's signed distance is negative inside. Coordinates are µm (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Points = NDArray[np.float64]
"""Shape (n, 3), µm, (z, y, x)."""


@dataclass(frozen=True)
class Cones:
    """Round cones, n of them: the tube between two balls. A ball is a cone of length 0.

    Attributes
    ----------
    start_um, end_um : float64, shape (n, 3)
    start_radius_um, end_radius_um, brightness : float64, shape (n,)
        Brightness is the concentration of fluorophore relative to a bright dendrite.
    """

    start_um: Points
    end_um: Points
    start_radius_um: NDArray[np.float64]
    end_radius_um: NDArray[np.float64]
    brightness: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_um)

    @property
    def low_um(self) -> Points:
        """Least corner of each cone's bounding box."""
        return np.minimum(
            self.start_um - self.start_radius_um[:, None], self.end_um - self.end_radius_um[:, None]
        )

    @property
    def high_um(self) -> Points:
        """Greatest corner of each cone's bounding box."""
        return np.maximum(
            self.start_um + self.start_radius_um[:, None], self.end_um + self.end_radius_um[:, None]
        )

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Cones:
        """The cones at these numbers, or where the mask is true."""
        return Cones(
            self.start_um[chosen],
            self.end_um[chosen],
            self.start_radius_um[chosen],
            self.end_radius_um[chosen],
            self.brightness[chosen],
        )

    def near(self, low_um: Points, high_um: Points) -> Cones:
        """Cones whose bounding box meets the given box."""
        meets = (self.low_um <= high_um).all(axis=1) & (self.high_um >= low_um).all(axis=1)
        return self.subset(np.asarray(meets))


def tube(nodes_um: Points, radius_um: NDArray[np.float64], brightness: float) -> Cones:
    """Chain of cones through n nodes: n - 1 of them; none for fewer than two nodes."""
    return Cones(
        nodes_um[:-1],
        nodes_um[1:],
        radius_um[:-1],
        radius_um[1:],
        np.full(max(len(nodes_um) - 1, 0), brightness),
    )


def balls(
    center_um: Points, radius_um: NDArray[np.float64], brightness: NDArray[np.float64]
) -> Cones:
    """Balls as cones of length 0."""
    return Cones(center_um, center_um, radius_um, radius_um, brightness)


def together(parts: Sequence[Cones]) -> Cones:
    """All cones of several groups; none for an empty sequence."""
    if not parts:
        return tube(np.zeros((0, 3)), np.zeros(0), 0.0)
    return Cones(
        np.concatenate([part.start_um for part in parts]),
        np.concatenate([part.end_um for part in parts]),
        np.concatenate([part.start_radius_um for part in parts]),
        np.concatenate([part.end_radius_um for part in parts]),
        np.concatenate([part.brightness for part in parts]),
    )


def cone_distance_um(z: Floats, y: Floats, x: Floats, cones: Cones, number: int) -> Floats:
    """Distance from points to one cone's surface, negative inside.

    The radius is interpolated along the axis, which differs from a true round cone by the square of
    the slope: below 1 % for shafts.

    Parameters
    ----------
    z, y, x
        Coordinates in µm that broadcast against one another.
    """
    start, axis = cones.start_um[number], cones.end_um[number] - cones.start_um[number]
    from_z, from_y, from_x = z - start[0], y - start[1], x - start[2]
    squared = float(axis @ axis)
    if squared == 0:
        return np.asarray(
            np.sqrt(from_z**2 + from_y**2 + from_x**2) - float(cones.start_radius_um[number])
        )
    along = (from_z * axis[0] + from_y * axis[1] + from_x * axis[2]) / squared
    along = np.clip(along, 0, 1)
    slope = float(cones.end_radius_um[number] - cones.start_radius_um[number])
    away = np.sqrt(
        (from_z - along * axis[0]) ** 2
        + (from_y - along * axis[1]) ** 2
        + (from_x - along * axis[2]) ** 2
    )
    distance: Floats = away - (float(cones.start_radius_um[number]) + along * slope)
    return distance


def union_distance_um(z: Floats, y: Floats, x: Floats, cones: Cones) -> Floats:
    """Distance to the nearest of several cones; infinite when there are none."""
    shape = np.broadcast_shapes(z.shape, y.shape, x.shape)
    nearest: Floats = np.full(shape, np.inf)
    for number in range(len(cones)):
        nearest = np.minimum(nearest, cone_distance_um(z, y, x, cones, number))
    return nearest


@dataclass(frozen=True)
class Spheroid:
    """Ellipsoid of revolution.

    Attributes
    ----------
    center_um, axis : float64, shape (3,)
        The axis is a unit vector.
    along_um, across_um : float
        Half axes along and across the axis.
    """

    center_um: NDArray[np.float64]
    axis: NDArray[np.float64]
    along_um: float
    across_um: float

    @property
    def volume_um3(self) -> float:
        """Exact volume."""
        return 4 / 3 * np.pi * self.along_um * self.across_um**2

    def distance_um(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """First-order distance to the surface, exact on it and for a ball; negative inside."""
        from_z, from_y, from_x = (
            part - origin for part, origin in zip((z, y, x), self.center_um, strict=True)
        )
        along = from_z * self.axis[0] + from_y * self.axis[1] + from_x * self.axis[2]
        across_squared = np.maximum(from_z**2 + from_y**2 + from_x**2 - along**2, 0)
        scaled = np.sqrt((along / self.along_um) ** 2 + across_squared / self.across_um**2)
        steepness = np.sqrt(along**2 / self.along_um**4 + across_squared / self.across_um**4)
        return np.asarray(scaled * (scaled - 1) / np.maximum(steepness, 1e-9))

"""Smooth random paths through the field: dendrites and axons before they have spines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from respan_training.phantoms.field import Field
from respan_training.phantoms.solids import Points

STEP_UM = 0.25
"""Distance between nodes: below every radius, so that a chain of cones is a smooth tube."""

OUTSIDE_UM = 6.0
"""Paths go on this far beyond the field, since their blur reaches into it."""


@dataclass(frozen=True)
class Path:
    """Nodes along a tube.

    Attributes
    ----------
    nodes_um : float64, shape (n, 3)
    radius_um : float64, shape (n,)
    """

    nodes_um: Points
    radius_um: NDArray[np.float64]

    @property
    def arc_um(self) -> NDArray[np.float64]:
        """Distance of each node from the first, along the path."""
        steps_um = np.linalg.norm(np.diff(self.nodes_um, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps_um)])

    @property
    def length_um(self) -> float:
        """Length of the whole path."""
        return float(self.arc_um[-1])

    @property
    def tangents(self) -> Points:
        """Unit vectors along the path, one per node."""
        tangents = np.gradient(self.nodes_um, axis=0)
        return np.asarray(tangents / np.linalg.norm(tangents, axis=1, keepdims=True))

    def part(self, chosen: NDArray[np.bool_]) -> Path:
        """The nodes where the mask is true."""
        return Path(self.nodes_um[chosen], self.radius_um[chosen])


def direction(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Unit vector (z, y, x) from two angles in radians."""
    flat = np.cos(elevation)
    return np.array([np.sin(elevation), flat * np.sin(azimuth), flat * np.cos(azimuth)])


def random_direction(rng: np.random.Generator, elevation_deg: float) -> NDArray[np.float64]:
    """Direction of any azimuth, and of an elevation with that standard deviation."""
    return direction(rng.uniform(0, 2 * np.pi), np.deg2rad(rng.normal(0, elevation_deg)))


def walk(
    start_um: NDArray[np.float64],
    heading: NDArray[np.float64],
    field: Field,
    rng: np.random.Generator,
    bend_per_um: float,
    most_um: float = 400.0,
) -> Points:
    """Nodes from a start until the path has left the field, or is `most_um` long.

    The direction changes by a curvature that itself wanders (Ornstein-Uhlenbeck, 3 µm), which
    makes bends smooth. Curvature along z is halved: neurites in a field run mostly in its plane.
    """
    steps = int(most_um / STEP_UM)
    keep = np.exp(-STEP_UM / 3.0)
    kicks = rng.normal(0, bend_per_um * np.sqrt(1 - keep**2), (steps, 3)) * (0.5, 1, 1)
    nodes, point, bend = [start_um], start_um, np.zeros(3)
    for kick in kicks:
        bend = keep * bend + kick
        heading = heading + bend * STEP_UM
        heading = heading / np.linalg.norm(heading)
        point = point + heading * STEP_UM
        nodes.append(point)
        if not field.contains(point, OUTSIDE_UM):
            break
    return np.array(nodes)


def through(
    point_um: NDArray[np.float64],
    heading: NDArray[np.float64],
    field: Field,
    rng: np.random.Generator,
    bend_per_um: float,
) -> Points:
    """Nodes of a path that crosses the field through a point."""
    ahead = walk(point_um, heading, field, rng, bend_per_um)
    behind = walk(point_um, -heading, field, rng, bend_per_um)
    return np.concatenate([behind[:0:-1], ahead])


def undulating(nodes_um: Points, rng: np.random.Generator, amplitude_um: float) -> Points:
    """Nodes displaced smoothly, by that standard deviation, over lengths of about 1.5 µm.

    The first node stays, so that a branch keeps touching its trunk.
    """
    noise = ndi.gaussian_filter1d(rng.normal(size=nodes_um.shape), 1.5 / STEP_UM, axis=0)
    noise *= (0.5, 1, 1)
    noise *= amplitude_um / max(float(noise.std()), 1e-9)
    return np.asarray(nodes_um + noise - noise[0])


def varicose(
    nodes_um: Points,
    radius_um: float,
    rng: np.random.Generator,
    amplitude: float,
    taper: float,
    scale_um: float = 1.2,
) -> Path:
    """Tube around nodes, thinner by `taper` at its end, with smooth swellings.

    `amplitude` is the standard deviation of the relative radius; `scale_um` the swellings' length.
    """
    count = len(nodes_um)
    noise = ndi.gaussian_filter1d(rng.normal(size=count), scale_um / STEP_UM, mode="reflect")
    noise = noise / max(float(noise.std()), 1e-9)
    swelling = 1 + amplitude * np.clip(noise, -2.2, 2.2)
    return Path(nodes_um, radius_um * (1 - taper * np.linspace(0, 1, count)) * swelling)


def across(tangent: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Unit vector at right angles to a tangent, at an angle around it."""
    least = np.eye(3)[int(np.argmin(np.abs(tangent)))]
    first = np.cross(tangent, least)
    first = first / np.linalg.norm(first)
    return np.asarray(np.cos(angle) * first + np.sin(angle) * np.cross(tangent, first))

"""Analytic scenes: dendrites, spines and somas whose true measures are known by construction.

Lengths are µm, points are (z, y, x) from the image's corner. A scene is a list of solids and can
paint any box of itself, so that images of any size are made block by block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, shape_of, whole

SPINE, DENDRITE, SOMA, NECK = 1, 2, 3, 4
"""Class values of scheme 3."""

EPS = 1e-9
"""Voxel centers on a surface are inside on every side alike."""

Point = Sequence[float] | NDArray[np.floating]
Axes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Coordinates of voxel centers along z, y and x, ready to broadcast."""


class Solid(Protocol):
    """A body of one class."""

    @property
    def value(self) -> int:
        """Its class."""

    @property
    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box that holds it."""

    def covers(self, axes: Axes) -> NDArray[np.bool_]:
        """Which of these voxel centers lie in it."""


@dataclass(frozen=True)
class Ball:
    """All points near a center."""

    center: Point
    radius: float
    value: int = SPINE
    least_radii: Point = (0.0, 0.0, 0.0)
    """As a tube has them."""

    @property
    def _radii(self) -> NDArray[np.float64]:
        return np.maximum(self.radius, self.least_radii)

    @property
    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box that holds it."""
        return np.subtract(self.center, self._radii), np.add(self.center, self._radii)

    def covers(self, axes: Axes) -> NDArray[np.bool_]:
        """Which of these voxel centers lie in it."""
        z, y, x = (
            ((axis - c) / r) ** 2 for axis, c, r in zip(axes, self.center, self._radii, strict=True)
        )
        return np.asarray(z + y + x <= 1 + EPS)


@dataclass(frozen=True)
class Tube:
    """All points near a straight line; flat at its ends, or round."""

    start: Point
    stop: Point
    radius: float
    value: int = DENDRITE
    round_ends: bool = False
    least_radii: Point = (0.0, 0.0, 0.0)
    """Thickness that it has at least along z, y and x: nothing is thinner in an image than the
    light's blur."""

    @property
    def _radii(self) -> NDArray[np.float64]:
        return np.maximum(self.radius, self.least_radii)

    @property
    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box that holds it."""
        ends = np.array([self.start, self.stop], float)
        return ends.min(axis=0) - self._radii, ends.max(axis=0) + self._radii

    def covers(self, axes: Axes) -> NDArray[np.bool_]:
        """Which of these voxel centers lie in it."""
        radii = self._radii  # in units of which it is a tube of radius 1
        a, b = np.asarray(self.start, float) / radii, np.asarray(self.stop, float) / radii
        length = float(np.linalg.norm(b - a))
        unit = (b - a) / length
        offset = [axis / r - p for axis, r, p in zip(axes, radii, a, strict=True)]
        along = sum(o * u for o, u in zip(offset, unit, strict=True))
        square = sum(o**2 for o in offset)
        if self.round_ends:
            return np.asarray(square - 2 * along * (t := np.clip(along, 0, length)) + t**2 <= 1)
        inside = (along >= -EPS) & (along <= length + EPS) & (square - along**2 <= 1 + EPS)
        return np.asarray(inside)


@dataclass(frozen=True)
class Arc:
    """A tube that follows a circle in the plane of y and x, from angle 0 (+x) towards +y."""

    center: Point
    bend_radius: float
    angle: float
    radius: float
    value: int = DENDRITE

    def at(self, angle: float, outward: float = 0.0) -> NDArray[np.float64]:
        """Point of the circle at an angle, moved away from the center."""
        reach = self.bend_radius + outward
        turned = np.array([0.0, math.sin(angle), math.cos(angle)])
        return np.asarray(self.center, float) + reach * turned

    @property
    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box that holds it."""
        reach = np.array([self.radius, *[self.bend_radius + self.radius] * 2])
        return np.subtract(self.center, reach), np.add(self.center, reach)

    def covers(self, axes: Axes) -> NDArray[np.bool_]:
        """Which of these voxel centers lie in it."""
        z, y, x = (axis - c for axis, c in zip(axes, self.center, strict=True))
        angle = np.arctan2(y, x)
        in_range = (angle >= -EPS) & (angle <= self.angle + EPS)
        across = (np.hypot(y, x) - self.bend_radius) ** 2 + z**2
        return np.asarray(in_range & (across <= self.radius**2 + EPS))


@dataclass
class Scene:
    """Solids in an image of some size; where two overlap, the earlier one is seen."""

    size_um: Point
    spacing: VoxelSpacing
    solids: list[Solid] = field(default_factory=list)
    _extents: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2, 3)), repr=False)

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels of the image."""
        z, y, x = (round(s / edge) for s, edge in zip(self.size_um, self.spacing.zyx, strict=True))
        return (z, y, x)

    def add(self, *solids: Solid) -> Scene:
        """Put solids behind those that are there."""
        self.solids += solids
        return self

    def paint(self, box: Box | None = None) -> NDArray[np.uint8]:
        """Classes of the voxels in a box of the image, or of all."""
        part = box if box is not None else whole(self.shape_zyx)
        classes = np.zeros(shape_of(part), np.uint8)
        for solid in self._in(part):
            self._draw(solid, part, classes)
        return classes

    def _in(self, box: Box) -> list[Solid]:
        """Solids that may reach into a box; found at once, as a scene may have thousands."""
        if len(self._extents) != len(self.solids):
            self._extents = np.array([solid.extent for solid in self.solids])
        if not self.solids:
            return []
        edges = np.asarray(self.spacing.zyx)
        low, high = ([getattr(part, side) for part in box] * edges for side in ("start", "stop"))
        near = ((self._extents[:, 0] <= high) & (self._extents[:, 1] >= low)).all(axis=1)
        return [self.solids[n] for n in np.flatnonzero(near)]

    def _draw(self, solid: Solid, box: Box, classes: NDArray[np.uint8]) -> None:
        low, high = (corner / self.spacing.zyx for corner in solid.extent)
        ranges = [
            range(max(part.start, math.floor(a) - 1), min(part.stop, math.ceil(b) + 1))
            for part, a, b in zip(box, low, high, strict=True)
        ]
        if not all(ranges):
            return
        z, y, x = (
            (np.array(r) + 0.5) * edge for r, edge in zip(ranges, self.spacing.zyx, strict=True)
        )
        covered = solid.covers((z[:, None, None], y[:, None], x))
        window = classes[
            tuple(
                slice(r.start - p.start, r.stop - p.start) for r, p in zip(ranges, box, strict=True)
            )
        ]
        window[covered & (window == 0)] = solid.value


def around(*solids: Solid, spacing: VoxelSpacing, margin_um: float = 1.0) -> Scene:
    """A scene that is just large enough; its solids keep their places, so they start above 0."""
    high = np.max([solid.extent[1] for solid in solids], axis=0)
    edges = np.asarray(spacing.zyx)
    return Scene(tuple(np.ceil((high + margin_um) / edges) * edges), spacing, list(solids))

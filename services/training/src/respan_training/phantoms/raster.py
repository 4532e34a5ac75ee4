"""From solids to voxels: how much of each voxel is filled, and how that looks through the optics.

Plan: solids are drawn on planes several times finer than the image's along z, each in its own
bounding box, so cost does not grow with objects x volume. A matrix per axis then blurs and picks
the image's planes in one step: blur along z needs no neighbor in y, so the volume is done in
strips of rows and the fine planes never exist all at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_training.phantoms.field import Field
from respan_training.phantoms.grain import Grain
from respan_training.phantoms.solids import Cones, Floats, cone_distance_um

Image = NDArray[np.float32]

STRIP_VOXELS = 8_000_000
"""Fine voxels in one strip: 32 MB for each of its arrays."""

FINE_STEP_UM = 0.17
"""Distance of planes on which solids are drawn: below every axial blur."""

MEMBRANE_UM = 0.08
"""Depth of the stained layer when dye sits in the membrane; far thinner than a voxel in truth."""


@dataclass(frozen=True)
class Planes:
    """Fine planes along z that reach beyond the field by a margin."""

    field: Field
    margin_um: float

    @property
    def per_slice(self) -> int:
        """Fine planes in one image plane: as far apart as pixels, or `FINE_STEP_UM` if wider."""
        step_um = max(self.field.spacing.y_um, FINE_STEP_UM)
        return max(1, int(np.ceil(self.field.spacing.z_um / step_um)))

    @property
    def step_um(self) -> float:
        """Distance between fine planes."""
        return self.field.spacing.z_um / self.per_slice

    @property
    def positions_um(self) -> NDArray[np.float64]:
        """Position of each fine plane; they tile every voxel evenly."""
        extra = int(np.ceil(self.margin_um / self.step_um))
        count = self.field.shape_zyx[0] * self.per_slice
        steps = np.arange(-extra, count + extra) + 0.5
        return np.asarray(steps * self.step_um + self.field.low_um[0], dtype=np.float64)


def averaging(planes: Planes) -> Image:
    """Matrix (image planes, fine planes) that averages the fine planes of each voxel."""
    away_um = np.abs(planes.field.axis_um(0)[:, None] - planes.positions_um)
    inside = away_um < planes.field.spacing.z_um / 2
    return np.asarray(inside / planes.per_slice, dtype=np.float32)


def blurring(
    at_um: NDArray[np.float64],
    from_um: NDArray[np.float64],
    sigma_um: float | NDArray[np.float64],
    skew: float = 0.0,
) -> Image:
    """Matrix that samples, at some positions, the Gaussian blur of values at other positions.

    `from_um` must be evenly spaced. Each row sums to 1 where the kernel lies within `from_um`.

    Parameters
    ----------
    sigma_um
        One width for all positions of `at_um`, or one for each.
    skew
        Light reaches further by this share behind its source than before it: two half Gaussians
        whose widths differ by it, but not their mean.
    """
    step_um = from_um[1] - from_um[0] if len(from_um) > 1 else 1.0
    # A kernel narrower than the samples would fall between them.
    sigma = np.maximum(np.broadcast_to(sigma_um, at_um.shape), 0.4 * step_um)[:, None]
    away_um = at_um[:, None] - from_um
    away = away_um / (sigma * np.where(away_um > 0, 1 + skew, 1 - skew))
    return np.asarray(
        np.exp(-0.5 * away**2) * step_um / (np.sqrt(2 * np.pi) * sigma), dtype=np.float32
    )


def coverage(distance_um: Floats, edge_um: float) -> Floats:
    """Filled share of a voxel from the distance of its center to the surface."""
    return np.asarray(np.clip(0.5 - distance_um / edge_um, 0, 1))


def stain(distance_um: Floats, membrane: float) -> Floats:
    """Concentration of dye at a depth: 1 inside, or less where it sits in the membrane."""
    if membrane == 0:
        return np.ones_like(distance_um)
    interior = 1 - np.exp(-np.maximum(-distance_um, 0) / MEMBRANE_UM)
    return np.asarray(1 - membrane * interior)


def project(
    cones: Cones,
    planes: Planes,
    matrices: list[Image],
    membrane: float = 0.0,
    grain: Grain | None = None,
) -> list[Image]:
    """Draw cones and apply each matrix along z.

    Returns
    -------
    list of float32 (z, y, x)
        One image per matrix; concentration times filled share.
    """
    field = planes.field
    depth, (_, rows, columns) = len(planes.positions_um), field.shape_zyx
    strip = max(1, STRIP_VOXELS // (depth * columns))
    images = [field.zeros(np.float32) for _ in matrices]
    for first in range(0, rows, strip):
        part = slice(first, min(first + strip, rows))
        density = _draw_strip(cones, planes, part, membrane, grain)
        for image, matrix in zip(images, matrices, strict=True):
            flat = matrix @ density.reshape(depth, -1)
            image[:, part] = flat.reshape(field.shape_zyx[0], -1, columns)
    return images


def _draw_strip(
    cones: Cones, planes: Planes, rows: slice, membrane: float, grain: Grain | None
) -> Image:
    """Concentration on the fine planes of some rows.

    The nearest surface decides: overlapping cones of one tube are a union, and where two neurites
    meet, the one in which a point lies deeper gives the brightness.
    """
    spacing = planes.field.spacing
    axes = (
        planes.positions_um,
        planes.field.axis_um(1)[rows],
        planes.field.axis_um(2),
    )
    shape = tuple(len(axis) for axis in axes)
    edge_um = max(spacing.y_um, spacing.x_um)
    distance = np.full(shape, edge_um, dtype=np.float32)
    brightness = np.zeros(shape, dtype=np.float32)
    low, high = cones.low_um - edge_um, cones.high_um + edge_um
    starts = np.stack([np.searchsorted(axis, low[:, i]) for i, axis in enumerate(axes)], axis=1)
    stops = np.stack([np.searchsorted(axis, high[:, i]) for i, axis in enumerate(axes)], axis=1)
    for number in np.flatnonzero((starts < stops).all(axis=1)):
        box = tuple(slice(a, b) for a, b in zip(starts[number], stops[number], strict=True))
        z, y, x = (axis[part].astype(np.float32) for axis, part in zip(axes, box, strict=True))
        found = cone_distance_um(z[:, None, None], y[:, None], x, cones, int(number))
        nearer = found < distance[box]
        distance[box][nearer] = found[nearer]
        brightness[box][nearer] = cones.brightness[number]
    filled = brightness * coverage(distance, edge_um)
    if membrane > 0:
        filled *= stain(distance, membrane)
    if grain is not None:
        index = np.nonzero(filled)
        points_um = np.stack([axis[part] for axis, part in zip(axes, index, strict=True)], axis=1)
        filled[index] *= grain.factor(points_um)
    return np.asarray(filled, dtype=np.float32)

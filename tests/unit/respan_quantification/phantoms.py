"""Voxel scenes whose truth is known by construction. Lengths are µm, points (z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.unit.respan_quantification.memory import MemoryImage, Quantified, quantify_in_memory

from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.params import QuantificationParams
from respan_common.schemes import SCHEMES

FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)
TWO_PHOTON = VoxelSpacing(1.0, 0.102, 0.102)
TENFOLD = VoxelSpacing(1.0, 0.1, 0.1)

SPINE, DENDRITE, SOMA, NECK = 1, 2, 3, 4
"""Class values of scheme 3."""

EPS = 1e-9
"""Voxel centers on a surface are inside on every side alike."""

Point = Sequence[float]


class Scene:
    """A class image that objects are drawn into; later ones do not cover earlier ones."""

    def __init__(self, size_um: Point, spacing: VoxelSpacing) -> None:
        self.spacing = spacing
        shape = [round(size / edge) for size, edge in zip(size_um, spacing.zyx, strict=True)]
        self.classes = np.zeros(shape, np.uint8)
        axes = [(np.arange(n) + 0.5) * edge for n, edge in zip(shape, spacing.zyx, strict=True)]
        self._grid = np.meshgrid(*axes, indexing="ij", sparse=True)

    def draw(self, mask: NDArray[np.bool_], value: int) -> Scene:
        self.classes[mask & (self.classes == 0)] = value
        return self

    def ball(self, center: Point, radius: float, value: int = SPINE) -> Scene:
        squares = [(axis - c) ** 2 for axis, c in zip(self._grid, center, strict=True)]
        return self.draw(squares[0] + squares[1] + squares[2] <= radius**2 + EPS, value)

    def tube(self, start: Point, stop: Point, radius: float, value: int = DENDRITE) -> Scene:
        return self.draw(self.tube_mask(start, stop, radius), value)

    def tube_mask(self, start: Point, stop: Point, radius: float) -> NDArray[np.bool_]:
        """Straight tube with flat ends."""
        a, b = np.asarray(start, float), np.asarray(stop, float)
        length = float(np.linalg.norm(b - a))
        unit = (b - a) / length
        offset = [axis - p for axis, p in zip(self._grid, a, strict=True)]
        along = sum(o * u for o, u in zip(offset, unit, strict=True))
        across = sum(o**2 for o in offset) - along**2
        return (along >= -EPS) & (along <= length + EPS) & (across <= radius**2 + EPS)


def params(**changes: Any) -> QuantificationParams:
    """Defaults, but a short dendrite is a dendrite."""
    return QuantificationParams(**({"min_dendrite_volume_um3": 1.0} | changes))


def quantified(
    classes: NDArray[np.uint8],
    spacing: VoxelSpacing,
    raw: NDArray[Any] | None = None,
    scheme: int = 3,
    block_zyx: Zyx | None = None,
    confidence: NDArray[np.uint8] | None = None,
    **changes: Any,
) -> Quantified:
    """Quantify a class image, in one block or several.

    The raw image (c, z, y, x) is bright where a class is.
    """
    image = raw if raw is not None else np.where(classes > 0, 100, 10).astype(np.uint16)[None]
    z, y, x = classes.shape
    scene = MemoryImage(classes, image, spacing, SCHEMES[scheme], block_zyx or (z, y, x))
    scene.sureness = confidence
    return quantify_in_memory(scene, params(**changes))


def one_spine(
    spacing: VoxelSpacing = FINE,
    direction: Point = (0, 1, 0),
    neck_um: float = 0.6,
    head_radius_um: float = 0.3,
    shift: Point = (0, 0, 0),
    draw_neck: bool = True,
) -> Scene:
    """A dendrite along x (radius 0.5 µm, 6 µm long) with one spine in the middle of it.

    Base to tip is `neck_um` + 2 `head_radius_um`; `shift` moves everything, in voxels.
    """
    scene = Scene((4.4, 4.4, 7), spacing)
    middle = np.array([2.2, 2.2, 3.5]) + np.asarray(shift) * spacing.zyx
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    half = np.array([0, 0, 3.0])
    scene.tube(middle - half, middle + half, 0.5)
    scene.ball(middle + unit * (0.5 + neck_um + head_radius_um), head_radius_um)
    if draw_neck:
        end = middle + unit * (0.5 + neck_um + head_radius_um)
        scene.tube(middle, end, 0.12, NECK)
    return scene

"""A sparse volume of any size, with any number of spines: dendrites side by side, far apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.scenes import NECK, Ball, Scene, Solid, Tube
from bench.stores import publish
from respan_common.geometry import Box, VoxelSpacing, Zyx, shape_of

SPACING = VoxelSpacing(0.15, 0.1, 0.1)
SPINES_PER_UM = 1.5
_PIECE_UM = 2.0
_WAVE_UM, _SWING_UM = 25.0, 0.6
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def sparse_volume(shape_zyx: Zyx, spines: int, seed: int = 0) -> Scene:
    """Wavy dendrites along y (radius 0.45 to 0.7 µm) with 1.5 spines per µm.

    Parameters
    ----------
    spines
        How many there are; it decides how many dendrites. More than one dendrite per 4 µm × 4 µm
        of cross section is refused, as they would touch.
    """
    depth, length, width = (n * e for n, e in zip(shape_zyx, SPACING.zyx, strict=True))
    usable = length - 4.0
    count = max(1, round(spines / (SPINES_PER_UM * usable)))
    rows = max(1, min(count, round(math.sqrt(count * depth / width))))
    columns = math.ceil(count / rows)
    assert min(depth / rows, width / columns) >= 4.0, "too many spines for this volume"
    rng = np.random.default_rng(seed)
    heads: list[Solid] = []
    shafts: list[Solid] = []
    necks: list[Solid] = []
    for number in range(count):
        center = (
            (number // columns + 0.5) * depth / rows,
            (number % columns + 0.5) * width / columns,
        )
        own = spines * (number + 1) // count - spines * number // count
        path = _path(center, rng.uniform(0, 2 * math.pi))
        radius = float(rng.uniform(0.45, 0.7))
        shafts += _shaft(path, usable, radius)
        for k in range(own):
            y = 2.0 + (k + 0.5 + rng.uniform(-0.1, 0.1)) * usable / own
            head, neck = _spine(path(y), radius, k * _GOLDEN_ANGLE, rng)
            heads.append(head)
            necks.append(neck)
    size = (depth, length, width)
    return Scene(size, SPACING, heads + shafts + necks)


def publish_volume(store: Path, scene: Scene) -> Path:
    """Write the scene's store: noisy 16-bit grey values, and classes."""

    def grey(box: Box) -> NDArray[np.uint16]:
        rng = np.random.default_rng([part.start for part in box])
        noise = rng.integers(0, 64, shape_of(box), dtype=np.uint16)
        return np.asarray(noise + np.where(scene.paint(box) > 0, np.uint16(800), np.uint16(100)))

    return publish(store, scene.shape_zyx, scene.spacing, scene.paint, grey)


def _path(center: tuple[float, float], phase: float) -> Callable[[float], NDArray[np.float64]]:
    def at(y: float) -> NDArray[np.float64]:
        turn = 2 * math.pi * y / _WAVE_UM + phase
        return np.array(
            [center[0] + _SWING_UM * math.sin(turn), y, center[1] + _SWING_UM * math.cos(turn)]
        )

    return at


def _shaft(path: Callable[[float], Any], usable: float, radius: float) -> list[Tube]:
    pieces = math.ceil(usable / _PIECE_UM)
    marks = [path(2.0 + usable * k / pieces) for k in range(pieces + 1)]
    return [Tube(one, other, radius, round_ends=True) for one, other in itertools.pairwise(marks)]


def _spine(
    foot: NDArray[np.float64], shaft: float, angle: float, rng: np.random.Generator
) -> tuple[Ball, Tube]:
    head, neck = float(rng.uniform(0.23, 0.38)), float(rng.uniform(0.2, 0.8))
    way = np.array([math.sin(angle), 0.0, math.cos(angle)])
    center = foot + (shaft + neck + head) * way
    blur = tuple(0.6 * edge for edge in SPACING.zyx)
    return Ball(center, head), Tube(foot, center, 0.1, NECK, least_radii=blur)

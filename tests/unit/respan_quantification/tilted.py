"""Single spines at any orientation on a straight dendrite, with the truth by construction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification.profile import Middle, middle_line

FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)

SHAFT_UM = 0.5
"""Radius of the dendrite."""


@dataclass(frozen=True)
class Spine:
    """Voxels of a spine, which of them are the head's, and how it stands on its dendrite."""

    index: NDArray[np.int64]
    in_head: NDArray[np.bool_]
    roots: NDArray[np.bool_]
    base: NDArray[np.int64]
    to_dendrite_um: NDArray[np.float64]
    spacing: VoxelSpacing

    def middle(self) -> Middle:
        return middle_line(self.index, self.roots, self.base, self.to_dendrite_um, self.spacing)


def spines(
    kind: str, spacing: VoxelSpacing, draws: int, seed: int = 0, **size: float
) -> list[Spine]:
    """Along the axes first, then at random orientations; all at random places on the grid."""
    rng = np.random.default_rng(seed)
    ways = [*np.eye(3), *rng.normal(size=(draws, 3))][:draws]
    return [spine(kind, spacing, way, rng, **size) for way in ways]


def spine(
    kind: str,
    spacing: VoxelSpacing,
    way: NDArray[np.float64],
    rng: np.random.Generator,
    **size: float,
) -> Spine:
    """A spine that leaves its dendrite in the direction `way` (z, y, x)."""
    along, beside, across = _coordinates(spacing, way, rng, sum(size.values()) + 1.5)
    shaft = along**2 + across**2 <= SHAFT_UM**2
    whole, head = SHAPES[kind](along - SHAFT_UM, beside, across, **size)
    whole &= ~shaft & (along > 0)
    parts = cc3d.connected_components(whole, connectivity=26)
    whole = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    index = np.argwhere(whole)
    gaps = _ways_to(shaft, index, spacing)
    roots = np.isfinite(gaps).all(axis=1)
    points = spacing.points_um(index[roots])
    off = np.linalg.norm(points - points.mean(axis=0), axis=1)
    first = int(np.flatnonzero(roots)[int(np.argmin(off.round(6)))])
    in_head = head[tuple(index.T)]
    return Spine(index, in_head, roots, index[first], gaps[first], spacing)


def _coordinates(
    spacing: VoxelSpacing, way: NDArray[np.float64], rng: np.random.Generator, reach_um: float
) -> Any:
    """Distances of all voxels along the spine, along the dendrite, and across both."""
    frame, _ = np.linalg.qr(np.stack([way, *rng.normal(size=(2, 3))], axis=1))
    frame[:, 0] *= np.sign(frame[:, 0] @ way)
    count = [int(2 * reach_um / edge) for edge in spacing.zyx]
    shift = rng.uniform(0, 1, 3)
    axes = [
        (np.arange(n) - n / 2 + s) * e for n, s, e in zip(count, shift, spacing.zyx, strict=True)
    ]
    return np.moveaxis(np.stack(np.meshgrid(*axes, indexing="ij"), -1) @ frame, -1, 0)


def _ways_to(
    shaft: NDArray[np.bool_], index: NDArray[np.int64], spacing: VoxelSpacing
) -> NDArray[np.float64]:
    """Way from each voxel to its nearest neighbor in the dendrite; infinite if it has none."""
    padded = np.pad(shaft, 1)
    ways = np.full((len(index), 3), np.inf)
    for shift in itertools.product((-1, 0, 1), repeat=3):
        way = np.multiply(shift, spacing.zyx)
        nearer = np.linalg.norm(way) < np.linalg.norm(ways, axis=1)
        ways[padded[tuple((index + shift + 1).T)] & nearer] = way
    return ways


def mushroom(a: Any, b: Any, c: Any, neck: float, thin: float, head: float) -> Any:
    """Ball of radius `head` on a neck of radius `thin`; the gap between surfaces is `neck`."""
    ball = (a - neck - head) ** 2 + b**2 + c**2 <= head**2
    return ball | ((a <= neck + head) & (b**2 + c**2 <= thin**2)), ball


def broad(a: Any, b: Any, c: Any, neck: float, thin: float, head: float, wide: float) -> Any:
    """As a mushroom, but its head is `2 wide` across and `2 head` thick."""
    cap = ((a - neck - head) / head) ** 2 + (b**2 + c**2) / wide**2 <= 1
    return cap | ((a <= neck + head) & (b**2 + c**2 <= thin**2)), cap


def capsule(a: Any, b: Any, c: Any, length: float, radius: float) -> Any:
    """A tube with a round tip: stubby if short, a filopodium if long."""
    off = a - np.clip(a, -SHAFT_UM, length - radius)
    tube = off**2 + b**2 + c**2 <= radius**2
    return tube, tube


def bent(a: Any, b: Any, c: Any, turn: float, thin: float, head: float) -> Any:
    """A neck that is a quarter of a circle of radius `turn`, and a ball."""
    off, angle = np.hypot(a, turn - b) - turn, np.arctan2(a, turn - b)
    neck = (angle >= 0) & (angle <= np.pi / 2) & (off**2 + c**2 <= thin**2)
    neck |= (a <= 0) & (b**2 + c**2 <= thin**2)
    ball = (a - turn) ** 2 + (b - turn - head) ** 2 + c**2 <= head**2
    return neck | ball, ball


SHAPES: dict[str, Any] = {"mushroom": mushroom, "broad": broad, "capsule": capsule, "bent": bent}

"""Necks: those that the model saw are given to their spines; the missing ones are inferred.

A neck is inferred along the cheapest path, in µm, from the spine to a dendrite's surface: bright
voxels are cheap, other spines, somas and axons are closed. Where the model saw a loose piece of
neck, the path follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dijkstra3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from respan_common.geometry import Box, VoxelSpacing, Zyx, grow
from respan_quantification.classes import Mask
from respan_quantification.objects import Labels, boxes, components
from respan_quantification.surface import chord_um

DIMMEST = 5.0
"""A µm through background costs as much as five µm through voxels as bright as the spine."""

SEEN_COST = 0.1
"""Cost of a µm through a loose piece of predicted neck; bright voxels cost 1."""

CLOSED = 1e9
"""Cost of a µm through what no neck can cross."""


def give_predicted_necks(heads: Labels, necks: Mask, spacing: VoxelSpacing) -> tuple[Labels, Mask]:
    """Spines with their predicted necks, and the neck voxels that touch no spine.

    A piece of neck that touches one spine is that spine's. A piece that touches several is
    shared out by the shortest way inside it.
    """
    whole, loose = heads.copy(), np.zeros_like(necks)
    pieces = components(necks)
    for number, tight in boxes(pieces).items():
        box = grow(tight, (1, 1, 1), heads.shape)
        piece = pieces[box] == number
        seeds = np.argwhere((heads[box] > 0) & _dilated(piece))
        owners = heads[box][tuple(seeds.T)]
        if not len(owners):
            loose[box][piece] = True
        elif (owners == owners[0]).all():
            whole[box][piece] = owners[0]
        else:
            whole[box][piece] = _shared(piece, seeds, owners, spacing)[piece]
    return whole, loose


def _dilated(mask: Mask) -> Mask:
    """Mask and its 26 neighbors."""
    grown = mask
    for axis in range(3):
        wide = grown.copy()
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        wide[tuple(ahead)] |= grown[tuple(behind)]
        wide[tuple(behind)] |= grown[tuple(ahead)]
        grown = wide
    return grown


def _shared(
    piece: Mask, seeds: NDArray[np.int64], owners: NDArray[np.uint32], spacing: VoxelSpacing
) -> Labels:
    """Owner of the seed that each voxel of the piece reaches by the shortest way."""
    open_voxels = piece.astype(np.uint8)
    open_voxels[tuple(seeds.T)] = 1
    sources = [(int(z), int(y), int(x)) for z, y, x in seeds]
    _, nearest = dijkstra3d.euclidean_distance_field(
        open_voxels, sources, anisotropy=spacing.zyx, return_feature_map=True
    )
    return np.asarray(np.concatenate([[0], owners]).astype(np.uint32)[nearest])


@dataclass(frozen=True)
class Surroundings:
    """Everything that a path must know: labels of the volume, and the neuron's grey values."""

    whole: Labels
    dendrites: Labels
    closed: Mask
    loose: Mask
    neuron: NDArray[np.generic]


@dataclass(frozen=True)
class Gap:
    """A spine that touches no dendrite, and the nearest pair of voxels across the gap."""

    spine_id: int
    spine_zyx: tuple[int, int, int]
    dendrite_zyx: tuple[int, int, int]
    gap_um: float


def infer_necks(
    around: Surroundings,
    gaps: list[Gap],
    boxes_of: dict[int, Box],
    spacing: VoxelSpacing,
    max_length_um: float,
    tick: Callable[[], None],
) -> dict[int, NDArray[np.int64]]:
    """Draw the missing necks into `around.whole`, shortest gap first.

    Returns
    -------
    dict
        For each spine that was joined, the voxels that its neck got, shape (n, 3).
    """
    joined = {}
    for gap in sorted(gaps, key=lambda one: one.gap_um):
        tick()
        if gap.gap_um > max_length_um:
            continue
        depth, height, width = around.whole.shape
        shape_zyx = (depth, height, width)
        box = _room(gap, boxes_of[gap.spine_id], spacing, max_length_um, shape_zyx)
        neck = _inferred_neck(around, gap, box, spacing, max_length_um)
        if neck is not None:
            around.whole[tuple(neck.T)] = gap.spine_id
            joined[gap.spine_id] = neck
    return joined


def _room(gap: Gap, spine: Box, spacing: VoxelSpacing, max_length_um: float, shape: Zyx) -> Box:
    """Box in which the path may run: spine, dendrite voxel, and half the gap around them."""
    low = np.minimum([part.start for part in spine], gap.dendrite_zyx)
    high = np.maximum([part.stop - 1 for part in spine], gap.dendrite_zyx)
    z, y, x = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    margin = spacing.reach(min(max_length_um, 0.5 * gap.gap_um + 0.5))
    return grow((z, y, x), margin, shape)


def _inferred_neck(
    around: Surroundings, gap: Gap, box: Box, spacing: VoxelSpacing, max_length_um: float
) -> NDArray[np.int64] | None:
    own, dendrite = around.whole[box] == gap.spine_id, around.dendrites[box] > 0
    loose = around.loose[box]
    closed = around.closed[box] | ((around.whole[box] > 0) & ~own)
    cost = _cost(np.asarray(around.neuron[box], np.float32), own, dendrite)
    cost[loose] = SEEN_COST
    cost[closed] = CLOSED
    cost[own | dendrite] = 0.0
    corner = np.array([part.start for part in box])
    start, stop = (
        tuple(int(i) for i in np.subtract(at, corner)) for at in (gap.spine_zyx, gap.dendrite_zyx)
    )
    walk = dijkstra3d.dijkstra(cost, start, stop, anisotropy=spacing.zyx).astype(np.int64)
    way = _between(walk, own, dendrite)
    free = way[1:-1]
    if not len(free) or closed[tuple(free.T)].any() or _length_um(way, spacing) > max_length_um:
        return None
    return np.asarray(_with_loose_pieces(free, loose, own | dendrite) + corner)


def _cost(grey: NDArray[np.float32], own: Mask, dendrite: Mask) -> NDArray[np.float32]:
    """1 per µm where it is as bright as the spine, `DIMMEST` in the background."""
    free = grey[~(own | dendrite)]
    low = float(np.percentile(free, 20)) if len(free) else 0.0
    high = float(np.median(grey[own]))
    if high <= low:
        return np.ones_like(grey)
    bright = np.clip((gaussian_filter(grey, 0.7) - low) / (high - low), 0, 1)
    return np.asarray(DIMMEST - (DIMMEST - 1) * bright, dtype=np.float32)


def _between(walk: NDArray[np.int64], own: Mask, dendrite: Mask) -> NDArray[np.int64]:
    """The way's last spine voxel, its free voxels, and the first dendrite voxel it meets."""
    arrival = int(np.argmax(dendrite[tuple(walk.T)]))
    departure = int(np.flatnonzero(own[tuple(walk[:arrival].T)])[-1])
    return walk[departure : arrival + 1]


def _length_um(way: NDArray[np.int64], spacing: VoxelSpacing) -> float:
    """Length between the facing surfaces."""
    points = spacing.points_um(way)
    steps = np.diff(points, axis=0)
    ends = chord_um(steps[[0, -1]], spacing).sum() / 2
    return float(np.linalg.norm(steps, axis=1).sum() - ends)


def _with_loose_pieces(free: NDArray[np.int64], loose: Mask, taken: Mask) -> NDArray[np.int64]:
    """Path voxels and all of every loose piece that the path crosses."""
    on_path = np.zeros_like(loose)
    on_path[tuple(free.T)] = True
    pieces = components(loose & ~taken)
    crossed = np.unique(pieces[on_path])
    return np.argwhere(on_path | (np.isin(pieces, crossed[crossed > 0])))

"""Necks: those that the model saw are given to their spines; the missing ones are inferred.

A neck is inferred along the cheapest path, in µm, from the spine to a dendrite's surface: bright
voxels are cheap, other spines, somas and axons are closed. Where the model saw a loose piece of
neck, the path follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import dijkstra3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from respan_common.geometry import Box, VoxelSpacing, Zyx, grow
from respan_quantification.classes import Mask
from respan_quantification.objects import Labels, boxes, components
from respan_quantification.surface import chord_um

DIMMEST = 8.0
"""A µm through background costs as much as this many µm through bright voxels."""

BRIGHT = 0.5
"""Share of the spine's brightness above the background that is as good as all of it: a neck that
is thinner than the resolution is dimmer than the head, but no less real."""

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
class Room:
    """All that a path must know of the box in which it may run; arrays of one shape (z, y, x).

    `own` are the spine's voxels, `closed` those that no neck can cross, `loose` predicted neck
    voxels that no spine owns, `grey` the neuron's channel.
    """

    own: Mask
    dendrites: Labels
    closed: Mask
    loose: Mask
    grey: NDArray[np.generic]


@dataclass(frozen=True)
class Neck:
    """A neck that was inferred.

    `path_zyx`, shape (n, 3), runs from the spine's last voxel to the dendrite's first one;
    `voxels_zyx` are those between, and all of the loose pieces that the path crosses.

    `quality` is what speaks for the path, from 0 to 1: the mean brightness along it (0: as the
    background, 1: at least half as far above it as the spine; predicted neck voxels count 1),
    less up to a half for a path as long as is allowed. 0 where the spine itself is no brighter
    than its background.
    """

    dendrite_id: int
    path_zyx: NDArray[np.int64]
    voxels_zyx: NDArray[np.int64]
    length_um: float
    quality: float


def room_of(
    low_zyx: NDArray[np.integer],
    high_zyx: NDArray[np.integer],
    gap_um: float,
    spacing: VoxelSpacing,
    shape_zyx: Zyx,
) -> Box:
    """Box in which a path may run: from `low` to `high` (inclusive), half the gap and 1 µm around.

    It holds the spine and the nearest dendrite voxel; clipped at the image's faces.
    """
    z, y, x = (slice(int(a), int(b) + 1) for a, b in zip(low_zyx, high_zyx, strict=True))
    return grow((z, y, x), spacing.reach(0.5 * gap_um + 1.0), shape_zyx)


def infer_neck(
    room: Room, start_zyx: Zyx, stop_zyx: Zyx, spacing: VoxelSpacing, max_length_um: float
) -> Neck | None:
    """The cheapest way from a spine to a dendrite, unless it is too long or there is none.

    Parameters
    ----------
    start_zyx, stop_zyx
        The spine's voxel and the nearest dendrite's between which the gap is smallest. Other
        dendrites in the room are tried too: a visible way to one that is a little farther is
        worth more than a dark one to the nearest.
    """
    bright = _brightness(room, spacing)
    cost = _cost(room, bright)
    rivals = _rivals(room, stop_zyx, spacing, max_length_um)
    fair = _without_halos(cost, room) if rivals else cost
    ways: list[tuple[float, int, NDArray[np.int64]]] = []
    for start, stop in [(start_zyx, stop_zyx), *rivals]:
        walk = dijkstra3d.dijkstra(cost, start, stop, anisotropy=spacing.zyx).astype(np.int64)
        way = _between(walk, room.own, room.dendrites > 0)
        if _is_open(way, room, spacing, max_length_um):
            ways.append((_price(way, fair, spacing), len(ways), way))
    if not ways:
        return None
    way = min(ways)[2]
    length_um = _length_um(way, spacing)
    shares = np.where(room.loose, 1, bright)[tuple(way[1:-1].T)]
    quality = float(shares.mean()) * (1 - 0.5 * length_um / max_length_um)
    dendrite_id = int(room.dendrites[tuple(way[-1])])
    return Neck(dendrite_id, way, _with_loose_pieces(way[1:-1], room), length_um, quality)


def _rivals(
    room: Room, stop_zyx: Zyx, spacing: VoxelSpacing, max_length_um: float
) -> list[tuple[Zyx, Zyx]]:
    """Nearest pair of voxels of the spine and each dendrite but the nearest."""
    ids = np.unique(room.dendrites)
    ids = ids[(ids > 0) & (ids != room.dendrites[stop_zyx])]
    if not len(ids):
        return []
    own = np.argwhere(room.own)
    tree = cKDTree(spacing.points_um(own))
    pairs = []
    for number in ids:
        theirs = np.argwhere(room.dendrites == number)
        found = tree.query(spacing.points_um(theirs))
        distance, row = np.asarray(found[0]), np.asarray(found[1])
        best = int(np.argmin(distance))
        if distance[best] <= max_length_um:
            pairs.append((_voxel(own[row[best]]), _voxel(theirs[best])))
    return pairs


def _voxel(index: NDArray[np.integer]) -> Zyx:
    z, y, x = (int(edge) for edge in index)
    return z, y, x


def _brightness(room: Room, spacing: VoxelSpacing) -> NDArray[np.float32]:
    """0 in the background, 1 where it is `BRIGHT` as the spine is; 0 without a difference."""
    grey = np.nan_to_num(np.asarray(room.grey, np.float32), posinf=0, neginf=0)
    free = grey[~(room.own | (room.dendrites > 0))]
    low = float(np.percentile(free, 20)) if len(free) else 0.0
    high = float(np.median(grey[room.own]))
    if high <= low:
        return np.zeros_like(grey)
    # Less than a voxel: thick slices must not spread into one another.
    smooth = gaussian_filter(grey, 0.7 * min(spacing.zyx) / np.asarray(spacing.zyx))
    return np.asarray(np.clip((smooth - low) / (BRIGHT * (high - low)), 0, 1), np.float32)


def _cost(room: Room, bright: NDArray[np.float32]) -> NDArray[np.float32]:
    """Price of a µm: 1 where it is bright, `DIMMEST` in the background."""
    cost = np.asarray(DIMMEST - (DIMMEST - 1) * bright, dtype=np.float32)
    cost[room.loose] = SEEN_COST
    cost[room.closed] = CLOSED
    cost[room.own | (room.dendrites > 0)] = 0.0
    return cost


def _without_halos(cost: NDArray[np.float32], room: Room) -> NDArray[np.float32]:
    """Cost in which voxels beside the spine or a dendrite count as dark.

    They are bright by blur alone. Of two ways, the one across a single thick slice would always
    seem to be a neck.
    """
    solid = room.own | (room.dendrites > 0)
    return np.where(_dilated(solid) & ~solid & ~room.loose & ~room.closed, DIMMEST, cost).astype(
        np.float32
    )


def _is_open(
    way: NDArray[np.int64], room: Room, spacing: VoxelSpacing, max_length_um: float
) -> bool:
    free = way[1:-1]
    return (
        len(free) > 0
        and not room.closed[tuple(free.T)].any()
        and _length_um(way, spacing) <= max_length_um
    )


def _price(way: NDArray[np.int64], cost: NDArray[np.float32], spacing: VoxelSpacing) -> float:
    """Cost of a way, half of each step in either voxel: it begins and ends on their sides."""
    steps_um = np.linalg.norm(np.diff(spacing.points_um(way), axis=0), axis=1)
    prices = cost[tuple(way.T)].astype(np.float64)
    return float((steps_um * (prices[1:] + prices[:-1]) / 2).sum())


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


def _with_loose_pieces(free: NDArray[np.int64], room: Room) -> NDArray[np.int64]:
    """Path voxels and all of every loose piece that the path crosses, in raster order."""
    on_path = np.zeros_like(room.loose)
    on_path[tuple(free.T)] = True
    if room.loose[tuple(free.T)].any():
        pieces = components(room.loose & ~room.own & (room.dendrites == 0))
        crossed = np.unique(pieces[on_path])
        on_path |= np.isin(pieces, crossed[crossed > 0])
    return np.argwhere(on_path)

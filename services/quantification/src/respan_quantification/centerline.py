"""Centerlines: smooth curves through the middle of a dendrite, with sub-voxel accuracy.

Plan (a principal curve, Hastie & Stuetzle 1989): every voxel of the dendrite is projected on the
nearest path; the curve then moves to the local linear regression of the voxels' positions on
their arc length; repeat. A voxel path's own steps, which are too long by up to 73 % on a grid,
never enter the result. Free ends are drawn out to the dendrite's surface.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.regression import smooth_curve
from respan_quantification.skeleton import VoxelPath
from respan_quantification.surface import chord_um

Points = NDArray[np.float64]

STIFFNESS = (3.0, 2.0, 1.0, 1.0)
"""Bandwidths of the rounds, in final bandwidths: stiff first, so that no draft's kink survives."""


SPUR_EXTENTS = 1.5
"""A side path shorter than this many extents of the path that it begins on is a spur."""


@dataclass(frozen=True)
class Curve:
    """Nodes of one centerline in µm, shape (n, 3), n >= 2 unless the dendrite is a dot.

    `parent` is the curve it begins on, -1 for the first. Its first node then lies outside the
    parent's own thickness; the tree joins the two.
    """

    points_um: Points
    parent: int


def fit(
    paths: list[VoxelPath],
    samples_um: Points,
    spacing: VoxelSpacing,
    workers: int = 1,
    cell: VoxelSpacing | None = None,
) -> list[Curve]:
    """Smooth all paths of one dendrite at once.

    Parameters
    ----------
    paths
        From `skeleton.trace`; in the same frame as `samples_um`.
    samples_um : float array, shape (n, 3)
        Centers of all voxels of the dendrite, or of an even choice of them.
    cell
        What the indices of the paths count, if not voxels.
    """
    while True:
        curves, distances = _fitted(paths, samples_um, spacing, cell or spacing, workers)
        spurs = _spurs(paths, distances, cell or spacing)
        if not spurs:
            break
        paths = _without(paths, spurs)
    return [Curve(points, path.parent) for points, path in zip(curves, paths, strict=True)]


def _fitted(
    paths: list[VoxelPath],
    sample: Points,
    spacing: VoxelSpacing,
    cell: VoxelSpacing,
    workers: int,
) -> tuple[list[Points], list[Points]]:
    """Nodes of each path's curve, and the distances of the voxels that it explains."""
    drafts = [_draft(path, cell) for path in paths]
    owners, _, distance = _nearest_nodes(drafts, sample, workers)
    widths = [_bandwidth_um(path, distance[owners == n], spacing) for n, path in enumerate(paths)]
    curves = [_evenly(points, width / 2) for points, width in zip(drafts, widths, strict=True)]
    for stiffness in STIFFNESS:
        owners, nodes, _ = _nearest_nodes(curves, sample, workers)
        curves = [
            _refit(
                curves[n],
                sample[owners == n],
                nodes[owners == n],
                stiffness * widths[n],
                spacing,
                free_start=paths[n].parent < 0,
            )
            for n in range(len(curves))
        ]
    owners, _, distance = _nearest_nodes(curves, sample, workers)
    return curves, [distance[owners == n] for n in range(len(curves))]


def _spurs(paths: list[VoxelPath], distances: list[Points], spacing: VoxelSpacing) -> set[int]:
    """Side paths without side paths of their own that hardly leave the one they begin on.

    A cross section with half axes a >= b has a root mean square radius of sqrt(a² + b²) / 2: twice
    that is a for a flat one, 1.4 a for a round one. So a spur of a tube is shorter than its
    radius beyond the surface.
    """
    parents = {path.parent for path in paths}
    spurs = set()
    for n, path in enumerate(paths):
        if path.parent < 0 or n in parents or not len(distances[path.parent]):
            continue
        extent = 2 * float(np.sqrt(np.mean(np.square(distances[path.parent]))))
        # The voxel path, as a spur's curve may have spread along the parent.
        if _walked(spacing.points_um(path.index_zyx))[-1] < SPUR_EXTENTS * extent:
            spurs.add(n)
    return spurs


def _without(paths: list[VoxelPath], spurs: set[int]) -> list[VoxelPath]:
    kept = [n for n in range(len(paths)) if n not in spurs]
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    return [replace(paths[n], parent=number[paths[n].parent]) for n in kept]


def _bandwidth_um(path: VoxelPath, distance_um: Points, spacing: VoxelSpacing) -> float:
    """Standard deviation of the kernel: half a radius, but never finer than the slices.

    A dendrite that is smeared along z counts with its larger radius: in a ribbon, a curve with a
    narrower kernel is free to wander from side to side.
    """
    radius_um = float(np.median(path.radius_um))
    if len(distance_um):
        radius_um = max(radius_um, float(np.sqrt(2 * np.mean(np.square(distance_um)))))
    return max(0.5 * radius_um, *spacing.zyx)


def _draft(path: VoxelPath, spacing: VoxelSpacing) -> Points:
    """Path without its free ends, which run to a corner, and without the part in its parent."""
    points = spacing.points_um(path.index_zyx)
    walked = _walked(points)
    radius = float(np.median(path.radius_um))
    for radii in (2.0, 1.0, 0.5):
        start = float(path.radius_um[0]) if path.parent >= 0 else radii * radius
        kept = (walked >= start) & (walked <= walked[-1] - radii * radius)
        if kept.sum() >= 2 and np.ptp(walked[kept]) >= radii * radius:
            return np.asarray(points[kept])
    return points if path.parent < 0 else points[len(points) // 2 :]


def _nearest_nodes(
    curves: list[Points], voxels_um: Points, workers: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Points]:
    """For each voxel: the curve that is nearest, the node on it, and how far it is."""
    owners = np.repeat(np.arange(len(curves)), [len(curve) for curve in curves])
    nodes = np.concatenate([np.arange(len(curve)) for curve in curves])
    distance, row = cKDTree(np.concatenate(curves)).query(voxels_um, workers=workers)
    return owners[row], nodes[row], np.asarray(distance)


def _refit(
    curve: Points,
    voxels_um: Points,
    nodes: NDArray[np.int64],
    width_um: float,
    spacing: VoxelSpacing,
    *,
    free_start: bool,
) -> Points:
    """One round for one curve; a curve that owns next to nothing stays as it is."""
    if len(curve) < 2 or len(voxels_um) < 2:
        return curve
    tangents, walked = _tangents(curve), _walked(curve)
    # Ends are projected on a straight continuation: a bend there would feed on itself.
    first, last = _straight_ends(tangents, walked, 2 * width_um, free_start=free_start)
    nodes = np.clip(nodes, first, last)
    along = walked[nodes] + np.einsum("ij,ij->i", voxels_um - curve[nodes], tangents[nodes])
    stop = _end(along, tangents[last], width_um, spacing)
    start = -_end(-along, tangents[first], width_um, spacing) if free_start else 0.0
    if stop - start < min(spacing.zyx):
        return curve
    inside = along >= start - width_um / 4
    return smooth_curve(along[inside], voxels_um[inside], start, stop, width_um)


def _straight_ends(
    tangents: Points, walked: Points, length_um: float, *, free_start: bool
) -> tuple[int, int]:
    """Nodes that end the trusted part of a curve; their tangents become means over as much again.

    The whole curve is trusted if it is shorter than six such lengths.
    """
    if walked[-1] < 6 * length_um:
        return 0, len(walked) - 1
    first = int(np.searchsorted(walked, length_um)) if free_start else 0
    last = int(np.searchsorted(walked, walked[-1] - length_um)) - 1
    inner = walked[last] - walked < length_um
    tangents[last] = _unit(tangents[: last + 1][inner[: last + 1]].mean(axis=0))
    if free_start:
        inner = walked - walked[first] < length_um
        tangents[first] = _unit(tangents[first:][inner[first:]].mean(axis=0))
    return first, last


def _unit(vector: Points) -> Points:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _end(along: Points, tangent: Points, width_um: float, spacing: VoxelSpacing) -> float:
    """Arc length at which the tube ends.

    The last voxel center says it within a voxel. A flat end is found better by volume: what lies
    beyond a cut, divided by the cross section before it. A pointed or round end has less volume
    than that, a bulb more; so the answer stays within half a voxel beyond the last center.
    """
    farthest = float(along.max())
    half_voxel = 0.5 * float(chord_um(tangent[None], spacing)[0])
    cut = farthest - 2 * width_um
    if along.min() > cut - 4 * width_um:
        return farthest + half_voxel
    ranks = np.arange(len(along)) + 0.5
    ordered = np.sort(along)
    before = (ordered > cut - 4 * width_um) & (ordered <= cut)
    # Ranks of voxels in one slice average to the slice's middle, so slices do no harm here.
    per_um, at_zero = np.polyfit(ordered[before], ranks[before], 1)
    return float(np.clip((len(along) - at_zero) / per_um, farthest, farthest + half_voxel))


def _tangents(points: Points) -> Points:
    tangents = np.gradient(points, axis=0)
    return np.asarray(tangents / np.maximum(np.linalg.norm(tangents, axis=1), 1e-12)[:, None])


def _walked(points: Points) -> Points:
    """Arc length at each node, 0 at the first."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.asarray(np.r_[0.0, np.cumsum(steps)])


def _evenly(points: Points, step_um: float) -> Points:
    """Same curve with nodes about `step_um` apart, first and last kept."""
    walked = _walked(points)
    if len(points) < 2 or walked[-1] == 0:
        return points
    at = np.linspace(0, walked[-1], max(int(np.ceil(walked[-1] / step_um)) + 1, 2))
    return np.stack([np.interp(at, walked, points[:, axis]) for axis in range(3)], axis=1)

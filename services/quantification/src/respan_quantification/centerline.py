"""Centerlines: smooth curves through the middle of a dendrite, with sub-voxel accuracy.

Plan (a principal curve, Hastie & Stuetzle 1989): every voxel of the dendrite is projected on the
nearest path; the curve then moves to the local linear regression of the voxels' positions on
their arc length; repeat. A voxel path's own steps, which are too long by up to 73 % on a grid,
never enter the result. Free ends are drawn out to the dendrite's surface.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing
from respan_quantification.regression import smooth_curve
from respan_quantification.skeleton import VoxelPath

Points = NDArray[np.float64]

STIFFNESS = (3.0, 2.0, 1.0, 1.0)
"""Bandwidths of the rounds, in final bandwidths: stiff first, so that no draft's kink survives."""


SLICES = 1.5
"""Least width of a kernel in slices: a narrower one follows the steps of an oblique dendrite."""

INNER = (0.9, 0.5)
"""Share of a tube's voxels whose places are told apart from those beside it: of a tube that lies in
the slices (by 17° at most), and of one that runs through them by 37° or more."""

SPUR_EXTENTS = 1.5
"""A side path shorter than this many extents of the path that it begins on is a spur."""


@dataclass(frozen=True)
class Curve:
    """Nodes of one centerline in µm, shape (n, 3), n >= 2 unless the dendrite is a dot.

    `parent` is the curve it begins on, -1 for the first. Its first node then lies outside the
    parent's own thickness; the tree joins the two. `radius_um` is the dendrite's there.
    """

    points_um: Points
    parent: int
    radius_um: float


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
    return [
        Curve(points, path.parent, float(np.median(path.radius_um)))
        for points, path in zip(curves, paths, strict=True)
    ]


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
    sharpness = [
        _sharpness(path, width, spacing) for path, width in zip(paths, widths, strict=True)
    ]
    for stiffness in STIFFNESS:
        owners, nodes, _ = _nearest_nodes(curves, sample, workers)
        curves = [
            _refit(
                curves[n],
                sample[owners == n],
                nodes[owners == n],
                stiffness * widths[n],
                sharpness[n] if stiffness == 1 else np.zeros(3),
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
    """Standard deviation of the kernel: 0.7 radii, but never finer than 1.5 slices.

    Where a dendrite bends with curvature k, more of its voxels lie on the outer side: their mean is
    off by k r² / 4. A kernel of width s cuts the corner by k s² / 2. For s² = r² / 2 both cancel.

    A dendrite that is smeared along z counts with its larger radius: in a ribbon, a curve with a
    narrower kernel is free to wander from side to side.
    """
    radius_um = float(np.median(path.radius_um))
    if len(distance_um):
        radius_um = max(radius_um, float(np.sqrt(2 * np.mean(np.square(distance_um)))))
    return float(max(np.sqrt(0.5) * radius_um, SLICES * max(spacing.zyx)))


def _sharpness(path: VoxelPath, width_um: float, spacing: VoxelSpacing) -> Points:
    """Share of the kernel's own cut of corners to be put back along each axis.

    That is all but what voxels outweigh (see `_bandwidth_um`), and nothing along an axis whose
    voxels are as long as the kernel is wide: there it would bring the slices' steps back.
    """
    share = max(1.0 - float(np.median(path.radius_um)) ** 2 / (2 * width_um**2), 0.0)
    return share * _fineness(width_um, spacing)


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
    sharpness: Points,
    spacing: VoxelSpacing,
    *,
    free_start: bool,
) -> Points:
    """One round for one curve; a curve that owns next to nothing stays as it is."""
    if len(curve) < 2 or len(voxels_um) < 2:
        return curve
    curve = _continued(curve, 1.5 * width_um, _fineness(width_um, spacing), free_start=free_start)
    tangents, walked = _tangents(curve), _walked(curve)
    along = walked[nodes] + np.einsum("ij,ij->i", voxels_um - curve[nodes], tangents[nodes])
    stop = _end(along, voxels_um, tangents[-1], width_um, spacing)
    start = -_end(-along, voxels_um, -tangents[0], width_um, spacing) if free_start else 0.0
    if stop - start < min(spacing.zyx):
        return curve
    inside = along >= start - width_um / 4
    return smooth_curve(along[inside], voxels_um[inside], start, stop, width_um, sharpness)


def _continued(curve: Points, length_um: float, fineness: Points, *, free_start: bool) -> Points:
    """The curve with its free ends, so long, replaced by what the part before them foretells.

    An end's own shape feeds on itself: voxels would be projected on a bend that they make. A
    parabola through twice that length goes on as a straight or an evenly bent dendrite does; along
    an axis with coarse voxels (`fineness` 0) a straight line does, as their steps look like bends.
    A curve shorter than six such lengths stays as it is.
    """
    walked = _walked(curve)
    if walked[-1] < 6 * length_um:
        return curve
    curve = _foretold(curve, walked, length_um, fineness)
    if free_start:
        curve = _foretold(curve[::-1], walked[-1] - walked[::-1], length_um, fineness)[::-1]
    return curve


def _foretold(curve: Points, walked: Points, length_um: float, fineness: Points) -> Points:
    """The last nodes replaced by a fit through those before them."""
    beyond = walked > walked[-1] - length_um
    known = ~beyond & (walked >= walked[-1] - 3 * length_um)
    if known.sum() < 4:
        return curve
    at = walked - walked[known].mean()
    line, parabola = (polynomial.polyfit(at[known], curve[known], degree) for degree in (1, 2))
    straight, bent = (polynomial.polyval(at, fit).T for fit in (line, parabola))
    foretold = straight + fineness * (bent - straight)
    seam = int(np.flatnonzero(known)[-1])  # no step there
    foretold += curve[seam] - foretold[seam]
    return np.concatenate([curve[~beyond], foretold[beyond]])


def _fineness(width_um: float, spacing: VoxelSpacing) -> Points:
    """How well each axis resolves a curve of that kernel: 1 finely, 0 not at all."""
    return np.asarray(np.maximum(1.0 - np.square(np.divide(spacing.zyx, width_um)), 0.0))


def _end(
    along: Points, voxels_um: Points, tangent: Points, width_um: float, spacing: VoxelSpacing
) -> float:
    """Arc length at which the tube ends: between its last voxel and the first one missing.

    A flat end is found within that by volume: what lies beyond a cut, divided by the cross
    section before it. A pointed or round end has less volume than that, a bulb more.
    """
    farthest = float(along.max())
    missing = farthest + _gap_um(along, voxels_um, tangent, width_um, spacing)
    cut = farthest - 2 * width_um
    if along.min() > cut - 4 * width_um:
        return (farthest + missing) / 2
    ranks = np.arange(len(along)) + 0.5
    ordered = np.sort(along)
    before = (ordered > cut - 4 * width_um) & (ordered <= cut)
    # Ranks of voxels in one slice average to the slice's middle, so slices do no harm here.
    per_um, at_zero = np.polyfit(ordered[before], ranks[before], 1)
    return float(np.clip((len(along) - at_zero) / per_um, farthest, missing))


def _gap_um(
    along: Points, voxels_um: Points, tangent: Points, width_um: float, spacing: VoxelSpacing
) -> float:
    """How far beyond the last voxel the tube's continuation would hold another one.

    The continuation is straight; its cross section is an ellipse shaped like the spread of the
    voxels before the end, so large that it holds the inner ones of them. Farther out, a missing
    voxel may as well be beside the tube as beyond its end.
    """
    tail, last = voxels_um[along > along.max() - 2 * width_um], voxels_um[np.argmax(along)]
    across = _across(tail - tail.mean(axis=0), tangent)
    # A tube as thin as a voxel has no spread; a twentieth of a voxel keeps the inverse finite.
    noise = np.diag(np.square(np.multiply(spacing.zyx, 0.05)))
    covariance = across.T @ across / len(across) + noise
    inverse = np.linalg.inv(covariance)
    most = float(np.quantile(_squares(across, inverse), _inner(tangent, spacing))) + 1e-9
    off = _across((last - tail.mean(axis=0))[None], tangent)[0]
    diagonal_um = float(np.linalg.norm(spacing.zyx))
    spread = np.sqrt(most * np.diag(covariance))
    low, high = (
        np.minimum(tangent * diagonal_um, 0) - spread,
        np.maximum(tangent * diagonal_um, 0) + spread,
    )
    steps = _lattice_steps(low - off, high - off, spacing)
    ahead = steps @ tangent
    within = _squares(_across(steps, tangent) + off, inverse) <= most
    return float(ahead[within & (ahead > 1e-9)].min(initial=diagonal_um))


def _inner(tangent: Points, spacing: VoxelSpacing) -> float:
    """Share of a tube's voxels that are surely inside it (see `INNER`)."""
    steepness = abs(float(tangent[int(np.argmax(spacing.zyx))]))
    return float(np.interp(steepness, (0.3, 0.6), INNER))


def _lattice_steps(low_um: Points, high_um: Points, spacing: VoxelSpacing) -> Points:
    """Ways from a voxel to all voxels in a box around it, shape (n, 3)."""
    edges = np.asarray(spacing.zyx)
    first, last = np.ceil(low_um / edges).astype(int), np.floor(high_um / edges).astype(int)
    steps = np.indices(np.maximum(last - first + 1, 0)).reshape(3, -1).T + first
    return spacing.points_um(steps)


def _squares(vectors: Points, inverse: Points) -> Points:
    """Squared lengths, counted in standard deviations."""
    return np.asarray(np.einsum("ij,jk,ik->i", vectors, inverse, vectors))


def _across(vectors: Points, tangent: Points) -> Points:
    """The parts of vectors that are perpendicular to a unit vector."""
    return np.asarray(vectors - np.outer(vectors @ tangent, tangent))


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

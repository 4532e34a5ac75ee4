"""A spine's middle line from its base to its tip, and how thick the spine is along it.

Plan: a path between two voxels, cheap in the middle, gives the course. The line is then drawn
through the centers of mass of the voxels around each of its points, which removes the grid's steps.
Every voxel is assigned to the nearest place on the line; volume per length is the area of the cross
section. So the areas add up to the volume, whatever the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import dijkstra3d
import edt
import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing

Floats = NDArray[np.float64]

_COURSE_RADII = 1.25
"""The line's course is that of the voxels which are as near to the walk as this, in radii of the
stem: side branches and lobes have no say."""

_STEM_RADII = 3.0
"""What is farther out belongs to a side branch. A flat head may be three times as far across as it
is thick."""

MOST_POINTS = 200
"""Points of a line: more than any spine needs, and a bound on the work for a huge one."""


@dataclass(frozen=True)
class Middle:
    """A spine's middle line, P points, and its V voxels' places on it.

    Attributes
    ----------
    points_um : float array, shape (P, 3)
        From the base, on the dendrite's surface, to the tip, on the spine's; evenly spaced.
    step_um : float
        Length of the line between two points.
    along_um : float array, shape (V,)
        Where on the line each voxel's center projects to; negative before the base. NaN for voxels
        that hang on by nothing.
    off_um : float array, shape (V,)
        Distance of each voxel's center to the line.
    width_um : float array, shape (V,)
        How much of the line each voxel covers.
    on_stem : bool array, shape (V,)
        Not of a side branch, nor of a part that hangs on by nothing: cross sections count these.
    """

    points_um: Floats
    step_um: float
    along_um: Floats
    off_um: Floats
    width_um: Floats
    on_stem: NDArray[np.bool_]

    @property
    def length_um(self) -> float:
        """From base to tip along the line."""
        return self.step_um * (len(self.points_um) - 1)

    @property
    def straight_um(self) -> float:
        """From base to tip in a straight line."""
        return float(np.linalg.norm(self.points_um[-1] - self.points_um[0]))

    @property
    def positions_um(self) -> Floats:
        """Position of each point on the line, 0 at the base."""
        return np.asarray(self.step_um * np.arange(len(self.points_um)), np.float64)

    def direction_at(self, position_um: float) -> Floats:
        """Unit vector along the line, towards the tip."""
        row = min(int(position_um / self.step_um) if self.step_um else 0, len(self.points_um) - 2)
        way = self.points_um[row + 1] - self.points_um[row]
        return np.asarray(way / max(float(np.linalg.norm(way)), 1e-12))


def middle_line(
    index_zyx: NDArray[np.integer],
    roots: NDArray[np.bool_],
    base_zyx: NDArray[np.integer],
    to_dendrite_um: Floats,
    spacing: VoxelSpacing,
    foot_um: Floats | None = None,
) -> Middle:
    """Middle line of one spine.

    Parameters
    ----------
    index_zyx : int array, shape (V, 3)
        The spine's voxels.
    roots : bool array, shape (V,)
        Voxels that touch the dendrite; none of them if the spine does not.
    base_zyx : int array, shape (3,)
        The one among them in the middle, where the line begins.
    to_dendrite_um : float array, shape (3,)
        From that voxel's center to that of the dendrite's nearest voxel. The line begins halfway
        if they touch, otherwise on the voxel's side.
    foot_um : float array, shape (3,), optional
        Where the line begins, if that is known better.

    Returns
    -------
    Middle
        Points in µm, as `spacing` places the voxels of `index_zyx`.
    """
    edges = np.asarray(spacing.zyx)
    corner = index_zyx.min(axis=0) - 1
    index, base = index_zyx - corner, base_zyx - corner
    mask = np.zeros(index.max(axis=0) + 2, dtype=np.uint8)
    mask[tuple(index.T)] = 1
    starts = index[roots] if roots.any() else base[None]
    way_um = _way_um(mask, index, starts, base, spacing)
    cap = _cap(index, way_um, starts, spacing)
    walk, inside_um = _walk(mask, base, cap[_middlemost(cap * edges)], spacing)
    if not len(walk):  # the spine stands on two feet that only its dendrite joins
        return middle_line(
            index_zyx, np.all(index_zyx == base_zyx, axis=1), base_zyx, to_dendrite_um, spacing
        )
    radii = _radii_off(index * edges, walk * edges, inside_um, max(spacing.zyx))
    radii[~np.isfinite(way_um)] = np.inf
    near = radii <= _COURSE_RADII
    start_um = to_dendrite_um / 2 if roots.any() else _to_side(to_dendrite_um, spacing)
    foot = base * edges + start_um if foot_um is None else foot_um - corner * edges
    ends = foot, cap.mean(axis=0) * edges
    line = _course(ends, index[near] * edges, way_um[near], (walk * edges, inside_um), spacing)
    middle = _placed(line, index * edges, np.isfinite(way_um), spacing)
    return replace(
        middle, points_um=middle.points_um + corner * edges, on_stem=radii <= _STEM_RADII
    )


def _way_um(
    mask: NDArray[np.uint8],
    index: NDArray[np.integer],
    starts: NDArray[np.integer],
    base: NDArray[np.integer],
    spacing: VoxelSpacing,
) -> Floats:
    """Way to each voxel along the inside from where the spine stands; infinite without one.

    From all voxels that touch the dendrite: from the base alone, the tip of a broad spine would
    be at its rim.
    """
    sources = [tuple(int(i) for i in row) for row in np.concatenate([starts, base[None]])]
    way = dijkstra3d.euclidean_distance_field(mask, sources, anisotropy=spacing.zyx)
    return np.asarray(way[tuple(index.T)], np.float64)


def _cap(
    index: NDArray[np.integer], way_um: Floats, starts: NDArray[np.integer], spacing: VoxelSpacing
) -> NDArray[np.integer]:
    """Voxels farthest from where the spine stands: along the inside, and of those, straight.

    Steps between voxels exaggerate oblique ways by up to 8 % (more if slices are thick), and alone
    would put the tip of a round head beside its pole.
    """
    longest_um = way_um[np.isfinite(way_um)].max(initial=0)
    far = index[np.isfinite(way_um) & (way_um >= 0.9 * longest_um)]
    apart = (far[:, None] - starts[None]) * np.asarray(spacing.zyx)
    straight_um = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart).min(axis=1))
    return np.asarray(far[straight_um >= straight_um.max() - 0.5 * min(spacing.zyx)])


def _middlemost(points: Floats) -> int:
    """The point nearest to the mean of all."""
    off = points - points.mean(axis=0)
    return int(np.argmin(np.einsum("ij,ij->i", off, off)))


def _radii_off(points: Floats, walk_um: Floats, inside_um: Floats, voxel_um: float) -> Floats:
    """Distance of each point to the walk, in radii of the stem there; a voxel is forgiven."""
    nearest, squared = _nearest(walk_um, points)
    radius_um = _thick(walk_um, walk_um, inside_um)[nearest]
    off_um = np.maximum(np.sqrt(np.maximum(squared, 0)) - voxel_um, 0)
    return np.asarray(off_um / np.maximum(radius_um, 1e-12))


def _course(
    ends: tuple[Floats, Floats],
    points: Floats,
    way_um: Floats,
    walk: tuple[Floats, Floats],
    spacing: VoxelSpacing,
) -> Floats:
    """Smooth line through the middle of the points that are equally far along the inside.

    A straight line is fitted to the points near each place on the way (local linear regression).
    """
    begin, cap = ends
    step_um = min(spacing.zyx) / 2
    count = int(np.clip(np.ceil(way_um.max() / step_um), 1, MOST_POINTS - 1)) + 1
    place = np.linspace(0, way_um.max(), count)
    step_um = max(float(place[1]), 1e-12)
    row = np.rint(way_um / step_um).astype(np.int64)
    sums = np.empty((count, 4))
    for axis in range(3):
        sums[:, axis] = np.bincount(row, points[:, axis], count)
    sums[:, 3] = np.bincount(row, minlength=count)
    means = np.divide(sums[:, :3], sums[:, 3:], out=np.zeros((count, 3)), where=sums[:, 3:] > 0)
    reach_um = np.maximum(_thick(means, *walk) / 2, 0.7 * max(spacing.zyx))
    reach_um = np.minimum(reach_um, max(float(place[-1]) / 4, step_um))
    line = _local_fit(place, sums, reach_um)
    # At the ends there are voxels on one side only, and little to say where their middle is.
    inner = (place > reach_um) & (place[-1] - place > reach_um)
    line = np.concatenate([begin[None], line[inner], cap[None]])
    back = line[-2] if len(line) > 2 else begin
    return np.concatenate([line, (cap + _to_side(cap - back, spacing))[None]])


def _walk(
    mask: NDArray[np.uint8],
    base: NDArray[np.integer],
    tip: NDArray[np.integer],
    spacing: VoxelSpacing,
) -> tuple[NDArray[np.int64], Floats]:
    """Cheapest way through the voxels, the middle is cheap; and its distance to the outside."""
    inside_um = edt.edt(mask, anisotropy=spacing.zyx, parallel=1)
    cost = np.where(mask > 0, 1 / np.maximum(inside_um, 1e-6), np.inf).astype(np.float32)
    walk = dijkstra3d.dijkstra(
        cost, tuple(int(i) for i in base), tuple(int(i) for i in tip), anisotropy=spacing.zyx
    )
    walk = np.asarray(walk, dtype=np.int64)
    return walk, np.asarray(inside_um[tuple(walk.T)], np.float64)


def _to_side(direction_um: Floats, spacing: VoxelSpacing) -> Floats:
    """From a voxel's center in this direction to the voxel's side."""
    steps = float(np.max(np.abs(direction_um) / spacing.zyx))
    return np.asarray(direction_um * (0.5 / steps if steps > 0 else 0.0))


def _even(points: Floats, step_um: float) -> Floats:
    """The same line with evenly spaced points, at most `step_um` apart; at least two."""
    steps = points[1:] - points[:-1]
    position = np.concatenate([[0.0], np.cumsum(np.sqrt(np.einsum("ij,ij->i", steps, steps)))])
    count = int(np.clip(np.ceil(position[-1] / step_um), 1, MOST_POINTS - 1)) + 1
    wanted = np.linspace(0, position[-1], count)
    return np.stack([np.interp(wanted, position, points[:, axis]) for axis in range(3)], axis=1)


def _local_fit(position: Floats, sums: Floats, reach_um: Floats) -> Floats:
    """Value at each position of the straight line that fits the means around it best.

    Parameters
    ----------
    position : float array, shape (P,)
    sums : float array, shape (P, 4)
        Sum of three coordinates over the voxels at each position, and their number.
    reach_um : float array, shape (P,)
        Standard deviation of the weights around each position.
    """
    bell = (position[:, None] - position[None]) / reach_um[:, None]
    bell = np.exp(-0.5 * bell**2)
    s = position[:, None]
    y = bell @ np.concatenate([sums, s * sums, s**2 * sums[:, 3:]], axis=1)
    n, first, second = y[:, 3:4], y[:, 7:8] - s * y[:, 3:4], y[:, 8:9] - 2 * s * y[:, 7:8]
    second = second + s**2 * n
    value, slope = y[:, :3], y[:, 4:7] - s * y[:, :3]
    # Where all voxels lie at one position there is no slope: a little spread is added.
    spread = second * n - first**2 + (1e-3 * reach_um[:, None] * n) ** 2
    return np.asarray((second * value - first * slope) / np.maximum(spread, 1e-30))


def _thick(points: Floats, walk_um: Floats, inside_um: Floats) -> Floats:
    """Radius of the largest ball around a point of the walk that holds each point; 0 outside."""
    apart = points[:, None] - walk_um[None]
    apart_um = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))
    return np.asarray(np.where(apart_um <= inside_um, inside_um, 0.0).max(axis=1))


def _tangents(line: Floats) -> Floats:
    """Unit vectors along the line, one per point."""
    way = np.empty_like(line)
    way[1:-1] = line[2:] - line[:-2]
    way[0], way[-1] = line[1] - line[0], line[-1] - line[-2]
    return np.asarray(way / np.maximum(np.sqrt((way**2).sum(axis=1)), 1e-12)[:, None])


def _nearest(line: Floats, voxels_um: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Nearest point of the line for each voxel, and the squared distance to it."""
    origin = line[0]
    points, voxels = line - origin, voxels_um - origin
    # |v - p|² without |v|², which is the same for all points.
    table = voxels @ (-2 * points.T)
    table += (points**2).sum(axis=1)
    nearest = table.argmin(axis=1)
    squared = np.take_along_axis(table, nearest[:, None], axis=1)[:, 0]
    return nearest, squared + (voxels**2).sum(axis=1)


def _placed(
    line: Floats, voxels_um: Floats, reached: NDArray[np.bool_], spacing: VoxelSpacing
) -> Middle:
    """The line, evenly spaced, with every voxel's place on it, also beyond its ends."""
    line = _even(line, min(spacing.zyx) / 2)
    steps = np.linalg.norm(line[1:] - line[:-1], axis=1)
    step_um = float(steps.mean())
    nearest, squared = _nearest(line, voxels_um)
    tangents = _tangents(line)[nearest]
    ahead = np.einsum("ij,ij->i", voxels_um - line[nearest], tangents)
    off_um = np.sqrt(np.maximum(squared - ahead**2, 0))
    along = nearest * step_um + ahead
    along[~reached] = np.nan
    width = _voxel_um(tangents, spacing)
    return Middle(line, step_um, along, off_um, width, reached)


def _voxel_um(directions: Floats, spacing: VoxelSpacing) -> Floats:
    """Length of line in these directions that a voxel covers: its spread, as that of a box."""
    length = np.maximum(np.sqrt((directions**2).sum(axis=1)), 1e-12)
    return np.asarray(np.sqrt(((directions * spacing.zyx) ** 2).sum(axis=1)) / length)


@dataclass(frozen=True)
class Profile:
    """Area of the cross section at P positions along a middle line, in µm and µm²."""

    positions_um: Floats
    areas_um2: Floats

    @property
    def diameters_um(self) -> Floats:
        """Diameters of the circles of these areas."""
        return np.asarray(2 * np.sqrt(self.areas_um2 / np.pi))

    def since(self, position_um: float) -> Profile:
        """Only what lies at this position or beyond."""
        first = int(np.searchsorted(self.positions_um, position_um))
        return Profile(self.positions_um[first:], self.areas_um2[first:])


def cross_sections(
    middle: Middle,
    chosen: NDArray[np.bool_],
    spacing: VoxelSpacing,
    window_um: float | None = None,
) -> Profile:
    """Cross sections of the chosen voxels at each point of the line.

    A voxel's volume is spread over the stretch of the line that it covers, and the area at a point
    is the volume in a window around it, per length. Windows end where the line does: before the
    base there is no spine to be counted.

    Parameters
    ----------
    window_um
        Default: what a voxel covers.
    """
    positions = middle.positions_um
    # On a line without a length, voxels cover no stretch.
    chosen = chosen & middle.on_stem & (middle.width_um > 0)
    along, width = middle.along_um[chosen], middle.width_um[chosen]
    if not len(along):
        return Profile(positions, np.zeros(len(positions)))
    half = (float(width.mean()) if window_um is None else window_um) / 2
    low = np.maximum(positions - half, 0.0)
    high = np.minimum(positions + half, positions[-1])
    volume = _volume_until(np.concatenate([low, high]), along, width)
    areas = (volume[len(low) :] - volume[: len(low)]) / np.maximum(high - low, 1e-12)
    return Profile(positions, np.maximum(areas, 0) * spacing.voxel_volume_um3)


def _volume_until(positions: Floats, along: Floats, width: Floats) -> Floats:
    """How many voxels lie before each position; those that it cuts count in part."""
    breaks = np.concatenate([along - width / 2, along + width / 2])
    slopes = np.concatenate([1 / width, -1 / width])
    order = np.argsort(breaks)
    breaks, slopes = breaks[order], np.cumsum(slopes[order])
    before = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(breaks))])
    return np.asarray(np.interp(positions, breaks, before))

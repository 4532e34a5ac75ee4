"""Whether two sets of voxels are two spines that touch, or one spine that was cut in two.

Distances to the background jump by a voxel from one cross section to the next, so that the waist
between small spines cannot be read from them. Here all voxels of both parts vote: cross sections
along the line between the parts' centers must dip between them, and each part must be as compact
as a head is, and as near to the other as two heads that touch are. A neck, a bend or a flared
foot dips too, but fails in one of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from respan_common.geometry import VoxelSpacing

DEEPEST = 0.86
"""Cross section between two spines, at most, as a share of the smaller one's largest."""

LONGEST = 1.35
"""Longest principal radius of a spine, at most, in radii of the ball of its volume."""

FARTHEST = 1.08
"""Distance of two spines' centers, less a voxel between them, at most, in radii of both balls
together; those that touch in a point have 1."""

MOST_UNEQUAL = 0.4
"""Radius of the smaller ball, at least, in radii of the larger one."""

_BINS = 4
"""Per standard deviation of the smoothing along the line between the centers."""


@dataclass(frozen=True)
class Waist:
    """The place between two parts; `dip` is the smallest cross section, 1 where there is none."""

    dip: float
    splits: bool
    cut_um: float
    """Where it is, from the first part's center along the line to the second one's."""


NONE = Waist(1.0, False, 0.0)


def waist(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    spacing: VoxelSpacing,
    least_depth_um: float,
    smallest_um3: float,
) -> Waist:
    """The waist between two sets of voxels.

    Parameters
    ----------
    first, second : float arrays, shape (n, 3) and (m, 3)
        Voxel centers in µm.
    least_depth_um
        How much thinner than the smaller spine a waist must be, judged by two balls of the
        parts' volumes at their distance.
    """
    radii = [_ball_um(len(part), spacing) for part in (first, second)]
    way = second.mean(axis=0) - first.mean(axis=0)
    length_um = float(np.linalg.norm(way))
    if length_um == 0:
        return NONE
    unit = way / length_um
    both, blur_um = np.concatenate([first, second]), _blur_um(unit, spacing)
    dip, cut_um = _dip((both - first.mean(axis=0)) @ unit, length_um, blur_um)
    closeness = length_um / sum(radii)
    depth_um = min(radii) * (1 - np.sqrt(max(1 - closeness**2, 0)))
    splits = (
        dip <= DEEPEST
        and length_um - 2 * blur_um <= FARTHEST * sum(radii)
        and depth_um >= least_depth_um
        and min(radii) >= MOST_UNEQUAL * max(radii)
        and min(len(first), len(second)) * spacing.voxel_volume_um3 >= smallest_um3
        and all(_is_compact(part, spacing) for part in (first, second))
    )
    return Waist(dip, bool(splits), cut_um)


def halves(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The two halves of a set of points that are nearer to their own center than to the other."""
    around = points - points.mean(axis=0)
    axes = np.linalg.eigh(around.T @ around)[1]
    chosen = around @ axes[:, 2] > 0
    for _ in range(8):
        if chosen.all() or not chosen.any():
            break
        apart = points[chosen].mean(axis=0) - points[~chosen].mean(axis=0)
        middle = (points[chosen].mean(axis=0) + points[~chosen].mean(axis=0)) / 2
        better = (points - middle) @ apart > 0
        if np.array_equal(better, chosen):
            break
        chosen = better
    return np.asarray(chosen, dtype=np.bool_)


def _ball_um(voxels: int, spacing: VoxelSpacing) -> float:
    """Radius of the ball of that many voxels."""
    return float(np.cbrt(3 * voxels * spacing.voxel_volume_um3 / (4 * np.pi)))


def _blur_um(unit: NDArray[np.float64], spacing: VoxelSpacing) -> float:
    """Half a voxel as it extends along a direction: less would show the grid's own steps."""
    return float(np.linalg.norm(unit * np.asarray(spacing.zyx)) / 2)


def _dip(along_um: NDArray[np.float64], length_um: float, blur_um: float) -> tuple[float, float]:
    """Smallest cross section between two centers, and where it is.

    In shares of the smaller of the largest ones on both sides of it.
    """
    step_um = blur_um / _BINS
    low = along_um.min() - 4 * blur_um
    bins = np.floor((along_um - low) / step_um).astype(np.int64)
    area = gaussian_filter1d(np.bincount(bins).astype(np.float64), _BINS, mode="constant")
    start = int(-low / step_um)
    stop = min(int((length_um - low) / step_um) + 1, len(area))
    place = start + int(np.argmin(area[start:stop]))
    smaller = min(area[: place + 1].max(), area[place:].max())
    return float(area[place] / smaller), low + (place + 0.5) * step_um


def _is_compact(points: NDArray[np.float64], spacing: VoxelSpacing) -> bool:
    around = points - points.mean(axis=0)
    edges = np.asarray(spacing.zyx)
    spread = around.T @ around / len(points) + np.diag(edges**2) / 12
    longest_um = np.sqrt(5 * np.linalg.eigvalsh(spread)[2])
    radius_um = _ball_um(len(points), spacing)
    # A ball thinner than a slice seems as long as the slice is thick.
    return bool(longest_um <= LONGEST * max(radius_um, np.sqrt(5 / 12) * edges.max()))

"""Lengths of a spine along its middle, from its base on the dendrite's surface to its tip."""

from __future__ import annotations

from dataclasses import dataclass

import dijkstra3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from respan_common.geometry import VoxelSpacing
from respan_quantification.classes import Mask
from respan_quantification.instances import inside_distance_um
from respan_quantification.surface import chord_um


@dataclass(frozen=True)
class Lengths:
    """Length of the path inside head and neck, in µm; together the whole spine."""

    head_um: float
    neck_um: float


def measure(
    spine: Mask,
    head: Mask,
    base_zyx: tuple[int, int, int],
    to_dendrite_um: NDArray[np.float64],
    spacing: VoxelSpacing,
) -> Lengths:
    """Walk from the base to the tip, the voxel that is farthest along the inside.

    Parameters
    ----------
    spine, head : bool arrays, shape (z, y, x)
        One connected spine, and its head.
    base_zyx
        Voxel of the spine where it meets the dendrite.
    to_dendrite_um : float array, shape (3,)
        From that voxel's center to the dendrite's nearest voxel's center; all 0 if they do not
        touch. The path begins on the side between the two.
    """
    voxels = _middle_path(spine, base_zyx, spacing)
    points = _smooth(spacing.points_um(voxels), spacing)
    steps_um = np.linalg.norm(np.diff(points, axis=0), axis=1)
    in_head = head[tuple(voxels.T)]
    base_um, tip_um = _ends_um(points, to_dendrite_um, spacing)
    share = np.zeros(len(points))
    share[:-1] += steps_um / 2
    share[1:] += steps_um / 2
    share[0] += base_um
    share[-1] += tip_um
    return Lengths(head_um=float(share[in_head].sum()), neck_um=float(share[~in_head].sum()))


def _middle_path(
    spine: Mask, base: tuple[int, int, int], spacing: VoxelSpacing
) -> NDArray[np.int64]:
    tip = _tip(spine, base, spacing)
    cost = np.full(spine.shape, np.inf, dtype=np.float32)
    cost[spine] = 1.0 / inside_distance_um(spine, spacing)[spine]
    walk = dijkstra3d.dijkstra(cost, base, tip, anisotropy=spacing.zyx)
    return np.asarray(walk, dtype=np.int64)


def _tip(spine: Mask, base: tuple[int, int, int], spacing: VoxelSpacing) -> tuple[int, int, int]:
    """Voxel farthest from the base: along the inside, and of those, in a straight line.

    Steps between voxels exaggerate oblique ways by up to 8 % (more if slices are thick): alone,
    they would put the tip of a round head beside its pole.
    """
    way_um = dijkstra3d.euclidean_distance_field(
        spine.astype(np.uint8), base, anisotropy=spacing.zyx
    )
    index = np.argwhere(spine)
    inside_um = way_um[tuple(index.T)]
    # A part of the spine that hangs on by nothing has no way to it, and no tip.
    index, inside_um = index[np.isfinite(inside_um)], inside_um[np.isfinite(inside_um)]
    far = index[inside_um >= 0.9 * inside_um.max()]
    straight_um = np.linalg.norm(spacing.points_um(far - np.array(base)), axis=1)
    # Of a cap of equally far voxels, the middle one; its rim is a little farther.
    cap = far[straight_um >= straight_um.max() - 0.5 * min(spacing.zyx)]
    off_center = np.linalg.norm(
        spacing.points_um(cap) - spacing.points_um(cap).mean(axis=0), axis=1
    )
    z, y, x = (int(i) for i in cap[int(np.argmin(off_center))])
    return z, y, x


def _smooth(points: NDArray[np.float64], spacing: VoxelSpacing) -> NDArray[np.float64]:
    """Path without the grid's steps; one point per voxel, both ends where they were.

    The kernel is as wide as a slice is thick, counted in steps of the path, and at most a
    quarter of the path.
    """
    if len(points) < 4:
        return points
    step_um = float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())
    width = min(2 * max(spacing.zyx) / step_um, len(points) / 4)
    reach = len(points) - 1
    # Mirrored through the end points, so that the ends stay.
    longer = np.pad(points, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.asarray(gaussian_filter1d(longer, width, axis=0)[reach:-reach])


def _ends_um(
    points: NDArray[np.float64], to_dendrite_um: NDArray[np.float64], spacing: VoxelSpacing
) -> tuple[float, float]:
    """From the first point to the dendrite's side, from the last to the tip's side."""
    half_voxel = float(chord_um(to_dendrite_um[None], spacing)[0]) / 2
    base_um = max(float(np.linalg.norm(to_dendrite_um)) - half_voxel, 0.0)
    onward = points[-1] - points[-2] if len(points) > 1 else -to_dendrite_um
    return base_um, float(chord_um(onward[None], spacing)[0]) / 2

"""What lies around a spine: background, a piece of its shaft, and the voxels its light reaches.

Everything is found in a box around the spine, so that the cost grows with spines, not with the
image. Distances that have to do with light count in multiples of the optics' resolution, which
differs between axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from respan_common.geometry import Box, VoxelSpacing, Zyx, grow, relative, shape_of
from respan_common.params import QuantificationParams
from respan_quantification.attachment import Base
from respan_quantification.classes import ClassImage, Mask
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Voxels
from respan_quantification.spines import Spines

SHELL_UM = 1.0
"""Background is looked for within the resolution and this much more around a spine."""
SHAFT_UM = 1.0
"""The local shaft is the dendrite within this distance of the spine's base."""

# The farthest along an axis that background is looked for, were the resolution ever so coarse.
_FARTHEST_UM = 2.0
# More voxels make a background no better, only less local.
_MOST_BACKGROUND = 4000
# A shaft too thin to have this many voxels inside its blurred rim gives its deepest ones.
_ENOUGH_SHAFT = 20
_RIM = 0.5
_VOXELS_PER_RESOLUTION = 2
_FWHM_OF_SIGMA = 2 * np.sqrt(2 * np.log(2))

Resolution = tuple[float, float, float]


def resolution_um(spacing: VoxelSpacing, params: QuantificationParams) -> Resolution:
    """Full width at half maximum (z, y, x) of a point's image; two voxels if nobody said it.

    Never less than a voxel: a voxel's light is spread over itself.
    """
    given = params.resolution_um or [_VOXELS_PER_RESOLUTION * edge for edge in spacing.zyx]
    z, y, x = (max(blur, edge) for blur, edge in zip(given, spacing.zyx, strict=True))
    return (z, y, x)


def reach_um(spacing: VoxelSpacing, params: QuantificationParams) -> Resolution:
    """How far around a spine (and its base) voxels matter, along z, y, x.

    A spine that is nearer than this to a side where the image was cut into blocks has other
    surroundings in that block than in the image.
    """
    z, y, x = (
        max(min(blur + SHELL_UM, _FARTHEST_UM), SHAFT_UM + blur, edge)
        for blur, edge in zip(resolution_um(spacing, params), spacing.zyx, strict=True)
    )
    return (z, y, x)


@dataclass(frozen=True)
class Surroundings:
    """Voxels that one spine's grey values are compared with, as places in the flattened arrays."""

    background: NDArray[np.int64]
    """Of no object, and farther than the resolution from all of them; the nearest ones."""
    shaft: NDArray[np.int64]
    """Of the spine's dendrite, near its base, without the dimmer rim if enough remain."""
    catchment: NDArray[np.int64]
    """Of the spine, and what lies within the resolution of it and nearer to it than to others."""
    shaft_share: float
    """Mean share of a thick shaft's brightness that the optics leave to the shaft's voxels."""


def surroundings(
    spines: Spines,
    frame: Frame,
    classes: ClassImage,
    dendrites: Labels,
    params: QuantificationParams,
) -> list[Surroundings]:
    """Background, local shaft and catchment of each spine, in order of ids.

    Parameters
    ----------
    classes, dendrites
        Over `frame.outer`; every value of the class image but 0 is an object.
    """
    spacing = frame.spacing
    blur = resolution_um(spacing, params)
    reach = _voxels(reach_um(spacing, params), spacing)
    low, high = _corners(spines.voxels)
    found = []
    for row, (number, rows) in enumerate(spines.voxels.groups()):
        box = grow(_box(low[row], high[row]), reach, frame.outer_shape)
        index, drawn = spines.voxels.index_zyx[rows], spines.inferred[rows]
        is_object = (classes.values[box] != 0) | (dendrites[box] != 0)
        background, catchment = _outside(
            is_object, box, index[~drawn], index[drawn], _metric(spacing, blur)
        )
        shaft_box, shaft, share = _local_shaft(spines.bases[number], dendrites, spacing, blur)
        found.append(
            Surroundings(
                _flat(background, box, frame.outer_shape),
                _flat(shaft, shaft_box, frame.outer_shape),
                _flat(catchment, box, frame.outer_shape),
                share,
            )
        )
    return found


def _metric(spacing: VoxelSpacing, blur: Resolution) -> Resolution:
    """A voxel's edges in multiples of the resolution: light spreads farther along z."""
    z, y, x = (edge / width for edge, width in zip(spacing.zyx, blur, strict=True))
    return (z, y, x)


def _outside(
    is_object: Mask,
    box: Box,
    seen: NDArray[np.int32],
    drawn: NDArray[np.int32],
    metric: Resolution,
) -> tuple[Mask, Mask]:
    """Background and catchment of a spine, in its box."""
    corner = [part.start for part in box]
    own = np.zeros(is_object.shape, dtype=bool)
    own[tuple((seen - corner).T)] = True
    others = is_object & ~own
    others[tuple((drawn - corner).T)] = True
    to_own, to_others = _distance_to(own, metric), _distance_to(others, metric)
    catchment = own | ((to_own <= 1) & (to_own < to_others) & ~others)
    background = (to_own > 1) & (to_others > 1)
    if np.count_nonzero(background) > _MOST_BACKGROUND:
        distances = to_own[background]
        farthest = np.partition(distances, _MOST_BACKGROUND - 1)[_MOST_BACKGROUND - 1]
        background &= to_own <= farthest
    return background, catchment


def _local_shaft(
    base: Base, dendrites: Labels, spacing: VoxelSpacing, blur: Resolution
) -> tuple[Box, Mask, float]:
    """Voxels of the spine's dendrite near its base, in which box, and their `shaft_share`.

    Voxels at the rim hold half as much light as those inside. Voxels more than half the resolution
    inside are taken, or, of a thin dendrite, the deepest ones.
    """
    z, y, x = base.dendrite_zyx
    foot: Box = (slice(z, z + 1), slice(y, y + 1), slice(x, x + 1))
    margin = _voxels(tuple(SHAFT_UM + width for width in blur), spacing)
    box = grow(foot, margin, dendrites.shape)
    shaft = dendrites[box] == base.dendrite_id
    near = shaft & (_from_point_um(relative(foot, box), shape_of(box), spacing) <= SHAFT_UM)
    depth = _distance_to(~shaft, _metric(spacing, blur))
    inside = depth[near]
    if len(inside) > _ENOUGH_SHAFT:
        deepest = float(np.partition(inside, -_ENOUGH_SHAFT)[-_ENOUGH_SHAFT])
        near &= depth >= deepest if deepest <= _RIM else depth > _RIM
    return box, near, _share_of_light(shaft, near, spacing, blur)


def _share_of_light(shaft: Mask, near: Mask, spacing: VoxelSpacing, blur: Resolution) -> float:
    """Mean brightness, after Gaussian blur, of an evenly bright shaft of brightness 1.

    A dendrite of 1 µm, blurred by 1.5 µm along z, is half as bright as the dye in it.
    """
    sigma = [width / _FWHM_OF_SIGMA / edge for width, edge in zip(blur, spacing.zyx, strict=True)]
    seen = ndi.gaussian_filter(shaft.astype(np.float32), sigma, mode="nearest", truncate=3.0)
    return float(seen[near].mean()) if near.any() else np.nan


def _from_point_um(point: Box, shape_zyx: Zyx, spacing: VoxelSpacing) -> NDArray[np.float64]:
    """Distance of every voxel's center from that of one voxel."""
    squares = (
        ((np.arange(size) - part.start) * edge) ** 2
        for part, size, edge in zip(point, shape_zyx, spacing.zyx, strict=True)
    )
    z, y, x = np.ix_(*squares)
    return np.asarray(np.sqrt(z + y + x))


def _distance_to(mask: Mask, metric: Resolution) -> NDArray[np.float32]:
    """From every voxel's center to that of the mask's nearest voxel; infinite without any."""
    outside = np.ascontiguousarray(~mask).view(np.uint8)  # edt takes three times as long for bool
    distance = edt.edt(outside, anisotropy=metric, black_border=False, parallel=1)
    # Equal distances differ in their last digit with the place in the array: limits must not see it
    return np.asarray(np.round(distance, 4), dtype=np.float32)


def _voxels(lengths_um: tuple[float, ...], spacing: VoxelSpacing) -> Zyx:
    """Whole voxels along each axis that cover these lengths."""
    pairs = zip(lengths_um, spacing.zyx, strict=True)
    z, y, x = (int(np.ceil(length / edge - 1e-9)) for length, edge in pairs)
    return (z, y, x)


def _corners(voxels: Voxels) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """First and last voxel of each object's box."""
    if not len(voxels.present):
        nothing = np.zeros((0, 3), np.int32)
        return nothing, nothing
    low = np.minimum.reduceat(voxels.index_zyx, voxels.starts)
    return low, np.maximum.reduceat(voxels.index_zyx, voxels.starts)


def _box(low: NDArray[np.int32], high: NDArray[np.int32]) -> Box:
    z, y, x = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    return (z, y, x)


def _flat(mask: Mask, box: Box, shape_zyx: Zyx) -> NDArray[np.int64]:
    """Places of a mask's voxels in a flattened array that its box is cut from."""
    z, y, x = (found + part.start for found, part in zip(np.nonzero(mask), box, strict=True))
    return np.asarray(np.ravel_multi_index((z, y, x), shape_zyx), np.int64)

"""Head and neck of a spine whose model knows no necks, from its thickness along the middle line.

Rule, from the diameters d of the cross sections between base and tip:

1. The neck's narrowest place is where d is smallest compared with the largest d beyond it, which
   is the head's.
2. There is a head only if it is `LEAST_CONTRAST` times as thick as the neck, and thicker by a
   voxel's side; a filopodium or a stubby spine is not. Here d is taken over two voxels' length,
   so that the grid's steps do not count.
3. The neck ends where d last rises above the neck's own thickness plus `RISE` of the way to the
   head's, before it reaches the head's largest.
4. A neck that is shorter than a voxel, or than a tenth of the head's diameter, is no neck: where a
   ball stands on a dendrite, it is narrow too.

Without a neck the whole spine is the head.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification.profile import Middle, Profile, cross_sections

HeadFrom = Literal["class", "profile", "whole"]
"""Where a head comes from: the model's classes, the thickness along the spine, or there is no neck
and the whole spine is the head."""

LEAST_CONTRAST = 1.25
"""Between the ratio 1.1 with which NeuronStudio calls a spine thin rather than stubby, and what
the grid alone does to a tube two voxels wide."""

RISE = 0.25
"""Where a neck meets a ball, d rises from one to the other within a voxel; a lower share takes
the grid's steps for a head, a higher one takes the ball's near side for a neck."""

LEAST_NECK = 0.1
"""Of the head's diameter."""


def split(
    middle: Middle, seen: NDArray[np.bool_], spacing: VoxelSpacing
) -> NDArray[np.bool_] | None:
    """Which voxels are the head's; None if there is no neck among those that were seen.

    Parameters
    ----------
    seen : bool array, shape (V,)
        Voxels whose width means something: not those of an inferred neck.
    """
    along = middle.along_um[seen]
    if not len(along) or np.isnan(along).all():
        return None
    voxel_um = float(middle.width_um[seen].mean())
    begin_um = max(float(np.nanmin(along)) - voxel_um / 2, 0.0)
    side_um = float(np.sqrt(spacing.voxel_volume_um3 / voxel_um))
    wide_um = max(voxel_um, *(2 * edge for edge in spacing.zyx))
    rough = cross_sections(middle, seen, spacing, wide_um)
    if not _has_head(rough.diameters_um[rough.positions_um >= begin_um], side_um):
        return None
    end_um = neck_end_um(cross_sections(middle, seen, spacing), begin_um, voxel_um)
    if end_um is None:
        return None
    head = seen & ~(middle.along_um < end_um)
    return head if (head & seen).any() and (seen & ~head).any() else None


def neck_end_um(profile: Profile, begin_um: float, voxel_um: float) -> float | None:
    """Position on the line where the neck ends and the head begins; None without a neck.

    Parameters
    ----------
    begin_um
        Where the part that was seen begins.
    voxel_um
        Length of line that a voxel covers: a shorter neck cannot be told from none.
    """
    first = int(np.searchsorted(profile.positions_um, begin_um))
    positions, d = profile.positions_um[first:], profile.diameters_um[first:]
    if len(d) < 3:
        return None
    narrow, head = _neck_and_head(d)
    end_um = _last_rise_um(positions, d, head, d[narrow])
    # The narrowest place is narrow by chance too: the neck's own thickness is its typical one.
    neck = d[(positions < end_um) & (positions <= positions[head])]
    if len(neck):
        end_um = _last_rise_um(positions, d, head, min(float(np.median(neck)), d[head]))
    least_um = max(voxel_um, LEAST_NECK * d[head])
    return end_um if end_um - positions[0] >= least_um else None


def _has_head(d: NDArray[np.float64], side_um: float) -> bool:
    """Whether something is thicker than the neck before it, and by more than `side_um`."""
    if not len(d):
        return False
    narrow, head = _neck_and_head(d)
    return bool(d[head] >= max(LEAST_CONTRAST * d[narrow], d[narrow] + side_um))


def _neck_and_head(d: NDArray[np.float64]) -> tuple[int, int]:
    """Where the neck is narrowest, and where what lies beyond is thickest."""
    beyond = np.maximum.accumulate(d[::-1])[::-1]
    narrow = int(np.argmax(beyond / np.maximum(d, 1e-12)))
    return narrow, narrow + int(np.argmax(d[narrow:]))


def _last_rise_um(
    positions: NDArray[np.float64], d: NDArray[np.float64], head: int, neck_um: float
) -> float:
    """Where d rises above the threshold for the last time before the head's thickest place."""
    level = neck_um + RISE * (d[head] - neck_um)
    below = np.flatnonzero(d[:head] < level)
    if not len(below):
        return float(positions[0])
    row = int(below[-1])
    share = (level - d[row]) / max(d[row + 1] - d[row], 1e-12)
    return float(positions[row] + share * (positions[row + 1] - positions[row]))

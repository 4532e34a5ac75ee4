"""Head and neck of a spine whose model knows no necks, from its thickness along the middle line.

Rule, from the diameters d of the cross sections between base and tip:

1. Going from the base, there is a head if d anywhere is `LEAST_CONTRAST` times as large as before,
   and larger by a voxel's side; a filopodium or a stubby spine has none. Here d is taken over two
   voxels' length, so that the grid's steps do not count.
2. The base may flare: what comes before the narrowest place up to there is left out. Of the rest,
   the head is where d is largest, and the neck is narrowest where d is smallest before that.
3. The neck ends where d last rises above the neck's typical thickness plus `RISE` of the way to the
   head's. The head is `LEAST_CONTRAST` times as thick as the neck typically is.
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
    if voxel_um <= 0:  # a line without a length has no stretches to tell apart
        return None
    side_um = float(np.sqrt(spacing.voxel_volume_um3 / voxel_um))
    begin_um = max(float(np.nanmin(along)) - voxel_um / 2, 0.0)
    wide_um = max(voxel_um, *(2 * edge for edge in spacing.zyx))
    rough = cross_sections(middle, seen, spacing, wide_um).since(begin_um)
    found = neck_and_head(rough.diameters_um, side_um)
    if found is None:
        return None
    end_um = neck_end_um(cross_sections(middle, seen, spacing).since(begin_um), *found, voxel_um)
    if end_um is None:
        return None
    head = seen & ~(middle.along_um < end_um)
    return head if (head & seen).any() and (seen & ~head).any() else None


def neck_and_head(d: NDArray[np.float64], side_um: float) -> tuple[int, int] | None:
    """Where the neck is narrowest and where the head is thickest; None without a head.

    Parameters
    ----------
    d : float array, shape (P,)
        Diameters from base to tip, µm.
    side_um
        By how much more a head must be thicker.
    """
    so_far = np.minimum.accumulate(d)
    thicker = d >= np.maximum(LEAST_CONTRAST * so_far, so_far + side_um)
    if not thicker.any():
        return None
    # A base that flares may be thicker than the head: what comes before the first narrow place
    # does not count.
    foot = int(np.argmin(d[: int(np.argmax(thicker)) + 1]))
    head = foot + int(np.argmax(d[foot:]))
    return foot + int(np.argmin(d[foot : head + 1])), head


def neck_end_um(profile: Profile, narrow: int, head: int, voxel_um: float) -> float | None:
    """Position on the line where the neck ends and the head begins; None if there is no neck.

    Parameters
    ----------
    narrow, head
        Rows of the profile where the neck is narrowest and the head is thickest.
    voxel_um
        Length of line that a voxel covers: a shorter neck cannot be told from none.
    """
    positions, d = profile.positions_um, profile.diameters_um
    end_um = _last_rise_um(positions, d, head, d[narrow])
    # The narrowest place is narrow by chance too: the neck's own thickness is its typical one.
    neck = d[:head][positions[:head] < end_um]
    if len(neck):
        typical_um = float(np.median(neck))
        if d[head] < LEAST_CONTRAST * typical_um:
            return None
        end_um = _last_rise_um(positions, d, head, typical_um)
    least_um = max(voxel_um, LEAST_NECK * d[head])
    return end_um if end_um - positions[0] >= least_um else None


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

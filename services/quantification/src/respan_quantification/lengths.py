"""Lengths and thicknesses of a spine, head and neck along its middle line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification.profile import Middle, cross_sections

MISSING = float("nan")


@dataclass(frozen=True)
class Lengths:
    """Of one spine, in µm; NaN for what it lacks.

    Head and neck share the middle line; `neck_um` is 0 without a neck. Diameters are those of
    circles with the area of the cross section: the head's largest, the neck's mean (the
    cylinder of its volume and length) and smallest. `neck_tangent` is the neck's direction, a unit
    vector (z, y, x).
    """

    spine_um: float
    straight_um: float
    head_um: float
    neck_um: float
    head_diameter_um: float
    neck_diameter_um: float = MISSING
    neck_diameter_min_um: float = MISSING
    neck_tangent: tuple[float, float, float] = (MISSING, MISSING, MISSING)


def measure(
    middle: Middle, head: NDArray[np.bool_], seen: NDArray[np.bool_], spacing: VoxelSpacing
) -> Lengths:
    """Lengths and diameters of one spine.

    Parameters
    ----------
    head, seen : bool arrays, shape (V,)
        Of the spine's voxels, the head's; and those whose width means something: not those of an
        inferred neck. A neck has diameters only if all of it was seen.
    """
    length_um = middle.length_um
    of_head = cross_sections(middle, head, spacing)
    widest_um = float(of_head.diameters_um.max())
    if head.all():
        return Lengths(length_um, middle.straight_um, length_um, 0.0, widest_um)
    of_all = cross_sections(middle, np.ones_like(head), spacing)
    # Where the line runs outside of all voxels, between two pieces, it is no head.
    share = np.divide(
        of_head.areas_um2, of_all.areas_um2, out=np.zeros(len(of_all.areas_um2)),
        where=of_all.areas_um2 > 0,
    )  # fmt: skip
    # Rounding in areas of next to nothing may make a share exceed 1.
    share = np.clip(share, 0.0, 1.0)
    head_um = min(float((share[1:] + share[:-1]).sum() / 2 * middle.step_um), length_um)
    neck_um = length_um - head_um
    found = Lengths(length_um, middle.straight_um, head_um, neck_um, widest_um)
    in_neck = share < 0.5
    if neck_um <= 0 or not in_neck.any() or not seen.all():
        return found
    volume_um3 = int(np.count_nonzero(middle.on_stem & ~head)) * spacing.voxel_volume_um3
    place_um = float(of_all.positions_um[in_neck].mean())
    z, y, x = (float(part) for part in middle.direction_at(place_um))
    return Lengths(
        *(length_um, middle.straight_um, head_um, neck_um, widest_um),
        neck_diameter_um=2 * float(np.sqrt(volume_um3 / (np.pi * neck_um))),
        neck_diameter_min_um=float(of_all.diameters_um[in_neck].min()),
        neck_tangent=(z, y, x),
    )

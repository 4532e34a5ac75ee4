"""Where the spines of one dendrite sit on its tree, and at which angles. Tables only."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_quantification.tree import Places, Tree

Points = NDArray[np.float64]

AXES = "zyx"

ALONG_Z = 0.1
"""Sine of the angle to the z axis below which a shaft counts as running along z."""

COLUMNS = (
    "branch_id",
    "branch_order",
    "position_on_dendrite_um",
    "position_on_branch_um",
    "geodesic_dist_to_soma",
    "angle_to_shaft_deg",
    "angle_around_shaft_deg",
    "spine_length_from_center_um",
)


def place(table: pd.DataFrame, tree: Tree) -> pd.DataFrame:
    """Columns that follow from the tree, one row per spine of that dendrite, same index.

    A spine is placed by its base; one without a base, by the middle of its head: it has a branch
    and a position, but neither angles nor a length from the center.

    Parameters
    ----------
    table
        With `base_z_um`, `base_y_um`, `base_x_um` (missing without a base), `z_um`, `y_um`,
        `x_um` (the middle of its head) and `spine_length`, in µm of the whole image.
    """
    base, head = _points(table, "base_"), _points(table, "")
    has_base = np.asarray(np.isfinite(base).all(axis=1))
    places = tree.place(np.where(has_base[:, None], base, head))
    to_soma_um = places.position_um + tree.soma_gap_um if tree.soma_id else np.nan
    columns = {
        "branch_id": places.branch,
        "branch_order": places.order,
        "position_on_dendrite_um": places.position_um,
        "position_on_branch_um": places.on_branch_um,
        "geodesic_dist_to_soma": to_soma_um,
        "angle_to_shaft_deg": angle_to_shaft_deg(base, head, places.tangent),
        "angle_around_shaft_deg": _around(base, head, places),
        "spine_length_from_center_um": _spine_length(table)
        + np.linalg.norm(base - places.center_um, axis=1),
    }
    return pd.DataFrame(columns, index=table.index)


def angle_to_shaft_deg(base_um: Points, head_um: Points, tangent: Points) -> Points:
    """Angle between the way from base to head and the shaft's axis, 0 (along it) to 90.

    The axis has no direction here: a spine that leans to the root and one that leans as far to
    the tip have the same angle. NaN without a base, an axis, or a way.

    Parameters
    ----------
    base_um, head_um, tangent : float arrays, shape (n, 3), rows (z, y, x)
    """
    way = head_um - base_um
    along = np.einsum("ij,ij->i", way, tangent)
    # Better than the arc cosine near 0 and 90 degrees alike.
    across = np.linalg.norm(way - along[:, None] * tangent, axis=1)
    angle = np.degrees(np.arctan2(across, np.abs(along)))
    return np.where(np.linalg.norm(way, axis=1) > 0, angle, np.nan)


def angle_around_shaft_deg(way_um: Points, tangent: Points) -> Points:
    """Direction of a way around the shaft's axis from root to tip, 0 to 360, right-handed.

    Seen from the tip, in a right-handed system (x, y, z), it grows counterclockwise. 0 is the
    direction of +z, projected on the cross section; where the shaft runs along z (within 6
    degrees), that of +y. NaN where the way runs along the axis.

    Parameters
    ----------
    way_um, tangent : float arrays, shape (n, 3), rows (z, y, x)
    """
    # Reversed rows are (x, y, z), the order in which the cross product is right-handed.
    axis, way = tangent[:, ::-1], way_um[:, ::-1]
    z_axis, y_axis = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    along_z = np.hypot(axis[:, 0], axis[:, 1]) < ALONG_Z
    zero = _across(np.where(along_z[:, None], y_axis, z_axis), axis)
    quarter = np.cross(axis, zero)
    cosine, sine = (np.einsum("ij,ij->i", way, side) for side in (zero, quarter))
    angle = np.degrees(np.arctan2(sine, cosine)) % 360.0
    return np.where(np.hypot(cosine, sine) > 1e-9, angle, np.nan)


def _around(base_um: Points, head_um: Points, places: Places) -> Points:
    """From the centerline to the head: the base of a wide foot may lie beside the head."""
    angle = angle_around_shaft_deg(head_um - places.center_um, places.tangent)
    return np.where(np.isfinite(base_um).all(axis=1), angle, np.nan)


def _across(vector: Points, axis: Points) -> Points:
    """Unit vector of the part of a vector that is perpendicular to the axis."""
    part = vector - np.einsum("ij,ij->i", vector, axis)[:, None] * axis
    return np.asarray(part / np.linalg.norm(part, axis=1)[:, None])


def _points(table: pd.DataFrame, prefix: str) -> Points:
    return np.stack([table[f"{prefix}{axis}_um"].to_numpy(np.float64) for axis in AXES], axis=1)


def _spine_length(table: pd.DataFrame) -> Points:
    return table["spine_length"].to_numpy(np.float64)

"""Names and order of the columns of all tables: RESPAN's own, then ours."""

from __future__ import annotations

PARTS = ("spine", "head", "neck")

_PLACE = (
    "spine_id",
    "x",
    "y",
    "z",
    "dendrite_id",
    "geodesic_dist_to_soma",
    "euclidean_dist_to_soma",
)
_SHAPE = ("bbox_vol", "extent", "solidity", "convex_vol")
_SPINE = ("area", "vol", "surf_area", "length", "length_euclidean", *_SHAPE)
_HEAD = (
    "area",
    "vol",
    "surf_area",
    "length",
    "euclidean_dist_to_dend",
    *_SHAPE,
    "convex_hull_ratio",
)
_NECK = ("area", "vol", "surf_area", "length", *_SHAPE)

OWN = (
    "z_um",
    "y_um",
    "x_um",
    "attached",
    "touches_border",
    "position_on_dendrite_um",
    "neck_diameter_um",
)
"""Columns that RESPAN lacks. Its x, y, z are voxels; ours are µm from the first voxel's center."""

NOT_MEASURED: tuple[str, ...] = ()
"""Columns that are present and empty because nothing measures them yet."""

_TEXT = ("attached",)
_FLAGS = ("touches_border",)
_IDS = ("spine_id", "dendrite_id")

NOT_AVERAGED = ("spine_id", "x", "y", "z", "dendrite_id", *OWN)
"""Columns whose mean over a dendrite says nothing."""

DENDRITE = (
    "dendrite_id",
    "dendrite_length",
    "dendrite_volume",
    "total_spines",
    "spines_per_um",
    "spines_per_um3",
)

DENDRITE_OWN = ("branches", "soma_id", "touches_border")


def spine_columns(channels: int) -> list[str]:
    """Every column of the spine table, in RESPAN's order."""
    names = list(_PLACE)
    for part, measured in (("spine", _SPINE), ("head", _HEAD), ("neck", _NECK)):
        names += [f"{part}_{name}" for name in measured]
    names += [f"{part}_C1_{value}" for part in PARTS for value in _INTENSITY]
    for channel in range(2, channels + 1):
        names += [f"{part}_C{channel}_{value}" for part in PARTS for value in _INTENSITY[:2]]
    for channel in range(2, channels + 1):
        names += [f"{part}_C{channel}_int_density" for part in ("head", "neck", "spine")]
    return [*names, *OWN]


_INTENSITY = ("mean_int", "max_int", "int_density")


def averaged_columns(channels: int) -> list[str]:
    """Columns of the spine table whose mean a dendrite's row has."""
    return [name for name in spine_columns(channels) if name not in NOT_AVERAGED]


def dtype_of(column: str) -> str:
    """Pandas type of a column; measurements are float64, so that NaN can say "missing"."""
    if column in _TEXT:
        return "str"
    if column in _FLAGS:
        return "bool"
    return "int64" if column in (*_IDS, "total_spines", "branches", "soma_id") else "float64"

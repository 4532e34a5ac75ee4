"""Every column of the spine table: RESPAN's own under its names and in its order, then ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from respan_common.columns import NEVER, Column, count, flag, identity, measured, number, word

PARTS = ("spine", "head", "neck")

FIRST_OWN = "z_um"
"""The first column that RESPAN lacks."""

_NO_NECK = "no neck that was seen"
_SMALL = "below 4 voxels"
_FLAT = "below 4 voxels, flat hulls"
_UNATTACHED = "`attached` none"
_PATH = "no neck, `attached` none"
_NO_TREE = "dendrites without a tree"


_PLACE = (
    identity("spine_id", "Value in labels/spines, labels/heads and labels/necks."),
    *(
        number(axis, "voxels", f"Centroid of the head along {axis}; first voxel's center at 0.")
        for axis in "xyz"
    ),
    identity(
        "dendrite_id", "Dendrite it touches with most voxels, else the one with nearest surface."
    ),
    measured(
        "geodesic_dist_to_soma",
        "µm",
        "Way along the centerline from the spine's foot to the soma's surface.",
        "dendrites that reach no soma",
    ),
    measured(
        "euclidean_dist_to_soma",
        "µm",
        "Distance from the head to the nearest soma, between surfaces.",
        "images without a soma",
    ),
)


def _shape(part: str, whole: str) -> list[Column]:
    small = _NO_NECK if part == "neck" else _SMALL
    flat = _NO_NECK if part == "neck" else _FLAT
    return [
        replace(column, missing=_NO_NECK) if part == "neck" and column.missing == NEVER else column
        for column in (
            measured(f"{part}_area", "µm²", f"Projection along z of {whole}."),
            measured(f"{part}_vol", "µm³", f"Volume of {whole}: voxels × voxel volume."),
            measured(f"{part}_surf_area", "µm²", f"Surface of a mesh around {whole}.", small),
            measured(f"{part}_bbox_vol", "µm³", "Box around the mesh, along the axes.", small),
            measured(f"{part}_extent", "ratio", f"`{part}_vol` / `{part}_bbox_vol`.", small),
            measured(f"{part}_solidity", "ratio", f"`{part}_vol` / `{part}_convex_vol`.", flat),
            measured(f"{part}_convex_vol", "µm³", "Convex hull of the mesh.", flat),
        )
    ]


_SPINE_LENGTHS = (
    measured(
        "spine_length",
        "µm",
        "Along the middle, from the base on the dendrite's surface to the tip.",
        _UNATTACHED,
    ),
    measured(
        "spine_length_euclidean",
        "µm",
        "Largest distance of a head voxel to the dendrite, between centers.",
    ),
)
_HEAD_LENGTHS = (
    measured("head_length", "µm", "Part of the path that lies inside the head."),
    measured(
        "head_euclidean_dist_to_dend",
        "µm",
        "Smallest distance of head and dendrite, between surfaces; 0 if they touch.",
    ),
)
_HULL_RATIO = measured(
    "head_convex_hull_ratio", "ratio", "`head_convex_vol` / `head_vol` − 1.", _FLAT
)
_NECK_LENGTH = measured(
    "neck_length", "µm", "Part of the path outside the head, seen or inferred.", _PATH
)


def _interleaved(part: str, whole: str, lengths: Iterable[Column]) -> list[Column]:
    """Shapes with the lengths where RESPAN has them: behind the first three."""
    shape = _shape(part, whole)
    return [*shape[:3], *lengths, *shape[3:]]


_BODY = (
    *_interleaved("spine", "head and neck that were seen", _SPINE_LENGTHS),
    *_interleaved("head", "the head", _HEAD_LENGTHS),
    _HULL_RATIO,
    *_interleaved("neck", "the neck that was seen", [_NECK_LENGTH]),
)


def _intensity(part: str, channel: int, kind: str) -> Column:
    unit = "grey·µm³" if kind == "int_density" else "grey"
    meaning = {
        "mean_int": "Mean grey value of the {part} in channel {channel}",
        "max_int": "Largest grey value of the {part} in channel {channel}",
        "int_density": "Sum of the grey values × voxel volume of the {part} in channel {channel}",
        "sum_int": "Sum of the grey values of the {part} in channel {channel}",
        "corrected_mean_int": "Mean grey value of the {part} in channel {channel} minus the local "
        "background",
    }[kind].format(part=part, channel=channel)
    if part != "neck":
        return measured(f"{part}_C{channel}_{kind}", unit, f"{meaning}.")
    has_width = kind in ("int_density", "sum_int")
    along = "." if has_width else "; along the path, if inferred."
    missing = _NO_NECK if has_width else _PATH
    return measured(f"{part}_C{channel}_{kind}", unit, f"{meaning}{along}", missing)


def points(which: str, meaning: str, missing: str = NEVER) -> list[Column]:
    """A place as three columns."""
    lead = f"{which}_" if which else ""
    return [number(f"{lead}{axis}_um", "µm", f"{meaning} ({axis}).", missing) for axis in "zyx"]


_OWN_FIRST = (
    *points("", "Middle of the head's light, from the first voxel's center"),
    *points(
        "base",
        "Foot on the dendrite's surface: the middle between the spine's and the dendrite's voxel",
        _UNATTACHED,
    ),
    *points("tip", "Outer end of the spine", _UNATTACHED),
    word(
        "attached",
        "How it reaches its dendrite: `seen` (it touches), `inferred` (by a path) or `none`.",
    ),
    measured(
        "attachment_quality",
        "0–1",
        "How well the image supports the way to the dendrite; 1 for what touches.",
        _UNATTACHED,
    ),
    flag(
        "touches_border",
        "A face of the image cuts it: its volume and lengths are lower bounds. In a single plane "
        "only the faces in y and x count.",
    ),
    count("branch_id", "Branch of the dendrite that its foot is on.", _NO_TREE),
    count(
        "branch_order",
        "Order of that branch: 1 at the root, one more behind every fork.",
        _NO_TREE,
    ),
    number(
        "position_on_dendrite_um",
        "µm",
        "Of the foot along the centerline, from the root: the soma's end, else one end.",
        _NO_TREE,
    ),
    number(
        "position_on_branch_um",
        "µm",
        "Of the foot along its branch, from the branch's start.",
        _NO_TREE,
    ),
    measured(
        "angle_to_shaft_deg",
        "°",
        "Between base → middle of the head and the shaft's axis at the foot, 0 to 90.",
        "no axis there",
    ),
    number(
        "angle_around_shaft_deg",
        "°",
        "Of base → head around the axis root → tip, 0 to 360, right-handed; 0 points to +z (to "
        "+y where the shaft runs along z).",
        "no axis there",
    ),
    measured("spine_length_straight_um", "µm", "Base to tip, straight.", _UNATTACHED),
    measured(
        "spine_length_from_center_um",
        "µm",
        "`spine_length` and the way from the base to the shaft's centerline.",
        _UNATTACHED,
    ),
    measured(
        "head_diameter_um",
        "µm",
        "Of the circle with the area of the head's largest cross-section along the spine.",
        "heads of too few voxels",
    ),
    measured("head_equivalent_diameter_um", "µm", "Of the ball with the head's volume."),
    measured("spine_equivalent_diameter_um", "µm", "Of the ball with `spine_vol`."),
    measured(
        "neck_diameter_um", "µm", "Of the cylinder with the neck's volume and length.", _NO_NECK
    ),
    measured(
        "neck_diameter_min_um",
        "µm",
        "Of the circle with the area of the neck's smallest cross-section.",
        _NO_NECK,
    ),
    measured(
        "spine_sphericity",
        "ratio",
        "Surface of the ball with the spine's volume / its mesh's surface.",
        _SMALL,
    ),
    measured("head_sphericity", "ratio", "The same of the head.", _SMALL),
    measured(
        "head_asymmetry", "ratio", "1 − shortest / longest principal axis of the head.", _SMALL
    ),
    measured("spine_mesh_vol", "µm³", "Volume inside the spine's mesh.", _SMALL),
    measured("head_mesh_vol", "µm³", "Volume inside the head's mesh.", _SMALL),
    word(
        "head_from",
        "What told head from neck: `class` (the model), `profile` (thickness along the spine) or "
        "`whole` (not told apart).",
    ),
    measured(
        "spine_intensity_vol",
        "µm³",
        "Volume by brightness: background-corrected sum over the spine × voxel volume / "
        "background-corrected grey value of the shaft nearby.",
        "no shaft or background nearby",
    ),
)


def _own_of_channel(n: int) -> list[Column]:
    nearby = "no such voxels nearby"
    return [
        *(
            _intensity(part, n, kind)
            for kind in ("sum_int", "corrected_mean_int")
            for part in PARTS
        ),
        measured(f"background_C{n}_int", "grey", f"Local background in channel {n}.", nearby),
        measured(
            f"shaft_C{n}_mean_int",
            "grey",
            f"Mean grey value of the shaft within 1 µm of the base in channel {n}.",
            nearby,
        ),
        *(
            measured(
                f"{part}_C{n}_shaft_ratio",
                "ratio",
                f"Background-corrected mean of the {part} / that of the shaft in channel {n}.",
                nearby,
            )
            for part in ("spine", "head")
        ),
    ]


_OWN_LAST = (
    measured(
        "nearest_spine_um",
        "µm",
        "Distance between middles of heads to the nearest other spine of the image.",
        "the only spine",
    ),
    measured(
        "nearest_spine_along_um",
        "µm",
        "Way along the centerline to the nearest other foot on the same dendrite.",
        "the dendrite's only spine",
    ),
    measured(
        "local_density_per_um",
        "1/µm",
        "Other spines within half of `density_window_um` along the dendrite / length of dendrite "
        "there; ends of the dendrite shorten the length.",
        "dendrites without a length",
    ),
    flag("below_resolution", "The head is thinner than the resolution along some axis."),
    flag("neck_below_resolution", "The neck is thinner than the resolution across it.", _NO_NECK),
    measured(
        "uncertainty",
        "0–1",
        "Mean uncertainty of the segmentation over the spine.",
        "models that give none",
    ),
    measured(
        "confidence",
        "0–1",
        "Greatest probability, over the head's voxels, that one is a spine's.",
        "labels made elsewhere",
    ),
)


def spine(channels: int) -> list[Column]:
    """Columns of the spine table, in RESPAN's order, then ours."""
    every = range(1, channels + 1)
    kinds = ("mean_int", "max_int", "int_density")
    return [
        *_PLACE,
        *_BODY,
        *(_intensity(part, 1, kind) for part in PARTS for kind in kinds),
        *(_intensity(part, n, kind) for n in every[1:] for part in PARTS for kind in kinds[:2]),
        *(_intensity(part, n, kinds[2]) for n in every[1:] for part in ("head", "neck", "spine")),
        *_OWN_FIRST,
        *(column for n in every for column in _own_of_channel(n)),
        *_OWN_LAST,
    ]

"""Shape, lengths and ends of each spine, in its own small box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification import heads, lengths, shape
from respan_quantification.classes import Mask
from respan_quantification.frame import Frame
from respan_quantification.heads import HeadFrom
from respan_quantification.lengths import Lengths
from respan_quantification.meshes import Mesh
from respan_quantification.profile import Middle, middle_line
from respan_quantification.shape import FEWEST_VOXELS, MISSING, Shape
from respan_quantification.spines import Spines

__all__ = ["COLUMNS", "FEWEST_VOXELS", "NEED_A_WAY", "Body", "measure_all"]

_SHAPES = ("area", "vol", "surf_area", "bbox_vol", "extent", "solidity", "convex_vol")

NEED_A_WAY = (
    *(f"{end}_{axis}_um" for end in ("base", "tip") for axis in "zyx"),
    "spine_length",
    "spine_length_straight_um",
    "neck_length",
)
"""Columns that are missing for a spine without a way to its dendrite."""

COLUMNS = (
    *NEED_A_WAY,
    *(f"{part}_{name}" for part in ("spine", "head", "neck") for name in _SHAPES),
    "head_convex_hull_ratio",
    "head_length",
    "head_diameter_um",
    "head_equivalent_diameter_um",
    "spine_equivalent_diameter_um",
    "neck_diameter_um",
    "neck_diameter_min_um",
    "spine_sphericity",
    "head_sphericity",
    "spine_mesh_vol",
    "head_mesh_vol",
    "head_from",
)


@dataclass(frozen=True)
class Body:
    """One spine: which of its voxels are the head's, and its row, in µm of the whole image."""

    number: int
    attached: str
    in_head: NDArray[np.bool_]
    lengths: Lengths
    row: dict[str, float | str]
    meshes: dict[str, Mesh] = field(default_factory=dict)


def measure_all(
    spines: Spines,
    frame: Frame,
    *,
    split: bool,
    has_class: bool,
    tick: Callable[[], None] = lambda: None,
) -> list[Body]:
    """Bodies of spines 1..N.

    Parameters
    ----------
    split
        Tell head from neck by thickness.
    has_class
        The model tells head from neck.
    """
    found = []
    for number, rows in spines.voxels.groups():
        tick()
        found.append(_body(number, rows, spines, frame, split=split, has_class=has_class))
    return found


def _body(
    number: int, rows: slice, spines: Spines, frame: Frame, *, split: bool, has_class: bool
) -> Body:
    spacing = frame.spacing
    # Counted in the whole image, so that blocks do not even change how numbers are rounded.
    index, seen = spines.voxels.index_zyx[rows] + frame.corner, ~spines.inferred[rows]
    middle = _middle(number, rows, spines, frame)
    in_head = spines.in_head[rows]
    head_from: HeadFrom = "class" if has_class else "whole"
    if split:
        divided = heads.split(middle, seen, spacing)
        if divided is not None:
            in_head, head_from = divided, "profile"
    length = lengths.measure(middle, in_head, seen, spacing)
    attached = spines.attached[number]
    shapes, meshes = _shapes(index, in_head, seen, spacing, has_neck=attached != "inferred")
    row: dict[str, float | str] = {
        **_ends(middle),
        **_length_columns(length, in_head),
        **_shape_columns(shapes),
        "head_from": head_from,
    }
    return Body(number, attached, in_head, length, row, meshes)


def _middle(number: int, rows: slice, spines: Spines, frame: Frame) -> Middle:
    """Middle line from the base; points in µm of the whole image."""
    base = spines.bases[number]
    index, nearest = spines.voxels.index_zyx[rows], spines.nearest
    apart = np.abs(index - nearest.index_zyx[rows]).max(axis=1)
    roots = (apart <= 1) & (nearest.ids[rows] == base.dendrite_id)
    voxel = np.asarray(base.voxel_zyx)
    way_um = (np.asarray(base.dendrite_zyx) - voxel) * np.asarray(frame.spacing.zyx)
    corner, spacing = frame.corner, frame.spacing
    seen = spines.attached[number] == "seen"
    foot_um = _foot_um(index[roots] + corner, nearest.index_zyx[rows][roots] + corner, spacing)
    return middle_line(
        index + corner, roots, voxel + corner, way_um, spacing, foot_um if seen else None
    )


def _foot_um(
    index: NDArray[np.integer], dendrite: NDArray[np.integer], spacing: VoxelSpacing
) -> NDArray[np.float64] | None:
    """Halfway between the middle one of touching voxels and the dendrite's voxel.

    Of several that are equally near the middle, the mean: a mirrored image must not have its
    spines elsewhere.
    """
    if not len(index):
        return None
    edges = np.asarray(spacing.zyx)
    points = (index - index[0]) * edges
    off_um = np.linalg.norm(points - points.mean(axis=0), axis=1)
    way_um = np.linalg.norm((dendrite - index) * edges, axis=1)
    central = off_um <= off_um.min() + 1e-6
    central &= way_um <= way_um[central].min() + 1e-6
    return np.asarray((index[central] + dendrite[central]).mean(axis=0) / 2 * edges)


def _ends(middle: Middle) -> dict[str, float | str]:
    points = {"base": middle.points_um[0], "tip": middle.points_um[-1]}
    return {
        f"{end}_{axis}_um": float(value)
        for end, point in points.items()
        for axis, value in zip("zyx", point, strict=True)
    }


def _length_columns(length: Lengths, in_head: NDArray[np.bool_]) -> dict[str, float | str]:
    has_neck = not in_head.all() and length.neck_um > 0
    return {
        "spine_length": length.spine_um,
        "spine_length_straight_um": length.straight_um,
        "head_length": length.head_um,
        "neck_length": length.neck_um if has_neck else MISSING,
        "head_diameter_um": length.head_diameter_um,
        "neck_diameter_um": length.neck_diameter_um,
        "neck_diameter_min_um": length.neck_diameter_min_um,
    }


def _shapes(
    index: NDArray[np.integer],
    in_head: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    spacing: VoxelSpacing,
    *,
    has_neck: bool,
) -> tuple[dict[str, Shape], dict[str, Mesh]]:
    """Shapes and meshes of what was seen of the spine, its head and its neck."""
    is_all_head = bool((in_head == seen).all())
    chosen = {"head": in_head}
    if not is_all_head:
        chosen |= {"spine": seen, "neck": seen & ~in_head & has_neck}
    shapes, meshes = {}, {}
    for part, flags in chosen.items():
        shapes[part], mesh = _shape(index[flags], spacing)
        if mesh is not None:
            meshes[part] = mesh
    if is_all_head:
        shapes |= {"spine": shapes["head"], "neck": Shape()}
        meshes |= {"spine": meshes["head"]} if meshes else {}
    return shapes, meshes


def _shape(index: NDArray[np.integer], spacing: VoxelSpacing) -> tuple[Shape, Mesh | None]:
    if not len(index):
        return Shape(), None
    corner = index.min(axis=0)
    found, mesh = shape.measure_with_mesh(_filled(index - corner), spacing)
    return found, None if mesh is None else mesh.moved(corner * np.asarray(spacing.zyx))


def _filled(index: NDArray[np.integer]) -> Mask:
    mask = np.zeros(index.max(axis=0) + 1, dtype=bool)
    mask[tuple(index.T)] = True
    return mask


def _shape_columns(shapes: dict[str, Shape]) -> dict[str, float | str]:
    columns: dict[str, float | str] = {}
    for part, found in shapes.items():
        values = (
            *(found.area_um2, found.volume_um3, found.surface_um2, found.bbox_um3),
            *(found.extent, found.solidity, found.convex_um3),
        )
        columns |= {f"{part}_{name}": value for name, value in zip(_SHAPES, values, strict=True)}
    head, spine = shapes["head"], shapes["spine"]
    return columns | {
        "head_convex_hull_ratio": head.convex_um3 / head.volume_um3 - 1,
        "head_equivalent_diameter_um": head.equivalent_diameter_um,
        "spine_equivalent_diameter_um": spine.equivalent_diameter_um,
        "spine_sphericity": spine.sphericity,
        "head_sphericity": head.sphericity,
        "spine_mesh_vol": spine.mesh_um3,
        "head_mesh_vol": head.mesh_um3,
    }

"""Every measurement of every spine, as rows of the spine table.

Conventions: a spine without a seen neck has no neck values. An inferred neck has a length and
grey values along its path; its width is unknown, so it has no volume, and the spine's own volume,
surface and intensities are those of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, grow
from respan_quantification import intensity, lengths, shape
from respan_quantification.attachment import Base
from respan_quantification.classes import Mask
from respan_quantification.objects import boxes, touches_faces
from respan_quantification.shape import MISSING, Shape
from respan_quantification.spines import Spines
from respan_quantification.surface import Surface
from respan_quantification.tree import Tree

Row = dict[str, Any]


def spine_rows(
    spines: Spines,
    trees: dict[int, Tree],
    soma: Surface,
    spacing: VoxelSpacing,
    read_channel: intensity.ReadChannel,
    channels: int,
    tick: Callable[[], None],
) -> list[Row]:
    """One row per spine, 1..N."""
    whole_boxes = boxes(spines.whole)
    columns = {
        **_places(spines, spacing),
        **_distances(spines, soma),
        **_intensities(spines, read_channel, channels, spacing),
    }
    rows: list[Row] = []
    for number, voxels in spines.voxels.groups():
        tick()
        box = whole_boxes[number]
        row = {name: values[number - 1] for name, values in columns.items()}
        row |= _identity(number, spines, box)
        row |= _along_dendrite(spines.bases[number], trees, spacing)
        row |= _body(number, voxels, spines, box, spacing)
        rows.append(row)
    return rows


def _places(spines: Spines, spacing: VoxelSpacing) -> intensity.Columns:
    """Centroid of the head, in voxels (RESPAN's x, y, z) and in µm."""
    heads = spines.voxels.part(spines.in_head)
    columns = {}
    for axis, (name, edge) in enumerate(zip("zyx", spacing.zyx, strict=True)):
        mean = heads.total(heads.index_zyx[:, axis].astype(np.float64)) / heads.counts
        columns[name] = heads.column(mean, spines.count)
        columns[f"{name}_um"] = columns[name] * edge
    return columns


def _distances(spines: Spines, soma: Surface) -> intensity.Columns:
    """From the head to the dendrite's surface, near and far side, and to the soma's."""
    heads = spines.voxels.part(spines.in_head)
    near_um = heads.minimum(spines.nearest.gap_um[spines.in_head])
    far_um = heads.maximum(spines.nearest.center_um[spines.in_head])
    columns = {
        "head_euclidean_dist_to_dend": heads.column(near_um, spines.count),
        # Half a voxel of the dendrite less, half a voxel of the head more: between centers.
        "spine_length_euclidean": heads.column(far_um, spines.count),
        "euclidean_dist_to_soma": np.full(spines.count, np.nan),
    }
    if not soma.is_empty and spines.count:
        soma_um = heads.minimum(soma.nearest(heads.index_zyx).gap_um)
        columns["euclidean_dist_to_soma"] = heads.column(soma_um, spines.count)
    return columns


def _intensities(
    spines: Spines, read_channel: intensity.ReadChannel, channels: int, spacing: VoxelSpacing
) -> intensity.Columns:
    parts = {
        "spine": spines.voxels.part(~spines.inferred),
        "head": spines.voxels.part(spines.in_head),
        "neck": spines.voxels.part(~spines.in_head),
    }
    columns = intensity.measure(parts, read_channel, channels, spines.count, spacing)
    unknown_width = np.array(
        [spines.attached[number] == "inferred" for number in sorted(spines.attached)], dtype=bool
    )
    for channel in range(1, channels + 1):
        columns[f"neck_C{channel}_int_density"][unknown_width] = np.nan
    return columns


def _identity(number: int, spines: Spines, box: Box) -> Row:
    shape_zyx = spines.whole.shape
    # A single slice is cut on both faces for every object: that says nothing about any of them.
    axes = (0, 1, 2) if shape_zyx[0] > 1 else (1, 2)
    return {
        "spine_id": number,
        "dendrite_id": spines.bases[number].dendrite_id,
        "attached": spines.attached[number],
        "touches_border": touches_faces(box, shape_zyx, axes),
    }


def _along_dendrite(base: Base, trees: dict[int, Tree], spacing: VoxelSpacing) -> Row:
    """Place on the centerline; the way to the soma is missing unless the dendrite reaches one."""
    tree = trees[base.dendrite_id]
    foot_um = spacing.points_um(np.array([base.dendrite_zyx]))
    position_um = float(tree.position_um(foot_um)[0])
    to_soma_um = position_um + tree.soma_gap_um if tree.soma_id else MISSING
    return {"position_on_dendrite_um": position_um, "geodesic_dist_to_soma": to_soma_um}


def _body(number: int, rows: slice, spines: Spines, tight: Box, spacing: VoxelSpacing) -> Row:
    """Shapes and lengths of one spine, in its own box."""
    box = grow(tight, (1, 1, 1), spines.whole.shape)
    corner = np.array([part.start for part in box])
    whole = spines.whole[box] == number
    index = spines.voxels.index_zyx[rows] - corner
    head = _filled(whole.shape, index[spines.in_head[rows]])
    seen = _filled(whole.shape, index[~spines.inferred[rows]])
    is_inferred = spines.attached[number] == "inferred"
    neck_shape = Shape() if is_inferred else shape.measure(seen & ~head, spacing)
    head_shape = shape.measure(head, spacing)
    row = {
        **_shape_columns("spine", shape.measure(seen, spacing)),
        **_shape_columns("head", head_shape),
        **_shape_columns("neck", neck_shape),
        "head_convex_hull_ratio": head_shape.convex_um3 / head_shape.volume_um3 - 1,
    }
    return row | _lengths(spines, number, whole, head, corner, spacing, neck_shape.volume_um3)


def _filled(shape_zyx: tuple[int, ...], index: NDArray[np.integer]) -> Mask:
    mask = np.zeros(shape_zyx, dtype=bool)
    mask[tuple(index.T)] = True
    return mask


def _shape_columns(part: str, measured: Shape) -> Row:
    return {
        f"{part}_area": measured.area_um2,
        f"{part}_vol": measured.volume_um3,
        f"{part}_surf_area": measured.surface_um2,
        f"{part}_bbox_vol": measured.bbox_um3,
        f"{part}_extent": measured.extent,
        f"{part}_solidity": measured.solidity,
        f"{part}_convex_vol": measured.convex_um3,
    }


def _lengths(
    spines: Spines,
    number: int,
    whole: Mask,
    head: Mask,
    corner: NDArray[np.int64],
    spacing: VoxelSpacing,
    neck_volume_um3: float,
) -> Row:
    """Lengths along the path; only a spine that reaches its dendrite has a base to start from."""
    base = spines.bases[number]
    z, y, x = (int(edge) for edge in np.subtract(base.voxel_zyx, corner))
    way_um = spacing.points_um(np.subtract(base.dendrite_zyx, base.voxel_zyx))
    to_dendrite_um = way_um if base.touches else np.zeros(3)
    found = lengths.measure(whole, head, (z, y, x), to_dendrite_um, spacing)
    has_neck = base.touches and not np.array_equal(whole, head)
    neck_um = found.neck_um if has_neck and found.neck_um > 0 else MISSING
    return {
        "spine_length": found.head_um + found.neck_um if base.touches else MISSING,
        "head_length": found.head_um,
        "neck_length": neck_um,
        # Diameter of the cylinder of the neck's volume and length.
        "neck_diameter_um": 2 * float(np.sqrt(neck_volume_um3 / (np.pi * neck_um))),
    }

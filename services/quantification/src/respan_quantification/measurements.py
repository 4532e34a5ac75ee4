"""Everything about spines that their voxels tell: rows of the spine table.

Conventions: a spine without a seen neck has no neck values. An inferred neck has a length and
grey values along its path; its width is unknown, so it has no volume, and the spine's own volume,
surface and intensities are those of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_quantification import bodies, intensity
from respan_quantification.bodies import Body
from respan_quantification.complexes import confidence_of
from respan_quantification.frame import Frame
from respan_quantification.light import centroids
from respan_quantification.meshes import Mesh
from respan_quantification.objects import Voxels
from respan_quantification.shape import asymmetries
from respan_quantification.spines import Spines
from respan_quantification.surface import Surface
from respan_quantification.view import View

Columns = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Spines 1..N with head and neck told apart, and a row for each.

    `meshes` has the surfaces of each spine's parts (spine, head, neck) in µm of the whole image,
    if they were asked for.
    """

    spines: Spines
    table: pd.DataFrame
    meshes: dict[tuple[int, str], Mesh]


def measured(
    spines: Spines,
    view: View,
    soma: Surface | None,
    params: QuantificationParams,
    tick: Callable[[], None] = lambda: None,
) -> Measured:
    """Tell heads from necks where the model does not, and measure everything.

    Parameters
    ----------
    spines
        Indices count from the first voxel of the view's arrays.
    soma
        Surface of all somas of the image, if there are any.
    """
    frame = view.frame
    confidence = _confidence(spines, view)
    split = params.split_heads and not view.classes.has("neck")
    found = bodies.measure_all(
        spines, frame, split=split, has_class=view.classes.has("neck"), tick=tick
    )
    spines = replace(spines, in_head=np.concatenate([[], *(b.in_head for b in found)]).astype(bool))
    heads = spines.voxels.part(spines.in_head)
    columns: Columns = {
        **_identity(spines),
        **_places(spines, heads, frame),
        **_distances(spines, heads, soma, frame),
        **_body_columns(found),
        **_asymmetry(spines, heads, frame.spacing),
        **_resolution(found, params, frame.spacing),
        "confidence": confidence,
    }
    columns |= intensity.spine_intensities(
        spines, frame, view.classes, view.dendrites, view.grey, view.channels, params,
        view.uncertainty,
    )  # fmt: skip
    wanted = found if params.meshes else []
    meshes = {(body.number, part): mesh for body in wanted for part, mesh in body.meshes.items()}
    return Measured(spines, pd.DataFrame(columns), meshes)


def measure(
    spines: Spines,
    view: View,
    soma: Surface | None,
    params: QuantificationParams,
    tick: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Only the rows of `measured`."""
    return measured(spines, view, soma, params, tick).table


def _identity(spines: Spines) -> Columns:
    numbers = range(1, spines.count + 1)
    return {
        "spine_id": np.arange(1, spines.count + 1, dtype=np.int64),
        "dendrite_id": np.array([spines.bases[n].dendrite_id for n in numbers], np.int64),
        "attached": np.array([spines.attached[n] for n in numbers], dtype=object),
        "attachment_quality": spines.quality,
        "touches_border": spines.touches_border,
    }


def _places(spines: Spines, heads: Voxels, frame: Frame) -> Columns:
    """Centroid of the head in voxels: RESPAN's z, y, x."""
    return dict(zip("zyx", centroids(heads, frame, spines.count).T, strict=True))


def _distances(spines: Spines, heads: Voxels, soma: Surface | None, frame: Frame) -> Columns:
    """From the head to the dendrite's surface, near and far side, and to the soma's."""
    near_um = heads.minimum(spines.nearest.gap_um[spines.in_head])
    far_um = heads.maximum(spines.nearest.center_um[spines.in_head])
    columns: Columns = {
        "head_euclidean_dist_to_dend": heads.column(near_um, spines.count),
        # Half a voxel of the dendrite less, half a voxel of the head more: between centers.
        "spine_length_euclidean": heads.column(far_um, spines.count),
        "euclidean_dist_to_soma": np.full(spines.count, np.nan),
    }
    if soma is not None and not soma.is_empty and spines.count:
        soma_um = heads.minimum(soma.nearest(heads.index_zyx + frame.corner).gap_um)
        columns["euclidean_dist_to_soma"] = heads.column(soma_um, spines.count)
    return columns


def _body_columns(found: list[Body]) -> Columns:
    """Shapes, lengths, ends; what says nothing without a way to the dendrite is missing."""
    table = pd.DataFrame([body.row for body in found], columns=bodies.COLUMNS)
    lost = np.array([body.attached == "none" for body in found], dtype=bool)
    table.loc[lost, list(bodies.NEED_A_WAY)] = np.nan
    return {name: table[name].to_numpy() for name in bodies.COLUMNS}


def _confidence(spines: Spines, view: View) -> NDArray[np.float64]:
    """What `min_spine_confidence` judges: voxels that the model called a head."""
    if view.confidence is None:
        return np.full(spines.count, np.nan)
    head = spines.voxels.part(spines.in_head)
    return confidence_of(view.confidence[tuple(head.index_zyx.T)], head.ids, spines.count)


def _asymmetry(spines: Spines, heads: Voxels, spacing: VoxelSpacing) -> Columns:
    found = asymmetries(heads.index_zyx, heads.starts, spacing)
    found[heads.counts < bodies.FEWEST_VOXELS] = np.nan
    return {"head_asymmetry": heads.column(found, spines.count)}


def _resolution(found: list[Body], params: QuantificationParams, spacing: VoxelSpacing) -> Columns:
    """Whether head and neck are thinner than what the microscope resolves."""
    resolution = np.asarray(params.resolution_um or 2 * np.asarray(spacing.zyx), np.float64)
    head_um = np.array([body.lengths.head_diameter_um for body in found])
    neck_um = np.array([body.lengths.neck_diameter_um for body in found])
    tangents = np.array([body.lengths.neck_tangent for body in found]).reshape(-1, 3)
    is_thin = neck_um < across_um(tangents, resolution)
    return {
        "below_resolution": ~(head_um >= resolution.max()),
        "neck_below_resolution": pd.arrays.BooleanArray(is_thin, np.isnan(neck_um)),
    }


def across_um(
    tangents: NDArray[np.float64], resolution_um: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coarsest resolution across these directions, shape (n, 3); along them does not count."""
    tangents = np.nan_to_num(tangents)
    sideways = np.eye(3) - np.einsum("ni,nj->nij", tangents, tangents)
    squares = sideways @ np.diag(resolution_um**2) @ sideways
    return np.asarray(np.sqrt(np.linalg.eigvalsh(squares)[:, -1]))

"""Spines: which putative spines are kept, and how they are joined to their dendrites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_quantification import necks
from respan_quantification.attachment import Base, bases
from respan_quantification.classes import ClassImage, Mask
from respan_quantification.instances import spine_instances
from respan_quantification.objects import Labels, Voxels, boxes, keep, touches_faces, volumes_um3
from respan_quantification.surface import Nearest, Surface


@dataclass(frozen=True)
class Spines:
    """Spines 1..N with their heads and necks.

    `whole` numbers head and neck alike; `voxels` are its voxels, with one entry each in
    `in_head`, `inferred` (an inferred neck's) and `nearest` (the nearest dendrite voxel).
    `attached` says of each spine whether its way to the dendrite was seen, inferred, or not found.
    """

    whole: Labels
    voxels: Voxels
    in_head: NDArray[np.bool_]
    inferred: NDArray[np.bool_]
    nearest: Nearest
    bases: dict[int, Base]
    attached: dict[int, str]

    @property
    def count(self) -> int:
        """Number of spines."""
        return len(self.bases)


def find_heads(
    classes: ClassImage, surface: Surface, spacing: VoxelSpacing, params: QuantificationParams
) -> tuple[Labels, dict[str, float]]:
    """Heads of the spines that pass every filter, numbered 1..N, and how many did not."""
    heads = spine_instances(classes, spacing, params)
    volumes = volumes_um3(heads, spacing)
    too_small = volumes < params.min_spine_volume_um3
    too_large = volumes > params.max_spine_volume_um3
    at_border = _at_border(heads, len(volumes)) & params.remove_border_spines
    kept = ~(too_small | too_large | at_border)
    dropped = {
        "discarded_too_small": float(too_small[1:].sum()),
        "discarded_too_large": float(too_large[1:].sum()),
        "discarded_at_border": float((at_border & ~too_small & ~too_large)[1:].sum()),
    }
    heads = keep(heads, kept)
    near = _near(heads, surface, params.max_spine_distance_um)
    dropped["discarded_too_far"] = float((~near[1:]).sum())
    return keep(heads, near), dropped


def _at_border(labels: Labels, count: int) -> NDArray[np.bool_]:
    at_border = np.zeros(count, dtype=bool)
    for number, box in boxes(labels).items():
        at_border[number] = touches_faces(box, labels.shape, (1, 2))
    return at_border


def _near(heads: Labels, surface: Surface, max_distance_um: float) -> NDArray[np.bool_]:
    """Heads whose nearest voxel is within reach of a dendrite; entry 0 is the background."""
    voxels = Voxels.of(heads)
    near = np.zeros(int(heads.max(initial=0)) + 1, dtype=bool)
    if not surface.is_empty and len(voxels.ids):
        gap_um = voxels.minimum(surface.nearest(voxels.index_zyx).gap_um)
        near[voxels.present] = gap_um <= max_distance_um
    return near


def join_to_dendrites(
    heads: Labels,
    classes: ClassImage,
    dendrites: Labels,
    surface: Surface,
    neuron: NDArray[np.generic],
    spacing: VoxelSpacing,
    params: QuantificationParams,
    tick: Callable[[], None],
) -> Spines:
    """Give heads their predicted necks, infer missing ones, and find every base."""
    whole, loose = heads, np.zeros(heads.shape, dtype=bool)
    if classes.has("neck"):
        whole, loose = necks.give_predicted_necks(heads, classes.mask("neck"), spacing)
    voxels = Voxels.of(whole)
    if not len(voxels.ids):
        nothing = np.zeros(0, dtype=bool)
        return Spines(whole, voxels, nothing, nothing, _NOBODY, {}, {})
    found, nearest = bases(voxels, surface, spacing)
    attached = {number: "seen" if base.touches else "none" for number, base in found.items()}
    inferred: dict[int, NDArray[np.int64]] = {}
    if params.generate_necks and "none" in attached.values():
        closed = classes.mask("soma", "axon")
        is_head = heads > 0
        whole = whole.copy() if whole is heads else whole
        around = necks.Surroundings(whole, dendrites, closed, loose, neuron)
        inferred = necks.infer_necks(
            around, _gaps(found), boxes(whole), spacing, params.max_neck_length_um, tick
        )
        attached |= dict.fromkeys(inferred, "inferred")
        voxels = Voxels.of(whole)
        found, nearest = bases(voxels, surface, spacing)
        in_head = is_head[tuple(voxels.index_zyx.T)]
    else:
        in_head = heads[tuple(voxels.index_zyx.T)] > 0
    drawn = _flags(voxels, inferred, whole.shape)
    return Spines(whole, voxels, in_head, drawn, nearest, found, attached)


_NOBODY = Nearest(np.zeros(0), np.zeros(0), np.zeros(0, np.uint32), np.zeros((0, 3), np.int32))


def _gaps(found: dict[int, Base]) -> list[necks.Gap]:
    return [
        necks.Gap(number, base.voxel_zyx, base.dendrite_zyx, base.gap_um)
        for number, base in found.items()
        if not base.touches
    ]


def _flags(
    voxels: Voxels, inferred: dict[int, NDArray[np.int64]], shape_zyx: tuple[int, ...]
) -> Mask:
    """Which voxels belong to an inferred neck."""
    if not inferred:
        return np.zeros(len(voxels.ids), dtype=bool)
    drawn = np.ravel_multi_index(tuple(np.concatenate(list(inferred.values())).T), shape_zyx)
    return np.isin(np.ravel_multi_index(tuple(voxels.index_zyx.T), shape_zyx), drawn)

"""Spines: which putative spines a block keeps, and how they are joined to their dendrites.

Strategy: connected sets of head and neck voxels (complexes) are divided one by one, in their own
boxes. A spine is final when everything that decides about it was seen: its whole complex, the
dendrites nearer than any cut, and, where its neck must be inferred, the room for the path. All
others are left to a second call with larger arrays. So a spine never depends on the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx
from respan_common.params import QuantificationParams
from respan_quantification.attachment import Base, bases
from respan_quantification.classes import ClassImage
from respan_quantification.complexes import FATES, Complexes, find_complexes, touches_border
from respan_quantification.frame import Frame
from respan_quantification.joining import find_neck
from respan_quantification.necks import Neck
from respan_quantification.objects import Labels, Voxels
from respan_quantification.search import (
    STEP_UM,
    Parts,
    Scene,
    Waiting,
    are_near,
    divided,
    nearest_in,
    voxels_of,
)
from respan_quantification.surface import Nearest, Surface


@dataclass(frozen=True)
class Spines:
    """Spines 1..N of a block, in the order of their anchors. Indices count from the arrays' first.

    `voxels` are the voxels of heads and necks, with one entry each in `in_head`, `inferred` (an
    inferred neck's) and `nearest` (the nearest dendrite voxel). Inferred necks of two spines may
    share voxels; `painted` says whose they are in a label image.

    Per spine (N): `anchors`, the raster number in the whole image of the first voxel of its
    head; `attached`, whether its way to the dendrite was seen, inferred, or not found (none);
    `quality`, what speaks for that way (1: seen, NaN: none); `gaps_um` between what was seen of
    it and the dendrite; `touches_border`, whether a face of the image cuts it; `complete`, false
    if the arrays could not grow until they held all that decides about it.
    """

    shape_zyx: Zyx
    voxels: Voxels
    in_head: NDArray[np.bool_]
    inferred: NDArray[np.bool_]
    nearest: Nearest
    bases: dict[int, Base]
    attached: dict[int, str]
    paths: dict[int, NDArray[np.int64]]
    """Inferred paths, from the spine's last voxel to the dendrite's first, shape (n, 3)."""
    anchors: NDArray[np.int64]
    quality: NDArray[np.float64]
    gaps_um: NDArray[np.float64]
    touches_border: NDArray[np.bool_]
    complete: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of spines."""
        return len(self.bases)

    @cached_property
    def whole(self) -> Labels:
        """Label image of heads and necks, as large as the arrays."""
        labels = np.zeros(self.shape_zyx, dtype=np.uint32)
        order = self.painting_order()
        labels[tuple(self.voxels.index_zyx[order].T)] = self.voxels.ids[order]
        return labels

    def painting_order(self) -> NDArray[np.int64]:
        """Rows of voxels, so that the last of several in one place is the one that counts.

        What was seen is painted over what was inferred; of inferred necks the one with the
        shorter gap wins, then the one with the smaller anchor.
        """
        owner = self.voxels.ids.astype(np.int64) - 1
        return np.lexsort((-self.anchors[owner], -self.gaps_um[owner], ~self.inferred))


@dataclass(frozen=True)
class Found:
    """What a block found: final spines, what remains to be done, and how many were dropped.

    A straggler is a complex that could not be decided: the raster number in the whole image of
    its first owned head voxel, and the box, in voxels of the whole image, to be seen next time.
    It may have to grow again.
    """

    spines: Spines
    stragglers: list[tuple[int, Box]] = field(default_factory=list)
    discarded: dict[str, float] = field(default_factory=dict)


def find_spines(
    classes: ClassImage,
    dendrites: Labels,
    neuron: NDArray[np.generic],
    frame: Frame,
    params: QuantificationParams,
    tick: Callable[[], None] = lambda: None,
    *,
    confidence: NDArray[np.uint8] | None = None,
    only: Collection[int] | None = None,
    final: bool = False,
) -> Found:
    """The spines that a block owns.

    Parameters
    ----------
    classes, dendrites, neuron
        Class values, dendrite ids and the neuron's grey values, shape (z, y, x), over
        `frame.outer`.
    confidence
        How sure segmentation is of each voxel of a spine (255: certain), if it said so.
    only
        Anchors of stragglers: nothing else is looked at. The arrays should cover their boxes,
        and `frame.inner` must be the owned part of the block that they came from (clipped to
        the arrays).
    final
        Decide with what is there; nothing is left, but spines may be marked incomplete.
    """
    scene = Scene(classes, dendrites, neuron, frame, params, confidence)
    complexes = find_complexes(classes, frame, params)
    anchors = complexes.anchors_in(frame)
    chosen = anchors >= 0
    if only is not None:
        # What waited as two complexes may turn out to be one: it is the first one's to do.
        chosen &= np.isin(anchors, np.fromiter(only, np.int64))
    waiting = Waiting(complexes, frame, again=only is not None, final=final)
    for number in np.flatnonzero(chosen & complexes.is_cut).tolist():
        waiting.see(number, complexes.box(number), STEP_UM)
    parts = divided(scene, complexes, chosen & ~waiting.flags, tick)
    surface = Surface.of_labels(dendrites, frame)
    nearest = nearest_in(surface, parts.voxels.index_zyx, frame)
    near = are_near(parts, nearest, scene, waiting)
    standing = bases(parts.voxels, nearest, frame.spacing) if not surface.is_empty else {}
    inferred = _necks(parts, near, standing, scene, complexes, waiting, tick)
    discarded = _discarded(parts, near, complexes, chosen, waiting, frame)
    judged = _Judged(parts, nearest, standing, inferred, surface, waiting)
    kept = near & ~waiting.flags[parts.complexes]
    return Found(_assembled(judged, kept, scene), waiting.stragglers(anchors), discarded)


def _necks(
    parts: Parts,
    near: NDArray[np.bool_],
    standing: dict[int, Base],
    scene: Scene,
    complexes: Complexes,
    waiting: Waiting,
    tick: Callable[[], None],
) -> dict[int, Neck]:
    """Inferred neck of each part (1..P) that needs one and has a way."""
    found = {}
    for part in np.flatnonzero(near).tolist():
        base = standing[part + 1]
        is_apart = not base.touches and base.gap_um <= scene.params.max_neck_length_um
        if is_apart and scene.params.generate_necks and not waiting.flags[parts.complexes[part]]:
            tick()
            neck = find_neck(part, base, parts, scene, complexes, waiting)
            if neck is not None:
                found[part + 1] = neck
    return found


def _discarded(
    parts: Parts,
    near: NDArray[np.bool_],
    complexes: Complexes,
    chosen: NDArray[np.bool_],
    waiting: Waiting,
    frame: Frame,
) -> dict[str, float]:
    """How many owned putative spines of decided complexes each filter dropped."""
    decided = chosen & ~waiting.flags
    fates = parts.lost[decided[parts.lost[:, 0]], 1]
    counts = np.bincount(fates, minlength=len(FATES))
    counts[FATES.index("too_small")] += complexes.specks_in(frame, decided)
    too_far = (~near & decided[parts.complexes]).sum()
    numbers = {f"discarded_{fate}": float(counts[FATES.index(fate)]) for fate in FATES[1:]}
    return numbers | {"discarded_too_far": float(too_far)}


@dataclass(frozen=True)
class _Judged:
    """Parts with all that is known about their way to a dendrite."""

    parts: Parts
    nearest: Nearest
    standing: dict[int, Base]
    inferred: dict[int, Neck]
    surface: Surface
    waiting: Waiting


def _assembled(judged: _Judged, kept: NDArray[np.bool_], scene: Scene) -> Spines:
    """Kept parts, numbered in the order of their anchors."""
    parts, frame = judged.parts, scene.frame
    chosen = np.flatnonzero(kept)
    chosen = chosen[np.argsort(parts.anchors[chosen])]
    number = np.zeros(parts.count + 1, dtype=np.uint32)
    number[chosen + 1] = np.arange(1, len(chosen) + 1)
    paths = {int(number[p]): neck for p, neck in judged.inferred.items() if number[p]}
    drawn = [neck.voxels_zyx.astype(np.int32) for neck in paths.values()]
    new = np.concatenate([np.zeros((0, 3), np.int32), *drawn])
    owners = np.repeat([0, *paths], [0, *map(len, drawn)])
    old = np.flatnonzero(number[parts.voxels.ids])
    index = np.concatenate([parts.voxels.index_zyx[old], new])
    ids = np.concatenate([number[parts.voxels.ids[old]], owners]).astype(np.uint32)
    order = np.lexsort((frame.linear(index), ids))
    voxels = voxels_of(index[order], ids[order])
    nearest = judged.nearest.rows(old).joined(nearest_in(judged.surface, new, frame)).rows(order)
    in_head = np.append(parts.in_head[old], np.zeros(len(new), bool))[order]
    standing = {int(number[part + 1]): judged.standing[part + 1] for part in chosen.tolist()}
    at_border = touches_border(voxels.index_zyx, frame, _axes(frame))
    return Spines(
        shape_zyx=frame.outer_shape,
        voxels=voxels,
        in_head=in_head,
        inferred=(order >= len(old)),
        nearest=nearest,
        bases=standing | {spine: _base_of(neck) for spine, neck in paths.items()},
        attached=_attached(standing, paths),
        paths={spine: neck.path_zyx for spine, neck in paths.items()},
        anchors=parts.anchors[chosen],
        quality=_quality(standing, paths),
        gaps_um=np.array([base.gap_um for base in standing.values()]),
        touches_border=voxels.maximum(at_border.astype(np.float64)) > 0,
        complete=~judged.waiting.incomplete[parts.complexes[chosen]],
    )


def _axes(frame: Frame) -> tuple[int, ...]:
    # A single slice is cut on both faces for every object: that says nothing about any of them.
    return (0, 1, 2) if frame.shape_zyx[0] > 1 else (1, 2)


def _base_of(neck: Neck) -> Base:
    z, y, x = (int(edge) for edge in neck.path_zyx[-2])
    to_z, to_y, to_x = (int(edge) for edge in neck.path_zyx[-1])
    return Base(neck.dendrite_id, True, 0.0, (z, y, x), (to_z, to_y, to_x))


def _attached(standing: dict[int, Base], paths: dict[int, Neck]) -> dict[int, str]:
    seen = {spine: "seen" if base.touches else "none" for spine, base in standing.items()}
    return seen | dict.fromkeys(paths, "inferred")


def _quality(standing: dict[int, Base], paths: dict[int, Neck]) -> NDArray[np.float64]:
    seen = {spine: 1.0 if base.touches else np.nan for spine, base in standing.items()}
    found = seen | {spine: neck.quality for spine, neck in paths.items()}
    return np.array(list(found.values()), dtype=np.float64)

"""Complexes: connected sets of head and neck voxels, which must be seen whole to be divided.

A complex decides everything about the spines in it but their dendrites: which voxels are one
spine, who is too small, and which neck is whose. One that touches a face where the arrays were
cut may be different beyond it, and has to wait for larger arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, grow, shape_of
from respan_common.params import QuantificationParams
from respan_quantification import instances, necks
from respan_quantification.classes import HEAD_ROLES, ClassImage, Mask
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, components

FATES = ("kept", "too_small", "doubtful", "too_large", "at_border")
"""What can become of a putative spine here; later it may also be too far from any dendrite."""


@dataclass(frozen=True)
class Complexes:
    """Complexes 1..N of a block's arrays, and their voxels sorted by complex.

    Per voxel (n): `index_zyx`, `is_head`, and `pieces`, the component of heads alone that it is in
    (0 for necks). Per complex (N + 1, entry 0 unused): rows
    `starts[i]` to `starts[i + 1]`; the box from `low` to `high` (exclusive); `is_cut` says
    whether it touches a face where the arrays were cut, `stands` whether a head component in it
    is large enough for a spine. Only those that stand block the way of other spines' necks; the
    necks of the others are loose.
    """

    labels: Labels
    index_zyx: NDArray[np.int32]
    is_head: NDArray[np.bool_]
    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    is_cut: NDArray[np.bool_]
    stands: NDArray[np.bool_]

    def box(self, number: int) -> Box:
        """Tight box of a complex."""
        z, y, x = (
            slice(int(a), int(b)) for a, b in zip(self.low[number], self.high[number], strict=True)
        )
        return (z, y, x)

    def rows(self, number: int) -> slice:
        """Where the voxels of a complex stand."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Complex of each voxel."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def anchors_in(self, frame: Frame) -> NDArray[np.int64]:
        """Raster number in the whole image of each complex's first owned head voxel; or -1."""
        owned = np.flatnonzero(self.is_head & frame.owns(self.index_zyx))
        numbers, first = np.unique(self.numbers[owned], return_index=True)
        anchors = np.full(len(self.stands), -1, dtype=np.int64)
        anchors[numbers] = frame.linear(self.index_zyx[owned[first]])
        return anchors

    def specks_in(self, frame: Frame, chosen: NDArray[np.bool_]) -> int:
        """Owned head components in chosen complexes of which no head is large enough."""
        pieces, first = np.unique(self.pieces, return_index=True)
        first = first[pieces > 0]
        first = first[(chosen & ~self.stands)[self.numbers[first]]]
        return int(frame.owns(self.index_zyx[first]).sum())


def find_complexes(classes: ClassImage, frame: Frame, params: QuantificationParams) -> Complexes:
    """All complexes that a block sees."""
    heads = classes.mask(*HEAD_ROLES)
    both = heads | classes.mask("neck") if classes.has("neck") else heads
    labels = components(both)
    linear = np.flatnonzero(both)
    ids = labels.ravel()[linear].astype(np.int64)
    order = np.argsort(ids, kind="stable")
    linear, ids = linear[order], ids[order]
    index = np.stack(np.unravel_index(linear, labels.shape), axis=1)
    starts = np.searchsorted(ids, np.arange(ids.max(initial=0) + 2))
    low, high = _extents(index, starts)
    is_head = heads.ravel()[linear]
    pieces = ids
    if both is not heads:
        pieces = np.where(is_head, components(heads).ravel()[linear], 0).astype(np.int64)
    largest = np.zeros(len(low), dtype=np.int64)
    np.maximum.at(largest, ids[is_head], np.bincount(pieces)[pieces[is_head]])
    return Complexes(
        labels=labels,
        index_zyx=index.astype(np.int32),
        is_head=is_head,
        pieces=pieces,
        starts=starts,
        low=low,
        high=high,
        is_cut=_is_cut(low, high, frame),
        stands=largest * frame.spacing.voxel_volume_um3 >= params.min_spine_volume_um3,
    )


def _extents(
    index: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Box of each complex; entry 0, which has no voxels, is empty."""
    low, high = np.zeros((2, len(starts) - 1, 3), dtype=np.int64)
    if len(index):
        low[1:] = np.minimum.reduceat(index, starts[1:-1])
        high[1:] = np.maximum.reduceat(index, starts[1:-1]) + 1
    return low, high


def _is_cut(low: NDArray[np.int64], high: NDArray[np.int64], frame: Frame) -> NDArray[np.bool_]:
    touches = np.zeros(len(low), dtype=bool)
    for axis, part in enumerate(frame.outer):
        if part.start > 0:
            touches |= low[:, axis] == 0
        if part.stop < frame.shape_zyx[axis]:
            touches |= high[:, axis] == part.stop - part.start
    touches[0] = False
    return touches


@dataclass(frozen=True)
class Division:
    """What a complex consists of: parts 1..K, each kept as a spine or not.

    Per voxel of the complex (n): `part` (0: nobody's), `in_head`, and `is_loose` for neck voxels
    that no spine owns. Per part (K): `fates` as numbers of `FATES`, and `anchors`, the first
    head voxel in raster order, counted like the complex's voxels.
    """

    part: NDArray[np.int64]
    in_head: NDArray[np.bool_]
    is_loose: NDArray[np.bool_]
    fates: NDArray[np.int64]
    anchors: NDArray[np.int64]


def divide(
    number: int,
    complexes: Complexes,
    classes: ClassImage,
    neuron: NDArray[np.generic],
    frame: Frame,
    params: QuantificationParams,
    confidence: NDArray[np.uint8] | None = None,
) -> Division:
    """Putative spines of one complex, what becomes of them, and their necks.

    Parameters
    ----------
    neuron
        Grey values over `frame.outer`.
    confidence
        What segmentation wrote under that name, over `frame.outer`.
    """
    box = grow(complexes.box(number), (1, 1, 1), frame.outer_shape)
    corner = [part.start for part in box]
    local = tuple((complexes.index_zyx[complexes.rows(number)] - corner).T)
    heads = np.zeros(shape_of(box), dtype=bool)
    is_head = complexes.is_head[complexes.rows(number)]
    heads[local] = is_head
    cores = None
    if classes.has("spine_core"):
        cores = heads & classes.part(box).mask("spine_core")
    parts = instances.divide(heads, cores, neuron[box], frame.spacing, params)
    of_voxel = parts[local].astype(np.int64)
    fates = _fates(of_voxel, complexes.index_zyx[complexes.rows(number)], frame, params, confidence)
    kept = np.concatenate([[False], fates == 0])
    anchors = np.unique(of_voxel[of_voxel > 0], return_index=True)[1]
    anchors = np.flatnonzero(of_voxel > 0)[anchors]
    owner = np.where(kept[of_voxel], of_voxel, 0)
    in_head = owner > 0
    is_loose = np.zeros(len(owner), dtype=bool)
    if not is_head.all():
        owner, is_loose = _with_necks(heads.shape, local, is_head, owner, frame.spacing)
    return Division(np.where(kept[owner], owner, of_voxel), in_head, is_loose, fates, anchors)


def _with_necks(
    shape_zyx: tuple[int, ...],
    local: tuple[NDArray[np.int32], ...],
    is_head: Mask,
    owner: NDArray[np.int64],
    spacing: VoxelSpacing,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    heads, seen = np.zeros(shape_zyx, dtype=np.uint32), np.zeros(shape_zyx, dtype=bool)
    heads[local] = owner
    seen[local] = ~is_head
    whole, loose = necks.give_predicted_necks(heads, seen, spacing)
    return whole[local].astype(np.int64), loose[local]


def _fates(
    part: NDArray[np.int64],
    index: NDArray[np.int32],
    frame: Frame,
    params: QuantificationParams,
    confidence: NDArray[np.uint8] | None,
) -> NDArray[np.int64]:
    """Fate of each part: too small goes before doubtful, then too large, then border."""
    volumes = np.bincount(part)[1:] * frame.spacing.voxel_volume_um3
    fates = np.zeros(len(volumes), dtype=np.int64)
    if params.remove_border_spines:
        at_border = part[touches_border(index, frame, (1, 2))]
        fates[at_border[at_border > 0] - 1] = FATES.index("at_border")
    fates[volumes > params.max_spine_volume_um3] = FATES.index("too_large")
    if confidence is not None:
        sure = confidence_of(confidence[tuple(index.T)], part, len(fates))
        fates[sure < params.min_spine_confidence] = FATES.index("doubtful")
    fates[volumes < params.min_spine_volume_um3] = FATES.index("too_small")
    return fates


def confidence_of(
    values: NDArray[np.uint8], part: NDArray[np.integer], count: int
) -> NDArray[np.float64]:
    """Greatest confidence (0 to 1) among the voxels of each part 1..count.

    NaN for parts of which no voxel has any: another model drew them.

    Parameters
    ----------
    values : uint8, shape (n,)
        Confidence of each voxel, 255 for 1; 0 where there is none.
    part : int, shape (n,)
        Part that each voxel belongs to; 0: none.
    """
    greatest = np.zeros(count + 1)
    np.maximum.at(greatest, part, values / 255)
    return np.where(greatest > 0, greatest, np.nan)[1:]


def touches_border(index: NDArray[np.integer], frame: Frame, axes: tuple[int, ...]) -> Mask:
    """Which voxels lie at a face of the image along one of these axes."""
    place, last = index + frame.corner, np.asarray(frame.shape_zyx) - 1
    outermost = (place == 0) | (place == last)
    return np.asarray(outermost[:, list(axes)].any(axis=1))

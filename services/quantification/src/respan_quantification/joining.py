"""Necks that the model did not see: which part of the image a path needs, and what is in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx, clipped
from respan_quantification import necks
from respan_quantification.attachment import Base
from respan_quantification.classes import Mask
from respan_quantification.complexes import FATES, Complexes
from respan_quantification.search import STEP_UM, Parts, Scene, Waiting


def find_neck(
    part: int, base: Base, parts: Parts, scene: Scene, complexes: Complexes, waiting: Waiting
) -> necks.Neck | None:
    """Infer the neck of a part (counted from 0) that touches no dendrite.

    Nothing is found, and its complex waits, if the room for the path was cut, or if what stands
    in that room was.
    """
    number = int(parts.complexes[part])
    index = parts.voxels.index_zyx[parts.rows(part)]
    box = _room(index, base, scene)
    inside = clipped(box, scene.frame.outer_shape)
    if inside != box:
        waiting.see(number, box, scene.slack_um)
    for other in _unclear(inside, complexes):
        waiting.see(number, box, scene.slack_um)
        waiting.see(number, complexes.box(other), STEP_UM)
    if waiting.flags[number]:
        return None
    corner = np.array([edge.start for edge in inside])
    room = _furnished(inside, part, index - corner, parts, scene, complexes)
    neck = necks.infer_neck(
        room,
        _moved(base.voxel_zyx, corner),
        _moved(base.dendrite_zyx, corner),
        scene.frame.spacing,
        scene.params.max_neck_length_um,
    )
    if neck is None:
        return None
    return replace(neck, path_zyx=neck.path_zyx + corner, voxels_zyx=neck.voxels_zyx + corner)


def _room(index: NDArray[np.int32], base: Base, scene: Scene) -> Box:
    """Room of the path, counted like the arrays' voxels; it may reach beyond the arrays."""
    frame = scene.frame
    both = np.concatenate([index, [base.dendrite_zyx]]) + frame.corner
    low, high = both.min(axis=0), both.max(axis=0)
    box = necks.room_of(low, high, base.gap_um, frame.spacing, frame.shape_zyx)
    z, y, x = (
        slice(part.start - int(first), part.stop - int(first))
        for part, first in zip(box, frame.corner, strict=True)
    )
    return (z, y, x)


def _unclear(box: Box, complexes: Complexes) -> list[int]:
    """Complexes in a box that a cut face touches and that may, beyond it, be spines."""
    if not (complexes.is_cut & ~complexes.stands).any():
        return []
    inside = np.unique(complexes.labels[box])
    unclear = inside[(complexes.is_cut & ~complexes.stands)[inside]]
    return [int(number) for number in unclear]


def _furnished(
    box: Box,
    part: int,
    own_zyx: NDArray[np.int64],
    parts: Parts,
    scene: Scene,
    complexes: Complexes,
) -> necks.Room:
    labels, classes = complexes.labels[box], scene.classes.part(box)
    number = int(parts.complexes[part])
    others = (labels > 0) & (labels != number)
    stands = complexes.stands[labels] & others
    own = np.zeros(labels.shape, dtype=bool)
    own[tuple(own_zyx.T)] = True
    closed = classes.mask("soma", "axon") | stands
    loose = classes.mask("neck") & others & ~stands
    _add_siblings(closed, loose, box, part, parts, complexes)
    return necks.Room(own, scene.dendrites[box], closed, loose, scene.neuron[box])


def _add_siblings(
    closed: Mask, loose: Mask, box: Box, part: int, parts: Parts, complexes: Complexes
) -> None:
    """Draw what else the spine's own complex holds: other spines, and necks that are nobody's."""
    number = int(parts.complexes[part])
    division = parts.divisions[number]
    index = complexes.index_zyx[complexes.rows(number)] - [edge.start for edge in box]
    inside = np.all((index >= 0) & (index < closed.shape), axis=1)
    too_small = np.concatenate([[True], division.fates == FATES.index("too_small")])
    other = (division.part != parts.labels[part]) & ~too_small[division.part]
    closed[tuple(index[inside & other].T)] = True
    loose[tuple(index[inside & division.is_loose].T)] = True


def _moved(voxel_zyx: Zyx, corner: NDArray[np.int64]) -> Zyx:
    z, y, x = (int(edge) for edge in np.subtract(voxel_zyx, corner))
    return z, y, x

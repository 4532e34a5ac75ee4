"""One block's spines, measured.

Most are seen with the block. What a cut might change, a straggler, is looked at once more in its
own surroundings, which grow until they hold all that decides about it. Around everything that is
decided there is a margin, as light is measured against what surrounds a spine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, grow, shape_of
from respan_common.params import QuantificationParams
from respan_quantification import measurements
from respan_quantification.attachment import Base
from respan_quantification.frame import Frame
from respan_quantification.meshes import Mesh
from respan_quantification.spines import Spines, find_spines
from respan_quantification.surface import Surface
from respan_quantification.surroundings import reach_um
from respan_quantification.view import Look

MOST_VOXELS = 2**26
"""Surroundings do not grow beyond this: such an object is no spine, but noise or a cell."""

HEAD, SEEN_NECK, INFERRED_NECK = 0, 1, 2
"""What a voxel of a spine is."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class BlockSpines:
    """Spines 1..N of one block.

    `table` has one row each; `anchor` is the raster number of its head's first voxel. Each voxel
    has its raster number (`linear`), its spine (`ids`) and what it is (`part`). Inferred necks of
    two spines may share voxels.
    """

    table: pd.DataFrame
    linear: NDArray[np.int64]
    ids: NDArray[np.uint32]
    part: NDArray[np.uint8]
    gap_um: NDArray[np.float64]
    meshes: dict[tuple[int, str], Mesh]
    """Of each spine's parts, if they were asked for."""
    discarded: dict[str, float]

    def voxels(self) -> dict[str, NDArray[Any]]:
        """What a label image is painted from; `gap_um` is that of spine 0 (none), 1, 2, ..."""
        gap_um = np.concatenate([[0.0], self.gap_um])
        return {"linear": self.linear, "ids": self.ids, "part": self.part, "gap_um": gap_um}


def find(
    frame: Frame,
    look: Look,
    soma: Surface | None,
    params: QuantificationParams,
    tick: Tick = lambda: None,
) -> BlockSpines:
    """Find and measure the spines that a block owns.

    Parameters
    ----------
    frame
        What the block sees at first.
    look
        Shows any box in the frame of this block.
    soma
        Surface of all somas of the image, if there are any.
    """
    eye = _Eye(look, margin(frame.spacing, params), soma, params, tick)
    rounds = [eye.found_in(frame.outer, frame.shape_zyx)]
    waiting = [(anchor, box, frame.outer) for anchor, box in rounds[0].stragglers]
    while waiting:
        anchor, box, before = waiting.pop()
        if int(np.prod(shape_of(box))) > MOST_VOXELS or box == before:
            rounds.append(eye.found_in(before, frame.shape_zyx, [anchor], final=True))
        else:
            rounds.append(eye.found_in(box, frame.shape_zyx, [anchor]))
            waiting += [(again, wider, box) for again, wider in rounds[-1].stragglers]
    return _together(rounds)


@dataclass(frozen=True)
class _Round:
    spines: BlockSpines
    stragglers: list[tuple[int, Box]]


@dataclass(frozen=True)
class _Eye:
    look: Look
    margin: Zyx
    soma: Surface | None
    params: QuantificationParams
    tick: Tick

    def found_in(
        self, box: Box, shape: Zyx, only: list[int] | None = None, *, final: bool = False
    ) -> _Round:
        """Find and measure what this box decides."""
        view = self.look(grow(box, self.margin, shape))
        part = view.without_margin(self.margin)
        found = find_spines(
            part.classes,
            part.dendrites,
            part.grey(self.params.channel),
            part.frame,
            self.params,
            self.tick,
            confidence=part.confidence,
            only=only,
            final=final,
        )
        spines = _moved(found.spines, part.frame, view.frame)
        known = measurements.measured(spines, view, self.soma, self.params, self.tick)
        spines, table = known.spines, known.table
        kind = np.where(spines.inferred, INFERRED_NECK, SEEN_NECK)
        block = BlockSpines(
            table=table.assign(anchor=spines.anchors, complete=spines.complete),
            linear=view.frame.linear(spines.voxels.index_zyx),
            ids=spines.voxels.ids,
            part=np.where(spines.in_head, HEAD, kind).astype(np.uint8),
            gap_um=spines.gaps_um,
            meshes=known.meshes,
            discarded=found.discarded,
        )
        return _Round(block, found.stragglers)


def margin(spacing: VoxelSpacing, params: QuantificationParams) -> Zyx:
    """Voxels of surroundings that a spine's light is measured against."""
    reaches = zip(reach_um(spacing, params), spacing.zyx, strict=True)
    z, y, x = (int(np.ceil(reach / edge - 1e-9)) for reach, edge in reaches)
    return (z, y, x)


def _moved(spines: Spines, old: Frame, new: Frame) -> Spines:
    """The same spines, counted from the first voxel of other arrays."""
    shift = (old.corner - new.corner).astype(np.int32)
    voxels, nearest = spines.voxels, spines.nearest
    return replace(
        spines,
        shape_zyx=new.outer_shape,
        voxels=replace(voxels, index_zyx=voxels.index_zyx + shift),
        nearest=replace(nearest, index_zyx=nearest.index_zyx + shift),
        bases={number: _moved_base(base, shift) for number, base in spines.bases.items()},
        paths={number: path + shift for number, path in spines.paths.items()},
    )


def _moved_base(base: Base, shift: NDArray[np.int32]) -> Base:
    z, y, x = (int(edge) for edge in base.voxel_zyx + shift)
    to_z, to_y, to_x = (int(edge) for edge in base.dendrite_zyx + shift)
    return replace(base, voxel_zyx=(z, y, x), dendrite_zyx=(to_z, to_y, to_x))


def _together(rounds: list[_Round]) -> BlockSpines:
    """All rounds' spines, numbered in the order of their anchors."""
    blocks = [one.spines for one in rounds]
    starts = np.cumsum([0, *(len(block.table) for block in blocks)])
    table = pd.concat([block.table for block in blocks if len(block.table)] or [blocks[0].table])
    order = np.argsort(table["anchor"].to_numpy(np.int64), kind="stable")
    number = np.zeros(len(table) + 1, np.uint32)
    number[order + 1] = np.arange(1, len(table) + 1)
    ids = [block.ids.astype(np.int64) + start for block, start in zip(blocks, starts, strict=False)]
    discarded: Counter[str] = Counter()
    for block in blocks:
        discarded.update(block.discarded)
    return BlockSpines(
        table=table.iloc[order]
        .assign(spine_id=np.arange(1, len(table) + 1))
        .reset_index(drop=True),
        linear=np.concatenate([block.linear for block in blocks]),
        ids=number[np.concatenate(ids)],
        part=np.concatenate([block.part for block in blocks]),
        gap_um=np.concatenate([block.gap_um for block in blocks])[order],
        meshes={
            (int(number[own + start]), part): mesh
            for block, start in zip(blocks, starts, strict=False)
            for (own, part), mesh in block.meshes.items()
        },
        discarded=dict(discarded),
    )

"""The steps of finding a block's spines, and what they must leave to larger arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, grow
from respan_common.params import QuantificationParams
from respan_quantification.classes import ClassImage
from respan_quantification.complexes import Complexes, Division, divide
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels, Voxels
from respan_quantification.surface import Nearest, Surface

STEP_UM = 4.0
"""How far arrays grow beyond a complex that they cut."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class Scene:
    """All that a block sees; arrays over `frame.outer`."""

    classes: ClassImage
    dendrites: Labels
    neuron: NDArray[np.generic]
    frame: Frame
    params: QuantificationParams
    confidence: NDArray[np.uint8] | None = None

    @property
    def slack_um(self) -> float:
        """A voxel's diagonal: what rounding to voxels can hide."""
        return float(np.linalg.norm(self.frame.spacing.zyx))


class Waiting:
    """Complexes that cannot be decided from these arrays, and what they need to see.

    `final` arrays are as large as they get: nothing waits, but it is noted that it should.
    With `again`, these arrays were made for complexes that waited before: what they ask for next
    contains these arrays, so that it grows until it is enough.
    """

    def __init__(self, complexes: Complexes, frame: Frame, *, again: bool, final: bool) -> None:
        self._complexes, self._frame = complexes, frame
        self._again, self._final = again, final
        self.flags = np.zeros(len(complexes.stands), dtype=bool)
        self.incomplete = np.zeros(len(complexes.stands), dtype=bool)
        self._boxes: dict[int, Box] = {}

    def see(self, number: int, box: Box, margin_um: float) -> None:
        """Let a complex wait until a box, counted as the arrays' voxels, and a margin are seen."""
        self.incomplete[number] = True
        if self._final:
            return
        self.flags[number] = True
        margin = self._frame.spacing.reach(margin_um)
        shifted = grow(self._in_image(box), margin, self._frame.shape_zyx)
        shifted = _union(shifted, self._in_image(self._complexes.box(number)))
        if self._again:
            shifted = _union(shifted, self._frame.outer)
        self._boxes[number] = _union(shifted, self._boxes.get(number, shifted))

    def stragglers(self, anchors: NDArray[np.int64]) -> list[tuple[int, Box]]:
        """Anchor and box of each waiting complex."""
        return [(int(anchors[number]), box) for number, box in sorted(self._boxes.items())]

    def _in_image(self, box: Box) -> Box:
        z, y, x = (
            slice(part.start + int(low), part.stop + int(low))
            for part, low in zip(box, self._frame.corner, strict=True)
        )
        return (z, y, x)


def _union(one: Box, other: Box) -> Box:
    z, y, x = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return (z, y, x)


def _tight(index: NDArray[np.integer]) -> Box:
    low, high = index.min(axis=0), index.max(axis=0) + 1
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x)


@dataclass(frozen=True)
class Parts:
    """Owned parts 1..P that may be spines: seen voxels, and which of them are the head's.

    Per part (P): `complexes` and `labels`, the complex and the number within its division;
    `anchors`, raster numbers in the whole image. `lost` counts owned parts that are none: pairs
    (complex, fate).
    """

    voxels: Voxels
    in_head: NDArray[np.bool_]
    complexes: NDArray[np.int64]
    labels: NDArray[np.int64]
    anchors: NDArray[np.int64]
    divisions: dict[int, Division]
    lost: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of parts."""
        return len(self.anchors)

    def rows(self, part: int) -> slice:
        """Voxels of a part, counted from 0."""
        start = int(self.voxels.starts[part])
        return slice(start, start + int(self.voxels.counts[part]))


def divided(scene: Scene, complexes: Complexes, chosen: NDArray[np.bool_], tick: Tick) -> Parts:
    """Divide the chosen complexes in which anything is large enough for a spine."""
    divisions: dict[int, Division] = {}
    rows, ids, owners, lost = [], [], [], [np.zeros((0, 2), np.int64)]
    parts = 0
    for number in np.flatnonzero(chosen & complexes.stands).tolist():
        tick()
        found = divide(
            number, complexes, scene.classes, scene.neuron, scene.frame, scene.params,
            scene.confidence,
        )  # fmt: skip
        divisions[number] = found
        first = complexes.rows(number).start
        owned = scene.frame.owns(complexes.index_zyx[first + found.anchors])
        fates = found.fates[owned & (found.fates > 0)]
        lost.append(np.stack([np.full(len(fates), number), fates], axis=1))
        kept = np.flatnonzero(owned & (found.fates == 0))
        table = np.zeros(len(owned) + 1, dtype=np.int64)
        table[kept + 1] = parts + 1 + np.arange(len(kept))
        mine = np.flatnonzero(table[found.part])
        rows.append(first + mine)
        ids.append(table[found.part[mine]])
        owners.append(np.stack([np.full(len(kept), number), kept + 1, found.anchors[kept]], 1))
        parts += len(kept)
    return _gathered(scene.frame, complexes, divisions, rows, ids, owners, np.concatenate(lost))


def _gathered(
    frame: Frame,
    complexes: Complexes,
    divisions: dict[int, Division],
    rows: list[NDArray[np.int64]],
    ids: list[NDArray[np.int64]],
    owners: list[NDArray[np.int64]],
    lost: NDArray[np.int64],
) -> Parts:
    nothing = np.zeros(0, dtype=np.int64)
    row, part = np.concatenate([nothing, *rows]), np.concatenate([nothing, *ids])
    order = np.argsort(part, kind="stable")
    row, part = row[order], part[order]
    table = np.concatenate([np.zeros((0, 3), np.int64), *owners])
    anchors = complexes.index_zyx[complexes.starts[table[:, 0]] + table[:, 2]]
    return Parts(
        voxels=voxels_of(complexes.index_zyx[row], part.astype(np.uint32)),
        in_head=complexes.is_head[row],
        complexes=table[:, 0],
        labels=table[:, 1],
        anchors=frame.linear(anchors),
        divisions=divisions,
        lost=lost,
    )


def voxels_of(index_zyx: NDArray[np.int32], ids: NDArray[np.uint32]) -> Voxels:
    """Voxels that are sorted by id already."""
    present, starts = np.unique(ids, return_index=True)
    return Voxels(index_zyx, ids, present, starts.astype(np.int64))


def nearest_in(surface: Surface, index_zyx: NDArray[np.int32], frame: Frame) -> Nearest:
    """Nearest dendrite voxels, counted like the arrays' voxels."""
    if surface.is_empty:
        return Nearest.of_nothing(len(index_zyx))
    corner = frame.corner.astype(np.int32)
    found = surface.nearest(index_zyx + corner)
    return Nearest(found.center_um, found.gap_um, found.ids, found.index_zyx - corner)


def are_near(parts: Parts, nearest: Nearest, scene: Scene, waiting: Waiting) -> NDArray[np.bool_]:
    """Which parts have a dendrite within reach; those that might have a nearer one wait."""
    limit_um, slack_um = scene.params.max_spine_distance_um, scene.slack_um
    cut_um = scene.frame.cut_distance_um(parts.voxels.index_zyx)
    exact = parts.voxels.minimum((nearest.center_um <= cut_um).astype(np.float64)) > 0
    farthest_um = parts.voxels.maximum(nearest.center_um)
    heads = parts.voxels.part(parts.in_head)
    near = heads.minimum(nearest.gap_um[parts.in_head]) <= limit_um
    known = exact | (~near & (heads.minimum(cut_um[parts.in_head]) - slack_um > limit_um))
    for part in np.flatnonzero(~known).tolist():
        rows = parts.rows(part)
        reach_um = float(farthest_um[part]) if near[part] else limit_um + slack_um
        box = _tight(parts.voxels.index_zyx[rows])
        waiting.see(int(parts.complexes[part]), box, reach_um + slack_um)
    return np.asarray(near, dtype=bool)

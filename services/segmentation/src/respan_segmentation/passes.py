"""One model's pass over an image: which windows, in which order, into which shards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from respan_common.errors import CapacityError
from respan_common.geometry import (
    Box,
    Zyx,
    absolute,
    clipped,
    hull,
    intersection,
    relative,
    shape_of,
    whole,
)
from respan_common.params import SegmentationParams
from respan_segmentation.emission import Emitted
from respan_segmentation.model import Model, mask_grids
from respan_segmentation.outputs import Coming, Decision, RowBuffer, Values, Writer
from respan_segmentation.pipeline import Layout, Read, Recipe, Second, Tally, scores_of
from respan_segmentation.plan import Row, halves, rows, widest_column
from respan_segmentation.recipes import Grid, recipe_for
from respan_segmentation.survey import Survey
from respan_segmentation.sweep import Order, orders

logger = logging.getLogger(__name__)

# The same on every machine: replicas that share an image cut it alike. A small image fills it as a
# large one does; twice as much would save one window in ten.
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Plan:
    """How an image is cut."""

    order: Order
    cross: Zyx
    """Voxels of a column across the axis that it is swept along."""
    windows: int
    bytes: int


class Pass:
    """A model over an image; gives rows of shards, one after the other.

    Parameters
    ----------
    name
        Names its pieces of work.
    read
        Boxes (z, y, x) of the image to grey values.
    first_stage
        Boxes (z, y, x) to the classes that a cascade's first stage found.
    writers
        Where each group is written.
    """

    def __init__(
        self,
        name: str,
        grid: Grid,
        read: Read,
        survey: Survey,
        model: Callable[[], Model],
        params: SegmentationParams,
        decision: Decision,
        writers: Mapping[str, Writer],
        check: Callable[[], None],
        first_stage: Read | None = None,
    ) -> None:
        self.name, self.grid, self.writers = name, grid, writers
        self._read, self._survey, self._model = read, survey, model
        self._params, self._decision, self._first_stage = params, decision, first_stage
        self.tally = Tally(check)
        self._sure: torch.Tensor | float = 0.0
        self._sampled: torch.Tensor | int = 0
        self.is_narrow = False
        """Whether memory forced narrower columns than planned."""

    def columns(self, region: Box) -> list[list[Row]]:
        """Rows of shards of a region, by column."""
        return rows(region, self._shard_zyx, self.axis, self._plan.cross)

    @property
    def axis(self) -> int:
        """Axis (0 z, 1 y, 2 x) along which columns are swept."""
        return self.grid.folder.transpose[self._plan.order.row]

    @property
    def _shard_zyx(self) -> Zyx:
        return next(iter(self.writers.values())).block_zyx

    @cached_property
    def _plan(self) -> _Plan:
        """The order and the columns that need fewest windows, and of equal ones least memory.

        For the image as a whole: every region of it, on every machine, must be swept alike.
        """
        every = whole(self.grid.shape_zyx)
        shape = shape_of(self.grid.turned(every))
        return min(
            (self._columns_for(self.grid.layout(every, order)) for order in orders(shape)),
            key=lambda plan: (plan.bytes > _MOST_BYTES, plan.windows, plan.bytes),
        )

    def _columns_for(self, layout: Layout) -> _Plan:
        shape, axis = self.grid.shape_zyx, self.grid.folder.transpose[layout.order.row]

        def cost(column: Zyx) -> tuple[int, int]:
            boxes = [self.grid.turned(c[0].box) for c in rows(whole(shape), column, axis, column)]
            windows = [layout.tiling.count(layout.regrid.model_box(box)) for box in boxes]
            row = [*column]
            row[axis] = self._shard_zyx[axis]
            written = 2 * int(np.prod(row)) * self._decision.bytes_per_voxel
            outputs = self._decision.meaning.outputs
            return sum(windows), written + max(layout.memory_bytes(b, outputs) for b in boxes)

        cross = widest_column(shape, self._shard_zyx, axis, cost, _MOST_BYTES)
        return _Plan(layout.order, cross, *cost(cross))

    def sweep(self, some: Sequence[Row]) -> Iterator[Row]:
        """Write rows that follow one another, and give each when it is written.

        Where the device's memory does not hold a column, narrower ones are swept, row by row.

        Raises
        ------
        CapacityError
            If not even one shard's column fits.
        """
        written = 0
        try:
            for row in self._wide(some):
                written += 1
                yield row
        except CapacityError:
            if halves(some[0].box, self._shard_zyx, self.axis) is None:
                raise
            self.is_narrow = True
            logger.warning("memory is short: narrower columns are swept")
        for row in some[written:]:
            buffer = self._buffer(row)
            self._fill(row.box, buffer)
            buffer.write(self.writers)
            yield row

    def _wide(self, some: Sequence[Row]) -> Iterator[Row]:
        open_rows: list[RowBuffer | None] = [None] * len(some)
        written = 0

        def ready() -> Iterator[Row]:
            nonlocal written
            while written < len(some):
                buffer = open_rows[written] or self._buffer(some[written])
                open_rows[written] = buffer
                if buffer.missing:
                    return
                buffer.write(self.writers)
                open_rows[written] = None
                written += 1
                yield some[written - 1]

        yield from ready()
        for box, values in (
            self._decided(hull([row.box for row in some])) if written < len(some) else ()
        ):
            for number in range(written, len(some)):
                if intersection(box, some[number].box) is not None:
                    open_rows[number] = open_rows[number] or self._buffer(some[number])
                    open_rows[number].put(box, values)  # type: ignore[union-attr]
            yield from ready()

    def _fill(self, box: Box, buffer: RowBuffer) -> None:
        """Fill a part of a row, in halves where memory is short."""
        missing = buffer.missing
        try:
            for own, values in self._decided(box):
                buffer.put(own, values)
        except CapacityError:
            parts = halves(box, self._shard_zyx, self.axis)
            if parts is None:
                raise
            buffer.missing = missing
            for part in parts:
                self._fill(part, buffer)

    def _buffer(self, row: Row) -> RowBuffer:
        shared = intersection(row.box, self._crop)
        expected = 0 if shared is None else int(np.prod(shape_of(shared)))
        return RowBuffer(row.box, expected, self._decision)

    def _decided(self, box: Box) -> Iterator[tuple[Box, Values | None]]:
        """Parts (z, y, x) of a box with what is to be written there.

        Each is given when the next one has been started, so that a GPU need not wait for its copy.
        """
        shared = intersection(box, self._crop)
        if shared is None:
            return
        own = self.grid.turned(relative(shared, self._crop))
        read = self.grid.reader(self._read, self._crop)
        before: tuple[Box, Coming | None] | None = None
        try:
            # The exit waits for what is being read, when the caller stops in the middle as well.
            with ThreadPoolExecutor(1) as helper:
                for part in scores_of(read, own, self._recipe, self.tally, helper):
                    started = (self._in_image(part.box), self._started(part))
                    if before is not None:
                        yield self._given(*before)
                    before = started
        except torch.OutOfMemoryError as error:
            raise CapacityError(f"a column of {shape_of(box)} voxels does not fit") from error
        if before is not None:
            yield self._given(*before)

    def _started(self, part: Emitted) -> Coming | None:
        if part.sums is None:
            return None
        self._sample(part)
        return self._decision.of(part)

    def _given(self, box: Box, coming: Coming | None) -> tuple[Box, Values | None]:
        if coming is None:
            return box, None
        back = (0, *(axis + 1 for axis in self.grid.axes_back))
        return box, {name: own.transpose(back) for name, own in coming.values().items()}

    def _sample(self, part: Emitted) -> None:
        """Note how sure the model is, at one voxel in 64; without waiting for the device.

        Wherever spines are cut off: the training's range, with which this is compared, knows no
        threshold.
        """
        meaning = replace(self._decision.meaning, threshold=None)
        some = part.scores(self._decision.nothing, step=4)[: meaning.outputs]
        found = meaning.classes(some) > 0
        self._sure = self._sure + (meaning.probabilities(some).amax(dim=0) * found).sum()
        self._sampled = self._sampled + found.sum()

    @property
    def confidence(self) -> float | None:
        """Mean probability of the most probable classes, where those are no background; or None."""
        return float(self._sure) / int(self._sampled) if int(self._sampled) else None

    @property
    def least_batch(self) -> int | None:
        """Windows at a time to which memory has forced the model; None if it has not."""
        was_used = "_recipe" in self.__dict__
        return self._model().least_batch if was_used else None

    def _in_image(self, box: Box) -> Box:
        """A box of the crop, in nnU-Net's axis order, as (z, y, x) in the image."""
        return absolute(self.grid.back(box), self._crop)

    @property
    def _crop(self) -> Box:
        crop = self._survey.statistics.box
        return crop if crop is not None else (slice(0, 0), slice(0, 0), slice(0, 0))

    @cached_property
    def _layout(self) -> Layout:
        return self.grid.layout(self._crop, self._plan.order)

    @cached_property
    def _recipe(self) -> Recipe:
        recipe = recipe_for(
            self.grid,
            self._layout,
            self._survey.statistics,
            self._model(),
            self._params,
            self._decision,
        )
        return replace(recipe, holds_something=self.holds_something, second=self._second())

    def _second(self) -> Second | None:
        if self._first_stage is None:
            return None
        return Second(
            self.grid.reader(self._first_stage, self._crop),
            mask_grids(self.grid.folder, self._layout.regrid),
            self.grid.folder.foreground,
        )

    def holds_something(self, window: Box) -> bool:
        """Whether a window, on the model's grid, can hold anything but background."""
        if not self._params.skips_empty:
            return True
        near = self._layout.regrid.image_box(clipped(window, self._layout.tiling.shape))
        return self._survey.occupancy.holds_something(self._in_image(near))

    def windows(self) -> tuple[int, int]:
        """Windows over the whole image, and how many of them are skipped."""
        if self._survey.statistics.box is None:
            return 0, 0
        tiling = self._layout.tiling
        every = tiling.touching(whole(tiling.shape))
        return len(every), sum(1 for window in every if not self.holds_something(window))

"""From strips of final sums on the model's grid to scores on the image's grid, strip by strip.

An image voxel between two strips is interpolated from both, so the last model voxels of a strip
are kept until what follows them is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.geometry import Box, relative
from respan_segmentation.resampling import Regrid
from respan_segmentation.sweep import Order, Strip


@dataclass(frozen=True)
class Emitted:
    """Image voxels that are decided.

    Attributes
    ----------
    sums : float32, shape (K, *shape of `box`), or None where nothing was predicted
    weight : float32, shape (1, *shape of `box`), or None
        Sum of the windows' weights, by which the sums are yet to be divided.
    """

    box: Box
    sums: torch.Tensor | None
    weight: torch.Tensor | None = None

    def scores(self, nothing: torch.Tensor, step: int = 1) -> torch.Tensor:
        """Weighted means, shape (K, z, y, x); of every `step`-th voxel along each axis.

        Parameters
        ----------
        nothing : float32, shape (K,)
            Scores where no window was predicted.
        """
        assert self.sums is not None
        own = (slice(None), *[slice(None, None, step)] * 3)
        return (
            self.sums[own]
            if self.weight is None
            else _means(self.sums[own], self.weight[own], nothing)
        )


class Emission:
    """Takes a sweep's strips in their order, gives the image's.

    Parameters
    ----------
    regrid
        Both grids.
    image_box
        Voxels to give.
    target
        The model voxels that they are interpolated from: what the sweep covers.
    nothing : float32, shape (K,)
        Scores where no window was predicted.
    """

    def __init__(
        self, regrid: Regrid, image_box: Box, target: Box, order: Order, nothing: torch.Tensor
    ) -> None:
        self._regrid, self._image, self._target = regrid, image_box, target
        self._order, self._nothing = order, nothing
        self._row_memory = regrid.memory(image_box, order.row)
        self._panel_memory = regrid.memory(image_box, order.panel)
        size = target[order.panel].stop - target[order.panel].start
        self._above: torch.Tensor | None = None
        self._above_filled: NDArray[np.bool_] = np.zeros(size, dtype=bool)
        self._beside: torch.Tensor | None = None
        self._beside_width = 0

    def emit(self, strip: Strip) -> Emitted | None:
        """What a strip completes; None if it is less than a voxel of the image."""
        if self._regrid.is_identity:
            if strip.sums is None:
                return Emitted(strip.box, None)
            return Emitted(strip.box, strip.sums[:-1], strip.sums[-1:])
        box, scores = self._with_memory(strip)
        self._remember(strip, box, scores)
        image = self._completed(strip.box)
        if any(part.start >= part.stop for part in image):
            return None
        if scores is None:
            return Emitted(image, None)
        needed = self._regrid.model_box(image)
        near = scores[(slice(None), *relative(needed, box))]
        return Emitted(image, self._regrid.to_image(near, image))

    def _completed(self, box: Box) -> Box:
        """Image voxels that need this strip, and nothing behind it."""
        row, panel = (self._completed_along(axis, box) for axis in self._running)
        return self._order.box(row, panel, self._image[self._order.deep])

    @property
    def _running(self) -> tuple[int, int]:
        return (self._order.row, self._order.panel)

    def _completed_along(self, axis: int, box: Box) -> slice:
        start, stop = (
            self._regrid.ready(self._image, axis, end) for end in (box[axis].start, box[axis].stop)
        )
        return slice(start, stop)

    def _with_memory(self, strip: Strip) -> tuple[Box, torch.Tensor | None]:
        """A strip with what is remembered above and beside it; None if all of it is nothing."""
        row, panel, deep = (
            strip.box[axis] for axis in (self._order.row, self._order.panel, self._order.deep)
        )
        own = self._own(panel)
        above = self._above_rows(row)
        box = self._order.box(
            slice(row.start - above, row.stop),
            slice(panel.start - self._width(panel), panel.stop),
            deep,
        )
        if strip.sums is None and self._beside is None and not self._above_filled[own].any():
            return box, None
        scores = self._normalized(strip)
        if above:
            scores = torch.cat([self._above_part(own, above, scores), scores], self._order.row + 1)
        if self._width(panel):
            beside = self._beside
            if beside is None:
                shape = list(scores.shape)
                shape[self._order.panel + 1] = self._width(panel)
                beside = self._filled(shape, scores)
            scores = torch.cat([beside, scores], self._order.panel + 1)
        return box, scores

    def _remember(self, strip: Strip, box: Box, scores: torch.Tensor | None) -> None:
        """Keep the last voxels along both axes."""
        row, panel = strip.box[self._order.row], strip.box[self._order.panel]
        is_last = panel.stop == self._target[self._order.panel].stop
        length = box[self._order.panel].stop - box[self._order.panel].start
        width = 0 if is_last else min(self._panel_memory, length)
        self._beside_width = width
        self._beside = (
            None
            if scores is None or width == 0
            else scores.narrow(self._order.panel + 1, length - width, width).clone()
        )
        self._remember_row(row, panel, box, scores)

    def _remember_row(
        self, row: slice, panel: slice, box: Box, scores: torch.Tensor | None
    ) -> None:
        own = self._own(panel)
        self._above_filled[own] = scores is not None and self._row_memory > 0
        if scores is None or not self._row_memory:
            return
        if self._above is None:
            shape = [len(scores), 0, 0, 0]
            for axis, part in enumerate(self._target):
                shape[axis + 1] = part.stop - part.start
            shape[self._order.row + 1] = self._row_memory
            self._above = self._filled(shape, scores)
        height = box[self._order.row].stop - box[self._order.row].start
        kept = min(self._row_memory, height)
        width = panel.stop - panel.start
        last = scores.narrow(self._order.row + 1, height - kept, kept)
        last = last.narrow(self._order.panel + 1, last.shape[self._order.panel + 1] - width, width)
        into = self._above.narrow(self._order.row + 1, self._row_memory - kept, kept)
        into.narrow(self._order.panel + 1, own.start, width).copy_(last)

    def _own(self, panel: slice) -> slice:
        first = self._target[self._order.panel].start
        return slice(panel.start - first, panel.stop - first)

    def _above_rows(self, row: slice) -> int:
        return int(min(self._row_memory, row.start - self._target[self._order.row].start))

    def _width(self, panel: slice) -> int:
        return 0 if panel.start == self._target[self._order.panel].start else self._beside_width

    def _above_part(self, own: slice, above: int, like: torch.Tensor) -> torch.Tensor:
        shape = list(like.shape)
        shape[self._order.row + 1] = above
        part = self._filled(shape, like)
        if self._above is None:
            return part
        known = torch.from_numpy(self._above_filled[own].copy()).to(like.device)
        stored = self._above.narrow(self._order.row + 1, self._row_memory - above, above)
        stored = stored.narrow(self._order.panel + 1, own.start, own.stop - own.start)
        pattern = [1, 1, 1, 1]
        pattern[self._order.panel + 1] = -1
        return torch.where(known.view(pattern), stored, part)

    def _normalized(self, strip: Strip) -> torch.Tensor:
        """Weighted means; "nothing" where no window was predicted."""
        if strip.sums is None:
            sizes = [part.stop - part.start for part in strip.box]
            return self._filled([len(self._nothing), *sizes], self._nothing)
        return _means(strip.sums[:-1], strip.sums[-1:], self._nothing)

    def _filled(self, shape: list[int], like: torch.Tensor) -> torch.Tensor:
        nothing = self._nothing.to(like.device).view(-1, 1, 1, 1)
        return nothing.expand(shape).contiguous()


def _means(sums: torch.Tensor, weight: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor:
    """Weighted means; "nothing" where no window was predicted."""
    means = sums / weight
    if weight.is_cuda or not bool((weight > 0).all()):  # asking would have the GPU waited for
        means = torch.where(weight > 0, means, nothing.to(weight.device).view(-1, 1, 1, 1))
    return means

"""The recipe: a box of an image to classes, so that boxes agree wherever they meet.

Read what windows see; normalize with the whole image's statistics; resample to the model's voxels;
predict, but for windows that can hold nothing; average the windows' scores; bring those back to the
image's voxels; and only then decide on classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from respan_common.errors import CapacityError
from respan_common.geometry import Box, Zyx, relative, shape_of
from respan_segmentation.emission import Emission, Emitted
from respan_segmentation.normalization import Normalization
from respan_segmentation.resampling import Regrid
from respan_segmentation.scores import Meaning
from respan_segmentation.sweep import Order, Panel, Scored, Sweep, order_for
from respan_segmentation.tiles import Tiling

Read = Callable[[Box], NDArray[Any]]
"""A box of the image, in nnU-Net's axis order, to its voxels."""
Predict = Callable[[torch.Tensor], torch.Tensor]
"""Patches, shape (n, inputs, z, y, x), to scores, float32, shape (n, K, z, y, x)."""
_PANELS_PER_READ = 4
"""Neighboring panels whose voxels are read, normalized and resampled at once: they overlap."""


@dataclass(frozen=True)
class Layout:
    """Where a model's windows lie on an image. All boxes are in nnU-Net's axis order."""

    regrid: Regrid
    tiling: Tiling
    """Windows on the model's grid."""

    @property
    def order(self) -> Order:
        """Order of the axes in which the whole image, and so every part of it, is swept."""
        return order_for(self.regrid.image_shape)

    def sweep(self, image_box: Box) -> Sweep:
        """Windows for a box of the image."""
        return Sweep(self.tiling, self.regrid.model_box(image_box), self.order)

    def memory_bytes(self, image_box: Box, outputs: int) -> int:
        """Memory for a box: sums that are kept and of a panel, and the voxels that it sees."""
        order, target = self.order, self.regrid.model_box(image_box)
        row, panel, deep = (
            (target[axis].stop - target[axis].start, self.tiling.patch[axis])
            for axis in (order.row, order.panel, order.deep)
        )
        overlap = math.ceil(row[1] * (1 - self.tiling.step)) + 1
        kept = min(overlap, row[0]) * panel[0] * deep[0]
        present = min(row[1], row[0]) * min(panel[1], panel[0]) * deep[0]
        seen = _PANELS_PER_READ * present
        return int(4 * ((outputs + 1) * (kept + 3 * present) + 4 * seen))


@dataclass(frozen=True)
class Second:
    """What a cascade's second stage sees besides the image: classes that the first one found."""

    read: Read
    """A box of the image to class values, uint8."""
    regrid: Regrid
    """The same two grids; nnU-Net interpolates masks linearly and cuts them at 1/2."""
    values: tuple[int, ...]
    """Class values, each a channel of its own."""


@dataclass(frozen=True)
class Recipe:
    """What turns one image into classes; the same for all its parts."""

    layout: Layout
    normalization: Normalization
    grey_range: tuple[float, float]
    """Lowest and highest normalized value of the whole image."""
    predict: Predict
    meaning: Meaning
    device: torch.device
    batch: int = 1
    """Windows per forward pass; halved when the device's memory does not hold them."""
    extra_scores: int = 0
    """Channels that `predict` gives besides the model's outputs."""
    holds_something: Callable[[Box], bool] = field(default=lambda window: True)
    """Whether a window (on the model's grid) can hold anything but background."""
    second: Second | None = None

    @property
    def scores(self) -> int:
        """Number K of scores per voxel."""
        return self.meaning.outputs + self.extra_scores


class Tally:
    """What happened to the windows of a sweep; may stop it by raising."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self.predicted = 0
        self.skipped = 0
        self.least_batch: int | None = None
        """Smallest number of windows per forward pass that memory forced; None: none did."""
        self._check = check

    def predict(self, windows: int) -> None:
        """Some windows are done."""
        self.predicted += windows
        self._check()

    def skip(self, windows: int) -> None:
        """Some windows hold nothing."""
        self.skipped += windows
        self._check()


def scores_of(
    read: Read, image_box: Box, recipe: Recipe, tally: Tally, helper: Executor
) -> Iterator[Emitted]:
    """Scores of a box of an image, part by part in raster order, covering it exactly once.

    Parameters
    ----------
    read
        Gives the voxels of any box inside the image.
    image_box
        Voxels to predict.
    helper
        Reads ahead while the device predicts.

    Raises
    ------
    CapacityError
        If a single window does not fit the device's memory.
    """
    layout = recipe.layout
    sweep = layout.sweep(image_box)
    scored = _scored_panels(sweep, read, recipe, tally, helper)
    nothing = recipe.meaning.nothing()
    nothing = torch.cat([nothing, nothing.new_zeros(recipe.extra_scores)])
    emission = Emission(layout.regrid, image_box, sweep.target, layout.order, nothing)
    for strip in sweep.strips(lambda panel: next(scored), recipe.scores, recipe.device):
        emitted = emission.emit(strip)
        if emitted is not None:
            yield emitted


def _scored_panels(
    sweep: Sweep, read: Read, recipe: Recipe, tally: Tally, helper: Executor
) -> Iterator[Scored]:
    """Predictions of every panel, in order; the next panels' voxels are read meanwhile."""
    ahead: tuple[list[tuple[Panel, list[Box]]], Future[_Seen | None]] | None = None
    for group in itertools.chain(_groups(sweep, recipe), [None]):
        coming = None
        if group is not None:
            windows = [window for _, kept in group for window in kept]
            coming = (group, helper.submit(_see, read, windows, recipe))
        if ahead is not None:
            seen = ahead[1].result()
            for panel, kept in ahead[0]:
                tally.skip(len(panel.windows) - len(kept))
                yield _predicted(kept, seen, recipe, tally)
        ahead = coming


def _groups(sweep: Sweep, recipe: Recipe) -> Iterator[list[tuple[Panel, list[Box]]]]:
    """Neighboring panels of one row, with the windows that can hold something."""
    for _, row in itertools.groupby(sweep.panels(), key=lambda panel: panel.row):
        panels = list(row)
        for start in range(0, len(panels), _PANELS_PER_READ):
            yield [
                (panel, [window for window in panel.windows if recipe.holds_something(window)])
                for panel in panels[start : start + _PANELS_PER_READ]
            ]


@dataclass(frozen=True)
class _Seen:
    """Input of some windows, on the model's grid."""

    values: torch.Tensor
    """Shape (inputs, z, y, x)."""
    box: Box
    """Where it lies; negative where the volume is padded."""


def _see(read: Read, windows: Sequence[Box], recipe: Recipe) -> _Seen | None:
    """Everything that some windows see."""
    if not windows:
        return None
    around = _hull(windows)
    seen = _inside(around, recipe.layout.tiling.shape)
    regrid = recipe.layout.regrid
    grey = recipe.normalization.apply(read(regrid.image_box(seen)))
    values = regrid.to_model(torch.from_numpy(grey).to(recipe.device), seen)
    if not regrid.is_identity:  # splines overshoot; nnU-Net cuts that off
        values = values.clamp_(*recipe.grey_range)
    inputs = values[None]
    if recipe.second is not None:
        inputs = torch.cat([inputs, _masks(recipe.second, seen, recipe.device)])
    return _Seen(_padded(inputs, seen, around), around)


def _masks(second: Second, seen: Box, device: torch.device) -> torch.Tensor:
    """The first stage's classes on the model's grid, one channel for each.

    Where interpolated masks overlap, the higher class wins, as in nnU-Net.
    """
    classes = torch.from_numpy(second.read(second.regrid.image_box(seen))).to(device)
    found = torch.zeros(shape_of(seen), dtype=torch.uint8, device=device)
    for value in second.values:
        share = second.regrid.to_model((classes == value).float(), seen)
        found.masked_fill_(share >= 0.5, value)
    return torch.stack([(found == value).float() for value in second.values])


def _padded(inputs: torch.Tensor, seen: Box, around: Box) -> torch.Tensor:
    """Zeros where windows reach beyond the volume; nnU-Net pads after normalization."""
    if seen == around:
        return inputs
    padded = inputs.new_zeros((len(inputs), *shape_of(around)))
    padded[(slice(None), *relative(seen, around))] = inputs
    return padded


def _predicted(
    windows: Sequence[Box], seen: _Seen | None, recipe: Recipe, tally: Tally
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Windows with their scores."""
    start, batch = 0, recipe.batch
    while seen is not None and start < len(windows):
        some = windows[start : start + batch]
        patches = [seen.values[(slice(None), *relative(window, seen.box))] for window in some]
        # Always a whole batch: a window's result must not depend on its company.
        patches += [patches[-1]] * (batch - len(some))
        try:
            scores = recipe.predict(torch.stack(patches))
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch == 1:
                raise CapacityError(_too_large(recipe)) from error
            batch //= 2
            tally.least_batch = min(batch, tally.least_batch or batch)
            _release(recipe.device)
            continue
        yield from zip(some, scores, strict=False)
        tally.predict(len(some))
        start += len(some)


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _too_large(recipe: Recipe) -> str:
    return (
        f"a window of {recipe.layout.tiling.patch} voxels does not fit the memory of this "
        f"machine's {recipe.device}: use --device cpu, a machine with more memory, or a model "
        "with smaller patches"
    )


def _hull(boxes: Sequence[Box]) -> Box:
    z, y, x = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
        for axis in range(3)
    )
    return (z, y, x)


def _inside(box: Box, shape: Zyx) -> Box:
    z, y, x = (
        slice(max(part.start, 0), min(part.stop, size))
        for part, size in zip(box, shape, strict=True)
    )
    return (z, y, x)

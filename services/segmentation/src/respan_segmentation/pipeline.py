"""The recipe: a box of an image to classes, so that boxes agree wherever they meet.

Read what windows see; normalize with the whole image's statistics; resample to the model's voxels;
predict, but for windows that can hold nothing; average the windows' scores; bring those back to the
image's voxels; and only then decide on classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from respan_common.geometry import Box, clipped, hull, relative, shape_of
from respan_segmentation.emission import Emission, Emitted
from respan_segmentation.networks import Predict
from respan_segmentation.normalization import Normalization
from respan_segmentation.resampling import Regrid
from respan_segmentation.sweep import Order, Panel, Scored, Sweep
from respan_segmentation.tiles import Tiling

Read = Callable[[Box], NDArray[Any]]
"""A box of the image, in nnU-Net's axis order, to its voxels."""
_PANELS_PER_READ = 4
"""Neighboring panels whose voxels are read, normalized and resampled at once: they overlap."""


@dataclass(frozen=True)
class Layout:
    """Where a model's windows lie on an image. All boxes are in nnU-Net's axis order."""

    regrid: Regrid
    tiling: Tiling
    """Windows on the model's grid."""
    order: Order
    """Order of the axes in which the whole image, and so every part of it, is swept."""

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
    """The same two grids; nnU-Net interpolates classes linearly."""
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
    nothing: torch.Tensor
    """Scores of a voxel that certainly holds nothing, shape (K,)."""
    device: torch.device
    holds_something: Callable[[Box], bool] = field(default=lambda window: True)
    """Whether a window (on the model's grid) can hold anything but background."""
    second: Second | None = None


class Tally:
    """What happened to the windows of a sweep; may stop it by raising."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self.predicted = 0
        self.skipped = 0
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
    emission = Emission(layout.regrid, image_box, sweep.target, layout.order, recipe.nothing)
    scores = len(recipe.nothing)
    for strip in sweep.strips(lambda panel: next(scored), scores, recipe.device):
        emitted = emission.emit(strip)
        if emitted is not None:
            yield emitted


def _scored_panels(
    sweep: Sweep, read: Read, recipe: Recipe, tally: Tally, helper: Executor
) -> Iterator[Scored]:
    """Predictions of every panel, in order; the device is fed from the next panels meanwhile."""
    to_see, to_give = itertools.tee(_kept(sweep, recipe))
    scores = recipe.predict(_windows_seen(to_see, read, recipe, helper))
    for panel, kept in to_give:
        tally.skip(len(panel.windows) - len(kept))
        yield _given(kept, scores, tally)


def _kept(sweep: Sweep, recipe: Recipe) -> Iterator[tuple[Panel, list[Box]]]:
    """Panels with the windows that can hold something."""
    for panel in sweep.panels():
        yield panel, [window for window in panel.windows if recipe.holds_something(window)]


def _given(
    windows: Sequence[Box], scores: Iterator[torch.Tensor], tally: Tally
) -> Iterator[tuple[Box, torch.Tensor]]:
    for window in windows:
        yield window, next(scores)
        tally.predict(1)


def _windows_seen(
    panels: Iterable[tuple[Panel, list[Box]]], read: Read, recipe: Recipe, helper: Executor
) -> Iterator[torch.Tensor]:
    """What each window sees; the voxels of the next panels are read ahead."""
    ahead: tuple[list[Box], Future[_Seen]] | None = None
    for group in itertools.chain(_groups(panels), [[]]):
        coming = (group, helper.submit(_see, read, group, recipe)) if group else None
        if ahead is not None:
            seen = ahead[1].result()
            for window in ahead[0]:
                yield seen.values[(slice(None), *relative(window, seen.box))]
        ahead = coming


def _groups(panels: Iterable[tuple[Panel, list[Box]]]) -> Iterator[list[Box]]:
    """Windows of neighboring panels of one row, some of which can hold something."""
    for _, row in itertools.groupby(panels, key=lambda panel: panel[0].row):
        while some := list(itertools.islice(row, _PANELS_PER_READ)):
            windows = [window for _, kept in some for window in kept]
            if windows:
                yield windows


@dataclass(frozen=True)
class _Seen:
    """Input of some windows, on the model's grid."""

    values: torch.Tensor
    """Shape (inputs, z, y, x)."""
    box: Box
    """Where it lies; negative where the volume is padded."""


def _see(read: Read, windows: Sequence[Box], recipe: Recipe) -> _Seen:
    """Everything that some windows see."""
    around = hull(windows)
    seen = clipped(around, recipe.layout.tiling.shape)
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
    """The first stage's classes on the model's grid, one channel for each."""
    classes = torch.from_numpy(second.read(second.regrid.image_box(seen))).to(device)
    found = second.regrid.classes_to_model(classes, second.values, seen)
    return torch.stack([(found == value).float() for value in second.values])


def _padded(inputs: torch.Tensor, seen: Box, around: Box) -> torch.Tensor:
    """Zeros where windows reach beyond the volume; nnU-Net pads after normalization."""
    if seen == around:
        return inputs
    padded = inputs.new_zeros((len(inputs), *shape_of(around)))
    padded[(slice(None), *relative(seen, around))] = inputs
    return padded

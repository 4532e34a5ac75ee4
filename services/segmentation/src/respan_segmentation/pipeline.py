"""The recipe: one block of an image to classes, so that blocks agree wherever they meet.

Read with everything that the block's windows see; normalize with the whole image's statistics;
resample to the model's voxels; predict; average the windows' logits; bring those back to the
image's voxels; and only then take the most probable class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.errors import CapacityError
from respan_common.geometry import Box, Zyx, relative, shape_of
from respan_segmentation.normalization import Normalization
from respan_segmentation.resampling import Regrid
from respan_segmentation.tiles import Predict, Tiling, accumulate

Read = Callable[[Box], NDArray[Any]]
"""A box of the image, in nnU-Net's axis order, to its voxels."""
_SLAB_VOXELS = 2**22
"""Image voxels whose probabilities are brought back at a time."""


@dataclass(frozen=True)
class Layout:
    """Where a model's windows lie on an image. All boxes are in nnU-Net's axis order."""

    regrid: Regrid
    tiling: Tiling
    """Windows on the model's grid."""
    classes: int

    def around(self, block: Box) -> Box:
        """Everything on the model's grid that windows of a block see, padding included."""
        return self.tiling.reach(self.regrid.model_box(block))

    def seen(self, block: Box) -> Box:
        """The same without the padding."""
        z, y, x = (
            slice(max(part.start, 0), min(part.stop, size))
            for part, size in zip(self.around(block), self.tiling.shape, strict=True)
        )
        return (z, y, x)

    def memory_bytes(self, block: Box) -> int:
        """Memory for a block: sums of logits and of weights, and the image on both grids."""
        seen = self.seen(block)
        sums = _size(self.regrid.model_box(block)) * (self.classes + 1)
        return 4 * (sums + 2 * _size(seen) + 2 * _size(self.regrid.image_box(seen)))


@dataclass(frozen=True)
class Recipe:
    """What turns one image into classes; the same for all its blocks."""

    layout: Layout
    normalization: Normalization
    grey_range: tuple[float, float]
    """Lowest and highest normalized value of the whole image."""
    predict: Predict
    device: torch.device
    batch: int
    """Windows per forward pass; halved when the device's memory does not hold them."""


def _size(box: Box) -> int:
    return math.prod(shape_of(box))


def classify(
    read: Read, block: Box, recipe: Recipe, after_each: Callable[[int], None]
) -> NDArray[np.uint8]:
    """Classes of one block of an image.

    Parameters
    ----------
    read
        Gives the voxels of any box inside the image.
    block
        Voxels to classify.
    after_each
        Called after every few windows with their number; may raise to stop.

    Returns
    -------
    uint8, shape of `block`

    Raises
    ------
    CapacityError
        If a single window does not fit the device's memory.
    """
    target = recipe.layout.regrid.model_box(block)
    values, origin = _padded_input(read, block, recipe)
    logits = _logits(values, origin, target, recipe, after_each)
    return _most_probable(logits, target, block, recipe.layout.regrid)


def _padded_input(read: Read, block: Box, recipe: Recipe) -> tuple[torch.Tensor, Zyx]:
    """Everything that the block's windows see, on the model's grid; where its first voxel lies."""
    around, seen = recipe.layout.around(block), recipe.layout.seen(block)
    grey = recipe.normalization.apply(read(recipe.layout.regrid.image_box(seen)))
    values = recipe.layout.regrid.to_model(torch.from_numpy(grey).to(recipe.device), seen)
    if not recipe.layout.regrid.is_identity:  # splines overshoot; nnU-Net cuts that off
        values = values.clamp_(*recipe.grey_range)
    if seen != around:  # nnU-Net pads after normalization
        padded = values.new_zeros(shape_of(around))
        padded[relative(seen, around)] = values
        values = padded
    z, y, x = (part.start for part in around)
    return values, (z, y, x)


def _logits(
    values: torch.Tensor,
    origin: Zyx,
    target: Box,
    recipe: Recipe,
    after_each: Callable[[int], None],
) -> torch.Tensor:
    """Averaged logits; where the memory does not hold a batch of windows, with smaller batches."""
    layout, batch = recipe.layout, recipe.batch
    while True:
        counted = Tally(after_each)
        try:
            return accumulate(
                values,
                origin,
                target,
                layout.tiling,
                recipe.predict,
                layout.classes,
                batch,
                counted,
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch == 1:
                raise CapacityError(_too_large(recipe, target)) from error
        counted.take_back()
        batch //= 2
        if recipe.device.type == "cuda":
            torch.cuda.empty_cache()


class Tally:
    """Passes counts on and can take them back."""

    def __init__(self, pass_on: Callable[[int], None]) -> None:
        self._pass_on = pass_on
        self._total = 0

    def __call__(self, count: int) -> None:
        """Count some more."""
        self._total += count
        self._pass_on(count)

    def take_back(self) -> None:
        """Undo everything counted so far."""
        self._pass_on(-self._total)
        self._total = 0


def _too_large(recipe: Recipe, target: Box) -> str:
    return (
        f"a block of {shape_of(target)} voxels with windows of {recipe.layout.tiling.patch} does "
        f"not fit the memory of this machine's {recipe.device}: use --device cpu, a machine with "
        "more memory, or a model with smaller patches"
    )


def _most_probable(
    logits: torch.Tensor, target: Box, block: Box, regrid: Regrid
) -> NDArray[np.uint8]:
    """Class of highest probability at each voxel of the image: that of the largest logit.

    Like nnU-Net, this interpolates logits, not probabilities: measured, that decides about 1 in 100
    voxels of a random network, all of them on borders between classes.
    """
    if regrid.is_identity:
        return _largest(logits)
    classes = np.empty(shape_of(block), dtype=np.uint8)
    planes = max(_SLAB_VOXELS // max(classes[0].size, 1), 1)
    for start in range(block[0].start, block[0].stop, planes):
        slab = (slice(start, min(start + planes, block[0].stop)), *block[1:])
        near = regrid.model_box(slab)
        scores = regrid.to_image(logits[(slice(None), *relative(near, target))], slab)
        classes[relative(slab, block)] = _largest(scores)
    return classes


def _largest(scores: torch.Tensor) -> NDArray[np.uint8]:
    """Index of the largest score along the first axis, the first of equal ones.

    Comparing class by class reads memory in order; `argmax` over the first axis does not, and is
    many times slower.
    """
    best = scores[0].clone()
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=scores.device)
    for number in range(1, len(scores)):
        classes.masked_fill_(scores[number] > best, number)
        torch.maximum(best, scores[number], out=best)
    found: NDArray[np.uint8] = classes.cpu().numpy()
    return found

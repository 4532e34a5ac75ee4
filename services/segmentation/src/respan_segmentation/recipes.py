"""How a model lies on an image, and with that the recipe for any box of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, absolute, shape_of
from respan_common.model_folders import ModelFolder
from respan_common.params import SegmentationParams
from respan_segmentation.model import Model, grids
from respan_segmentation.normalization import (
    Normalization,
    Statistics,
    normalization,
    normalized_range,
)
from respan_segmentation.outputs import Decision
from respan_segmentation.pipeline import Layout, Read, Recipe
from respan_segmentation.sweep import Order, orders
from respan_segmentation.tiles import Tiling


@dataclass(frozen=True)
class Grid:
    """An image, and how a model's windows lie on it.

    The image is seen as nnU-Net sees it: axes in the plans' order, cut to the smallest box around
    values other than 0 (the crop). What lies outside that box is background.
    """

    folder: ModelFolder
    shape_zyx: Zyx
    spacing: VoxelSpacing
    step: float
    model_spacing_um: Sequence[float] | None = None

    def layout(self, crop: Box, order: Order | None = None) -> Layout:
        """Windows over a part of the image; absent an order, swept along its longest axis."""
        wanted = self.model_spacing_um or self.folder.spacing_um
        regrid = grids(self.folder, shape_of(self.turned(crop)), self.spacing, wanted)
        tiling = Tiling(regrid.model_shape, self.folder.patch, self.step)
        return Layout(regrid, tiling, order or orders(regrid.image_shape)[0])

    def turned(self, box: Box) -> Box:
        """A box (z, y, x) in nnU-Net's axis order."""
        first, second, third = (box[axis] for axis in self.folder.transpose)
        return (first, second, third)

    def back(self, box: Box) -> Box:
        """A box in nnU-Net's axis order as (z, y, x)."""
        z, y, x = (box[axis] for axis in self.axes_back)
        return (z, y, x)

    @property
    def axes_back(self) -> tuple[int, int, int]:
        """Place of z, y, x in nnU-Net's axis order."""
        z, y, x = (self.folder.transpose.index(axis) for axis in range(3))
        return (z, y, x)

    def reader(self, read: Read, crop: Box) -> Read:
        """Reads boxes of the crop in nnU-Net's axis order, with a reader of (z, y, x) boxes."""

        def turned_read(box: Box) -> NDArray[Any]:
            return read(absolute(self.back(box), crop)).transpose(self.folder.transpose)

        return turned_read


def recipe_for(
    grid: Grid,
    layout: Layout,
    statistics: Statistics,
    model: Model,
    params: SegmentationParams,
    decision: Decision,
) -> Recipe:
    """What turns an image into classes, where every window is looked at."""
    scheme = _normalization(grid.folder, statistics)
    return Recipe(
        layout=layout,
        normalization=scheme,
        grey_range=normalized_range(scheme, statistics),
        predict=model.predictor(
            mirrors=params.mirrors,
            precision=params.arithmetic,
            disagreement=decision.extra_scores > 0,
        ),
        nothing=decision.nothing,
        device=model.devices[0],
    )


def _normalization(folder: ModelFolder, statistics: Statistics) -> Normalization:
    plans = folder.plans
    intensities = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality", {}),
    )
    return normalization(
        folder.settings["normalization_schemes"][0],
        statistics,
        intensities.get("0", {}),
        mask_zeros=any(folder.settings.get("use_mask_for_norm", ())),
    )

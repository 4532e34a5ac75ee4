"""The walk over an image's blocks: read, predict with PyTorch, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.blocks import Block, grid
from respan_common.devices import torch_device
from respan_common.drafts import Draft
from respan_common.events import Accepted, Reporter
from respan_common.geometry import Box, Zyx, relative, shape_of, whole
from respan_common.model_folders import ModelFolder
from respan_common.volumes import Volume
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.model import grids, load
from respan_segmentation.normalization import (
    Normalization,
    Statistics,
    normalization,
    normalized_range,
    statistics_of,
)
from respan_segmentation.pipeline import Layout, Recipe, classify
from respan_segmentation.tiles import Tiling, choose_block

_PROCESSOR_BUDGET = 2 * 2**30
"""Bytes for one block on a processor: a volume's size is no limit, and a laptop's memory is one."""
_GPU_SHARE = 0.5
"""Share of a GPU's free memory for one block; the network's feature maps need the rest."""
# Measured on two cores: two windows of 12 x 128 x 128 run 2.5 times as fast per voxel as one
# (torch has its fast convolution only for batches), four not faster than two.
_BATCH_VOXELS = {"cpu": 2**19, "cuda": 2**22}
_READING_BLOCK: Zyx = (64, 512, 512)


class Walk:
    """One image, one model: the walk over blocks.

    The image is seen as nnU-Net sees it: axes in the plans' order, cut to the smallest box around
    values other than 0. What lies outside that box is background.
    """

    def __init__(
        self, job: SegmentationJob, volume: Volume, folder: ModelFolder, report: Reporter
    ) -> None:
        self.job = job
        self.volume = volume
        self.folder = folder
        self.report = report
        self.device = torch_device(job.runtime)

    def fill(self, draft: Draft, labels: Any) -> int:
        """Write every block that is not done yet; the number of windows of the whole image."""
        blocks = self._blocks(labels.block_zyx)
        todo = [block for block in blocks if not draft.is_done(_token(block))]
        self._accept(len(blocks), len(blocks) - len(todo))
        statistics = self._statistics()
        if statistics.box is None:
            for block in todo:
                labels.write(block.inner, np.zeros(shape_of(block.inner), np.uint8))
                draft.mark_done(_token(block))
            return 0
        recipe = self._recipe(statistics)
        self._progress = _Progress(self.report, recipe, statistics.box, blocks, todo, self._turned)
        for block in todo:
            labels.write(block.inner, self._classes(block.inner, statistics.box, recipe))
            draft.mark_done(_token(block))
        return self._progress.total

    def _accept(self, blocks: int, done: int) -> None:
        self.report.accepted(
            Accepted(
                shape=self.volume.shape_zyx,
                spacing_um=self.volume.spacing.zyx,
                model_digest=self.folder.digest,
                device=str(self.device),
                blocks=blocks,
                blocks_done=done,
            )
        )

    def _blocks(self, shard_zyx: Zyx) -> list[Block]:
        """Blocks of whole shards, as large as the memory allows."""
        layout = self._layout(whole(self.volume.shape_zyx))

        def cost(block_zyx: Zyx) -> tuple[int, int]:
            blocks = [self._turned(block.inner) for block in grid(self.volume.shape_zyx, block_zyx)]
            windows = sum(layout.tiling.count(layout.regrid.model_box(block)) for block in blocks)
            return windows, max(layout.memory_bytes(block) for block in blocks)

        block_zyx = choose_block(self.volume.shape_zyx, shard_zyx, cost, self._budget())
        return grid(self.volume.shape_zyx, block_zyx)

    def _budget(self) -> int:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return int(free * _GPU_SHARE)
        return _PROCESSOR_BUDGET

    def _statistics(self) -> Statistics:
        def blocks() -> Iterator[tuple[Box, NDArray[Any]]]:
            for block in grid(self.volume.shape_zyx, _READING_BLOCK):
                self.report.check()
                yield block.inner, self.volume.read(block.inner, self.job.params.channel)

        return statistics_of(blocks())

    def _layout(self, crop: Box) -> Layout:
        wanted = self.job.params.model_spacing_um or self.folder.spacing_um
        shape = shape_of(self._turned(crop))
        regrid = grids(self.folder, shape, self.volume.spacing, wanted)
        tiling = Tiling(regrid.model_shape, self.folder.patch, self.job.params.step)
        return Layout(regrid, tiling, self.folder.classes)

    def _recipe(self, statistics: Statistics) -> Recipe:
        assert statistics.box is not None
        model = load(self.folder, self.device)
        voxels = _BATCH_VOXELS[self.device.type] // max(int(np.prod(self.folder.patch)), 1)
        scheme = _normalization(self.folder, statistics)
        return Recipe(
            layout=self._layout(statistics.box),
            normalization=scheme,
            grey_range=normalized_range(scheme, statistics),
            predict=model.predictor(mirrors=self.job.params.mirrors),
            device=self.device,
            batch=min(max(voxels, 2 if self.device.type == "cpu" else 1), 8),
        )

    def _classes(self, inner: Box, crop: Box, recipe: Recipe) -> NDArray[np.uint8]:
        """Classes of one block; background outside the crop."""
        classes = np.zeros(shape_of(inner), dtype=np.uint8)
        shared = _intersection(inner, crop)
        if shared is not None:
            block = self._turned(relative(shared, crop))
            found = classify(self._reader(crop), block, recipe, self._progress.advance)
            classes[relative(shared, inner)] = found.transpose(np.argsort(self.folder.transpose))
        return classes

    def _reader(self, crop: Box) -> Callable[[Box], NDArray[Any]]:
        back = [self.folder.transpose.index(axis) for axis in range(3)]

        def read(box: Box) -> NDArray[Any]:
            z, y, x = (
                slice(box[own].start + part.start, box[own].stop + part.start)
                for own, part in zip(back, crop, strict=True)
            )
            values = self.volume.read((z, y, x), self.job.params.channel)
            return values.transpose(self.folder.transpose)

        return read

    def _turned(self, box: Box) -> Box:
        """A box (z, y, x) in nnU-Net's axis order."""
        first, second, third = (box[axis] for axis in self.folder.transpose)
        return (first, second, third)


class _Progress:
    """Counts windows over all blocks and tells the caller."""

    def __init__(
        self,
        report: Reporter,
        recipe: Recipe,
        crop: Box,
        blocks: list[Block],
        todo: list[Block],
        turned: Callable[[Box], Box],
    ) -> None:
        def windows(some: list[Block]) -> int:
            shared = [_intersection(block.inner, crop) for block in some]
            boxes = [turned(relative(box, crop)) for box in shared if box is not None]
            layout = recipe.layout
            return sum(layout.tiling.count(layout.regrid.model_box(box)) for box in boxes)

        self._report = report
        self.total = windows(blocks)
        self._done = self.total - windows(todo)

    def advance(self, windows: int) -> None:
        """Some windows are done; raises CancelledError if the caller is gone."""
        self._done += windows
        self._report.progress(self._done, self.total, "predicting")


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


def _intersection(one: Box, other: Box) -> Box | None:
    z, y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return (z, y, x) if all(part.start < part.stop for part in (z, y, x)) else None


def _token(block: Block) -> str:
    """Name of a block's work; by place, since another machine may cut other blocks."""
    return "classes " + " ".join(f"{part.start}-{part.stop}" for part in block.inner)

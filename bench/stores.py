"""Image stores that were never a file: classes and grey values, published block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from respan_common.blocks import grid
from respan_common.drafts import drafting, drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_common.records import StageKey
from respan_common.schemes import SCHEMES

Paint = Callable[[Box], NDArray[Any]]
"""Voxels of a box of an image."""


def publish(
    store: Path,
    shape_zyx: Zyx,
    spacing: VoxelSpacing,
    classes: Paint,
    grey: Paint,
    scheme: int = 3,
    dtype: DTypeLike = np.uint16,
    confidence: Paint | None = None,
) -> Path:
    """Write a store with one channel and its classes, as if it had been segmented.

    `grey`, `classes` and `confidence` are asked for one box after the other: memory
    holds a block at a time.
    """
    publish_image(store, shape_zyx, spacing, grey, dtype)
    roles, key = SCHEMES[scheme], StageKey("segmentation", {"drawn": store.name})
    with drafting(store, key, SilentReporter()) as draft:
        attributes = {"roles": roles}
        labels = draft.labels("labels/classes", shape_zyx, spacing, np.uint8, attributes=attributes)
        for block in grid(shape_zyx, labels.block_zyx):
            labels.write(block.inner, classes(block.inner))
        if confidence is not None:
            image = draft.image("confidence", (1, *shape_zyx), spacing, np.uint8, ["spine"])
            for block in grid(shape_zyx, image.block_zyx):
                image.write(block.inner, confidence(block.inner), 1)
        draft.publish()
    return store


def publish_image(
    store: Path, shape_zyx: Zyx, spacing: VoxelSpacing, grey: Paint, dtype: DTypeLike = np.uint16
) -> Path:
    """Write a store with one channel, as if an image had been read into it."""
    key = StageKey("ingest", {"drawn": store.name})
    with drafting_store(store, key, SilentReporter()) as draft:
        image = draft.image("", (1, *shape_zyx), spacing, dtype, ["neuron"])
        for block in grid(shape_zyx, image.block_zyx):
            image.write(block.inner, grey(block.inner), 1)
        draft.publish()
    return store

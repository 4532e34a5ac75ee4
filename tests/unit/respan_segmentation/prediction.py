"""Predict one array with our recipe, and with nnU-Net's own predictor."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference import predict_from_raw_data
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from respan_common.blocks import grid
from respan_common.geometry import Box, VoxelSpacing, Zyx, relative, whole
from respan_common.model_folders import describe
from respan_common.params import SegmentationParams
from respan_segmentation.model import load
from respan_segmentation.normalization import statistics_of
from respan_segmentation.outputs import Decision
from respan_segmentation.pipeline import Read, Recipe, Tally, scores_of
from respan_segmentation.recipes import Grid, recipe_for
from respan_segmentation.scores import Meaning
from respan_segmentation.walk import meaning_of

CPU = torch.device("cpu")


def textured(shape: Zyx, seed: int = 0) -> NDArray[np.uint16]:
    """An image with structures of several sizes."""
    noise = np.random.default_rng(seed)
    fine = gaussian_filter(noise.normal(size=shape), 1.0) * 600
    coarse = gaussian_filter(noise.normal(size=shape), 3.0) * 3000
    return np.clip(fine + coarse + 300, 1, 4000).astype(np.uint16)


def own_recipe(
    folder: Path,
    image: NDArray[Any],
    spacing: VoxelSpacing,
    step: float = 0.5,
    mirrors: bool = False,
    **params: Any,
) -> Recipe:
    """What the stage would use for an image without an empty surround."""
    model = describe(folder)
    wanted = SegmentationParams(preset="exact", step_size=step, mirroring=mirrors, **params)
    box = whole(image.shape)
    grid_of_model = Grid(model, image.shape, spacing, step)
    return recipe_for(
        grid_of_model,
        grid_of_model.layout(box),
        statistics_of([(box, image)]),
        load(model, [CPU]),
        wanted,
        Decision(meaning_of(model)),
    )


def ours(
    folder: Path,
    image: NDArray[Any],
    spacing: VoxelSpacing,
    block_zyx: Zyx | None = None,
    **options: Any,
) -> NDArray[np.uint8]:
    """Classes by our recipe, in one block or in several."""
    recipe = own_recipe(folder, image, spacing, **options)
    classes = np.full(image.shape, 255, np.uint8)
    for block in grid(image.shape, block_zyx or image.shape):
        meaning = meaning_of(describe(folder))
        classes[block.inner] = classify(lambda box: image[box], block.inner, recipe, meaning)
    return classes


def classify(
    read: Read, box: Box, recipe: Recipe, meaning: Meaning, tally: Tally | None = None
) -> NDArray[np.uint8]:
    """Classes of a box; every voxel must be given once."""
    classes = np.full([part.stop - part.start for part in box], 255, np.uint8)
    given = np.zeros(classes.shape, int)
    with ThreadPoolExecutor(1) as helper:
        for part in scores_of(read, box, recipe, tally or Tally(), helper):
            own = relative(part.box, box)
            given[own] += 1
            classes[own] = 0 if part.sums is None else meaning.classes(part.sums, part.weight)
    assert (given == 1).all()
    return classes


def nnunets(
    folder: Path,
    image: NDArray[Any],
    spacing: VoxelSpacing,
    step: float = 0.5,
    mirrors: bool = False,
    folds: tuple[str, ...] = ("all",),
    checkpoint: str = "checkpoint_final.pth",
    first_stage: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Classes by nnU-Net's own predictor; a cascade's second stage sees those of the first."""
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = predict_from_raw_data.nnUNetPredictor(
            tile_step_size=step, use_mirroring=mirrors, device=CPU, allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
        classes: NDArray[np.uint8] = predictor.predict_single_npy_array(
            image[None].astype(np.float32),
            {"spacing": list(spacing.zyx)},
            None if first_stage is None else first_stage[None].astype(np.int16),
        )
    return classes


def add_up_in_single_precision(monkeypatch: Any) -> None:
    """Have nnU-Net sum its windows in float32, not float16, whose rounding decides near ties."""
    gaussian = partial(predict_from_raw_data.compute_gaussian, dtype=torch.float32)
    monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", gaussian)
    monkeypatch.setattr(torch, "half", torch.float32)

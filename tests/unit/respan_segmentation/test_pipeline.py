"""Our prediction against nnU-Net's own, and against itself in other blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nnunet_models import LABELS, REGIONS, REGIONS_ORDER, write_random_model
from tests.unit.respan_segmentation.prediction import (
    CPU,
    add_up_in_single_precision,
    classify,
    nnunets,
    ours,
    textured,
)

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing, whole
from respan_segmentation.normalization import SCHEMES, Normalization
from respan_segmentation.pipeline import Layout, Recipe, Tally
from respan_segmentation.resampling import regrid
from respan_segmentation.scores import Meaning
from respan_segmentation.sweep import orders
from respan_segmentation.tiles import Tiling

# nnU-Net's imports and its handling of old PyTorch calls warn.
pytestmark = pytest.mark.filterwarnings("ignore")

FLAT = VoxelSpacing(1.0, 0.102, 0.102)
CASES = {
    "same grid": ((1.0, 0.5, 0.5), (16, 32, 32), VoxelSpacing(1.0, 0.5, 0.5), (24, 64, 60)),
    "isotropic, other grid": (
        (0.3,) * 3,
        (16, 32, 32),
        VoxelSpacing(0.25, 0.26, 0.26),
        (24, 50, 44),
    ),
    "flat": (FLAT.zyx, (8, 32, 32), FLAT, (12, 64, 60)),
    "flat, other grid": (FLAT.zyx, (8, 32, 32), VoxelSpacing(0.7, 0.12, 0.12), (12, 44, 50)),
    "2d": (FLAT.zyx, (48, 48), FLAT, (4, 64, 60)),
    "2d, other grid": (FLAT.zyx, (32, 32), VoxelSpacing(0.5, 0.12, 0.12), (4, 50, 60)),
    "smaller than a window": (
        (1.0, 0.5, 0.5),
        (16, 32, 32),
        VoxelSpacing(1.0, 0.5, 0.5),
        (5, 20, 40),
    ),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """A model folder, the image's spacing, and an image."""
    model_spacing, patch, spacing, shape = CASES[request.param]
    folder = write_random_model(tmp_path / "model", spacing=model_spacing, patch=patch, seed=3)
    return folder, textured(shape), spacing


@pytest.mark.parametrize(("step", "mirrors"), [(0.5, False), (0.5, True), (0.75, False)])
def test_classes_are_nnunets_own(case, step, mirrors, monkeypatch):
    add_up_in_single_precision(monkeypatch)
    expected = nnunets(*case, step=step, mirrors=mirrors)
    found = ours(*case, step=step, mirrors=mirrors)
    assert np.unique(expected).size > 1
    assert (found == expected).mean() >= 0.9995


def test_only_the_rounding_of_its_half_precision_sums_sets_nnunet_apart(case):
    assert (ours(*case) == nnunets(*case)).mean() >= 0.99


OTHER_GRID = VoxelSpacing(0.8, 0.12, 0.12)
MODELS = {
    "regions": {"labels": REGIONS, "regions_class_order": REGIONS_ORDER},
    "regions and an ignore label": {
        "labels": REGIONS | {"ignore": 4},
        "regions_class_order": REGIONS_ORDER,
    },
    "an ignore label": {"labels": LABELS | {"ignore": 4}},
    "a residual encoder": {"network": "ResidualEncoderUNet"},
    "the best checkpoint": {"checkpoint": "checkpoint_best.pth"},
    "three folds": {"folds": ["0", "1", "2"]},
    **{
        scheme: {"normalization": scheme}
        for scheme in SCHEMES
        if scheme not in ("ZScoreNormalization", "RGBTo01Normalization")
    },
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind_give_nnunets_classes(kind, tmp_path, monkeypatch):
    model = MODELS[kind]
    folder = write_random_model(tmp_path / "model", spacing=FLAT.zyx, patch=(8, 32, 32), **model)
    add_up_in_single_precision(monkeypatch)
    own = {name: model[name] for name in ("folds", "checkpoint") if name in model}
    image = textured((9, 36, 40))
    expected = nnunets(folder, image, OTHER_GRID, **own)
    assert np.unique(expected).size > 1
    assert (ours(folder, image, OTHER_GRID) == expected).mean() >= 0.9995


def test_bytes_are_scaled_as_nnunet_scales_them(tmp_path, monkeypatch):
    model = {"spacing": FLAT.zyx, "patch": (8, 32, 32), "normalization": "RGBTo01Normalization"}
    folder = write_random_model(tmp_path / "model", **model)
    add_up_in_single_precision(monkeypatch)
    image = (textured((9, 36, 40)) // 16).astype(np.uint8)
    expected = nnunets(folder, image, OTHER_GRID)
    assert np.unique(expected).size > 1
    assert (ours(folder, image, OTHER_GRID) == expected).mean() >= 0.9995


def test_blocks_agree_with_the_whole_volume_wherever_it_is_cut(case):
    folder, image, spacing = case
    in_blocks = ours(folder, image, spacing, block_zyx=(8, 17, 23))
    assert (in_blocks == ours(folder, image, spacing)).mean() >= 0.9999


def by_sign(patches):
    """A stand-in for a network: class 1 where the image is positive."""
    for patch in patches:
        yield torch.cat([-patch, patch])


def simple_recipe(shape, patch, step, predict=by_sign, spacing=(1.0, 1.0, 1.0)):
    layout_grid = regrid(shape, (1.0, 1.0, 1.0), spacing)
    layout = Layout(layout_grid, Tiling(layout_grid.model_shape, patch, step), orders(shape)[0])
    return Recipe(layout, Normalization(), (-1.0, 1.0), predict, Meaning(2).nothing(), CPU)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), step=st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_every_voxel_of_every_size_is_predicted_exactly_once(data, step):
    patch = (4, 6, 5)
    sizes = [st.integers(1, 3 * window) for window in patch]
    shape = data.draw(st.tuples(*sizes))
    block_zyx = data.draw(st.tuples(*[st.integers(1, 3 * window) for window in patch]))
    image = np.random.default_rng(0).choice([-1.0, 1.0], shape).astype(np.float32)
    recipe = simple_recipe(shape, patch, step)
    classes = np.full(shape, 255, np.uint8)
    for block in grid(shape, block_zyx):
        assert (classes[block.inner] == 255).all()
        classes[block.inner] = classify(lambda box: image[box], block.inner, recipe, Meaning(2))
    np.testing.assert_array_equal(classes, image > 0)


@pytest.mark.parametrize("spacing", [(0.5, 2.0, 0.7), (3.0, 0.3, 1.0)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 1), (9, 4, 13)])
def test_a_uniform_image_of_any_size_stays_uniform_on_another_grid(shape, spacing):
    image = np.ones(shape, np.float32)
    recipe = simple_recipe(shape, (4, 4, 4), 0.5, spacing=spacing)
    classes = classify(lambda box: image[box], whole(shape), recipe, Meaning(2))
    assert classes.shape == shape
    assert (classes == 1).all()


def test_every_window_is_counted():
    image = np.ones((9, 10, 11), np.float32)
    recipe = simple_recipe(image.shape, (4, 4, 4), 0.5)
    tally = Tally()
    classify(lambda box: image[box], whole(image.shape), recipe, Meaning(2), tally)
    assert tally.predicted == recipe.layout.tiling.count(whole(image.shape))

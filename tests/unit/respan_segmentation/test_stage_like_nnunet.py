"""Whole images are classified as nnU-Net itself does."""

import numpy as np
import pytest
from tests.nnunet_models import (
    LABELS,
    REGIONS,
    REGIONS_ORDER,
    write_random_cascade,
    write_random_model,
)
from tests.unit.respan_segmentation.prediction import (
    add_up_in_single_precision,
    nnunets,
    ours,
    textured,
)
from tests.unit.respan_segmentation.stage_runs import (
    IMAGE,
    SPACING,
    classes_of,
    in_an_empty_surround,
    publish,
    segment,
)

from respan_common.geometry import VoxelSpacing
from respan_common.volumes import open_volume

ALONG_Y = {"transpose": (1, 0, 2), "spacing": (0.1, 1.0, 0.1)}
EMPTY_AROUND = {"image": in_an_empty_surround(IMAGE), "spacing": (1.0, 0.1, 0.1)}
LOWRES = {"spacing": (2.0, 0.3, 0.3), "patch": (8, 16, 16), "configuration": "3d_lowres"}
WHOLE_IMAGES = {
    "windows in another axis order": {**ALONG_Y, "patch": (32, 8, 32)},
    "slices in another axis order": {**ALONG_Y, "patch": (16, 32)},
    "an empty surround": {**EMPTY_AROUND, "patch": (8, 32, 32)},
    "an empty surround that is masked": {
        **EMPTY_AROUND,
        "patch": (8, 32, 32),
        "mask_zeros": True,
    },
    "an empty surround in another axis order": {
        **ALONG_Y,
        "image": in_an_empty_surround(IMAGE),
        "patch": (32, 8, 32),
    },
    "a low resolution": LOWRES,
    "regions at a low resolution": {
        **LOWRES,
        "labels": REGIONS,
        "regions_class_order": REGIONS_ORDER,
    },
}


@pytest.mark.parametrize("kind", WHOLE_IMAGES)
def test_whole_images_are_classified_as_nnunet_does(kind, tmp_path, monkeypatch):
    how = dict(WHOLE_IMAGES[kind])
    image = how.pop("image", IMAGE)
    model = write_random_model(tmp_path / "model", seed=1, **how)
    store = publish(tmp_path / "cell.ome.zarr", [image])
    segment(store, model, channel=1, preset="exact")
    add_up_in_single_precision(monkeypatch)
    expected = nnunets(model, image, SPACING, mirrors=True)
    assert np.unique(expected).size > 1
    assert (classes_of(store) == expected).mean() >= 0.9995


CASCADES = {
    "classes": {"labels": LABELS},
    "regions": {"labels": REGIONS, "regions_class_order": REGIONS_ORDER},
    "an ignore label": {"labels": LABELS | {"ignore": 4}},
    "an empty surround": {"image": in_an_empty_surround(IMAGE)},
    "another axis order": {**ALONG_Y, "low_spacing": (0.3, 2.0, 0.3), "patch": (32, 8, 32)},
    "several folds": {"folds": ["0", "1"]},
}


@pytest.mark.parametrize("kind", CASCADES)
def test_a_cascade_shows_its_second_stage_what_the_first_found(kind, tmp_path, monkeypatch):
    usual = {"spacing": (1.0, 0.1, 0.1), "low_spacing": (2.0, 0.3, 0.3), "patch": (8, 32, 32)}
    how = usual | CASCADES[kind]
    image, folds = how.pop("image", IMAGE), tuple(how.get("folds", ["all"]))
    model = write_random_cascade(tmp_path / "model", seed=2, **how)
    store = publish(tmp_path / "cell.ome.zarr", [image])
    segment(store, model, channel=1, step_size=0.5)
    add_up_in_single_precision(monkeypatch)
    first, second = sorted(model.iterdir(), reverse=True)
    seen = nnunets(first, image, SPACING, folds=folds)
    expected = nnunets(second, image, SPACING, folds=folds, first_stage=seen)
    assert min(np.unique(seen).size, np.unique(expected).size) > 1
    blind = nnunets(second, image, SPACING, folds=folds, first_stage=np.zeros_like(seen))
    assert (blind == expected).mean() < 0.99
    assert (classes_of(store) == expected).mean() >= 0.999


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0)])
def test_a_model_of_another_axis_order_sees_the_image_in_that_order(tmp_path, axes):
    cube = VoxelSpacing(0.12, 0.12, 0.12)
    image = textured((20, 36, 28))
    turned = write_random_model(tmp_path / "turned", patch=(16, 16, 16), transpose=axes)
    plain = write_random_model(tmp_path / "plain", patch=(16, 16, 16))
    segment(publish(tmp_path / "a.ome.zarr", [image]), turned, channel=1)
    found = open_volume(tmp_path / "a.ome.zarr", "labels/classes").read()
    expected = ours(plain, np.ascontiguousarray(image.transpose(axes)), cube, step=0.75)
    assert (found == expected.transpose(np.argsort(axes))).mean() > 0.9999

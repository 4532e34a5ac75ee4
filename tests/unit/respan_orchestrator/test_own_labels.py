from __future__ import annotations

import numpy as np
import pytest
import tifffile

from respan_common.blocks import grid
from respan_common.drafts import drafting_store
from respan_common.errors import InputError, VolumeFormatError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_orchestrator.own_labels import bring_labels

SHAPE = (5, 12, 14)


@pytest.fixture
def store(tmp_path):
    """An image without anything in it."""
    path = tmp_path / "cell.ome.zarr"
    with drafting_store(path, StageKey("ingest", {}), SilentReporter()) as draft:
        image = draft.image("", (1, *SHAPE), VoxelSpacing(0.3, 0.1, 0.1), np.uint16, ["neuron"])
        for block in grid(SHAPE, image.block_zyx):
            image.write(block.inner, np.zeros(SHAPE, np.uint16)[block.inner])
        draft.publish()
    return path


def labels_with(value=1, dtype=np.uint8, shape=SHAPE):
    values = np.zeros(shape, dtype)
    values[2, 3:6, 4:8] = value
    return values


def brought(store, values, scheme=3):
    """What arrives in the store from a TIFF with these values."""
    path = store.parent / "labels.tif"
    tifffile.imwrite(path, values)
    bring_labels(store, path, scheme, SilentReporter())
    return open_volume(store, "labels/classes")


def refusal(store, values, scheme=3):
    with pytest.raises(InputError) as error:
        brought(store, values, scheme)
    assert "labels.tif" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_whole_numbers_of_any_type_are_classes(store, dtype):
    found = brought(store, labels_with(2, dtype))
    assert found.dtype == np.uint8
    assert np.array_equal(found.read(), labels_with(2))
    assert found.attributes["roles"]["dendrite"] == 2


def test_labels_without_anything_are_labels(store):
    assert not brought(store, labels_with(0)).read().any()


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [(9, np.uint8, "9"), (300, np.uint16, "300"), (-1, np.int16, "-1"), (1.5, np.float32, "1.5")],
)
def test_a_value_that_the_scheme_does_not_know_is_named_with_those_that_it_knows(
    store, value, dtype, said
):
    text = refusal(store, labels_with(value, dtype))
    assert f"the value {said}," in text
    assert "0 background, 1 spine, 2 dendrite, 3 soma, 4 neck" in text
    assert "--scheme" in text


def test_a_value_of_another_scheme_is_refused_before_anything_is_published(store):
    assert "scheme 2 (0 background, 1 dendrite, 2 soma)" in refusal(store, labels_with(3), scheme=2)
    assert not (store / "labels" / "classes").exists()


def test_ids_of_single_spines_are_told_from_classes(store):
    values = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    text = refusal(store, values)
    assert "and 834 more" in text
    assert "its class" in text


def test_values_that_are_no_numbers_are_refused(store):
    with pytest.raises(VolumeFormatError, match=r"labels\.tif: channel 1, slice 3 .*NaN"):
        brought(store, labels_with(np.nan, np.float32))


@pytest.mark.parametrize(
    ("shape", "way_out"), [((14, 12, 5), "the order z, y, x"), ((5, 12, 7), "cropped")]
)
def test_another_shape_is_shown_beside_the_images(store, shape, way_out):
    text = refusal(store, labels_with(shape=shape))
    assert str(shape) in text
    assert f"the image cell has {SHAPE}" in text
    assert way_out in text


def test_several_channels_are_no_classes(store):
    values = np.stack([labels_with(), labels_with()], axis=1)
    with pytest.raises(InputError, match="2 channels; a class image has one"):
        brought(store, values)


def test_what_is_not_there_is_said(store):
    with pytest.raises(InputError, match=r"there is no .*nowhere\.tif"):
        bring_labels(store, store.parent / "nowhere.tif", 3, SilentReporter())


def test_a_folder_that_is_no_zarr_is_refused(store, tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(VolumeFormatError, match="not an OME-Zarr image"):
        bring_labels(store, tmp_path / "labels", 3, SilentReporter())

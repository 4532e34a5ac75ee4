"""Our stores in the eyes of the field's own libraries."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels
from tests.unit.respan_common.stores import FOUR_SHARDS, publish_image, publish_labels, ramp


@pytest.fixture(scope="module", params=[FOUR_SHARDS, (1, 700, 40)], ids=["volume", "plane"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign") / "cell.ome.zarr"
    publish_image(folder, ramp((2, *request.param)))
    publish_labels(folder, ramp(request.param, np.uint32))
    return folder


def test_the_image_is_valid_ngff(store):
    image = Image.from_zarr(zarr.open_group(store, mode="r"))
    assert [axis.unit for axis in image.ome_attributes.multiscales[0].axes[1:]] == [
        "micrometer"
    ] * 3


def test_the_labels_are_valid_ngff(store):
    labels = Labels.from_zarr(zarr.open_group(store / "labels", mode="r"))
    assert labels.ome_attributes.labels == ["classes"]
    ImageLabel.from_zarr(zarr.open_group(store / "labels" / "classes", mode="r"))


def test_ome_zarr_opens_image_and_labels(store):
    nodes = list(Reader(parse_url(store))())
    image, *others = nodes
    assert np.array_equal(image.data[0].compute(), zarr.open_array(store / "0", mode="r")[...])
    assert image.metadata["channel_names"] == ["channel 1", "channel 2"]
    labels = [node for node in others if node.zarr.basename() == "classes"]
    assert labels, [node.zarr.basename() for node in nodes]
    assert len(labels[0].data) == len(image.data)

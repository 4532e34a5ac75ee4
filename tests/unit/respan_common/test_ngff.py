from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from tests.strategies import SPACINGS, triples

from respan_common import ngff
from respan_common.errors import VolumeFormatError
from respan_common.geometry import VoxelSpacing

FINE = VoxelSpacing(0.3, 0.1, 0.1)


@given(triples(1, 5000), SPACINGS)
def test_pyramids_start_at_one_grow_by_doubling_and_end(shape, spacing):
    factors = ngff.pyramid_factors(shape, spacing)
    assert factors[0] == (1, 1, 1)
    for fine, coarse in itertools.pairwise(factors):
        assert fine != coarse
        assert all(
            after in (before, 2 * before) for before, after in zip(fine, coarse, strict=True)
        )
    assert all(min(ngff.level_shape(shape, factor)) >= 1 for factor in factors)


def test_voxels_grow_towards_cubes():
    assert ngff.pyramid_factors((40, 2048, 2048), FINE) == [
        (1, 1, 1),
        (1, 2, 2),
        (2, 4, 4),
        (4, 8, 8),
    ]


def test_a_plane_stays_a_plane():
    assert all(z == 1 for z, _, _ in ngff.pyramid_factors((1, 4096, 4096), VoxelSpacing(1, 1, 1)))


def test_a_small_volume_needs_no_pyramid():
    assert ngff.pyramid_factors((256, 256, 256), FINE) == [(1, 1, 1)]


def test_an_averaged_voxel_lies_in_the_middle_of_its_fine_ones():
    scales = ngff.multiscales("x", FINE, [(1, 1, 1), (1, 2, 2)], has_channels=True, averaged=True)
    first, second = (d["coordinateTransformations"] for d in scales[0]["datasets"])
    assert [part["type"] for part in first] == ["scale"]
    assert second[0]["scale"] == [1.0, 0.3, 0.2, 0.2]
    assert second[1]["translation"] == [0.0, 0.0, 0.05, 0.05]


@given(SPACINGS)
def test_the_spacing_survives_the_metadata(spacing):
    attributes = ngff.label_attributes("x", spacing, [(1, 1, 1), (2, 2, 2)], {})
    assert ngff.spacing_of(attributes) == spacing
    assert ngff.spacing_of(attributes, 1).zyx == pytest.approx([2 * e for e in spacing.zyx])


@pytest.mark.parametrize("attributes", [{}, {"ome": {}}, {"ome": {"multiscales": []}}, {"ome": 3}])
def test_foreign_metadata_is_a_format_error(attributes):
    with pytest.raises(VolumeFormatError, match="OME-Zarr"):
        ngff.spacing_of(attributes)


def test_channel_names_are_found_again():
    attributes = ngff.image_attributes(
        "x", FINE, [(1, 1, 1)], ["GFP", "DAPI"], [(1, 5), (7, 7)], np.dtype("uint8")
    )
    assert ngff.channel_names_of(attributes) == ["GFP", "DAPI"]
    windows = [channel["window"] for channel in attributes["ome"]["omero"]["channels"]]
    assert windows[1] == {"min": 0.0, "max": 255.0, "start": 7, "end": 8}


def test_neighboring_labels_have_different_colors():
    colors = [tuple(ngff.label_color(value)) for value in range(1, 50)]
    assert len(set(colors)) == len(colors)

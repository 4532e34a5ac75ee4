"""Changes of grid against scikit-image's, which nnU-Net uses."""

import itertools

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
)
from skimage.transform import resize

from respan_common.geometry import whole
from respan_segmentation.resampling import Axis, Regrid, flat_axis_of, regrid

SIZES = [(20, 26), (31, 17), (9, 9), (1, 3), (4, 1)]


def noise(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("pair", SIZES)
def test_to_the_model_is_a_cubic_resize(pair):
    image, model = pair
    change = Regrid((Axis(image, model), Axis(12, 15), Axis(14, 14)))
    values = noise((image, 12, 14))
    near = values[change.image_box(whole(change.model_shape))]
    found = change.to_model(torch.from_numpy(near), whole(change.model_shape))
    expected = resize(values, change.model_shape, 3, mode="edge", anti_aliasing=False, clip=False)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("pair", SIZES)
def test_back_to_the_image_is_a_linear_resize(pair):
    image, model = pair
    change = Regrid((Axis(image, model), Axis(12, 15), Axis(14, 14)))
    values = noise((model, 15, 14))
    near = values[change.model_box(whole(change.image_shape))]
    found = change.to_image(torch.from_numpy(near)[None], whole(change.image_shape))[0]
    expected = resize(values, change.image_shape, 1, mode="edge", anti_aliasing=False, clip=False)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("box", [(slice(3, 9), slice(0, 5), slice(20, 60)), (slice(0, 1),) * 3])
def test_a_part_of_the_model_grid_is_the_same_part_of_the_whole(box):
    change = regrid((15, 40, 70), (1.0, 0.12, 0.12), (1.3, 0.102, 0.102))
    values = torch.from_numpy(noise((15, 40, 70)))
    whole_grid = change.to_model(values, whole(change.model_shape))
    part = change.to_model(values[change.image_box(box)], box)
    np.testing.assert_allclose(part, whole_grid[box], atol=1e-6)


def test_a_part_of_the_image_is_the_same_part_of_the_whole():
    change = regrid((15, 40, 70), (1.0, 0.12, 0.12), (1.3, 0.102, 0.102))
    values = torch.from_numpy(noise((2, *change.model_shape)))
    box = (slice(3, 9), slice(0, 5), slice(20, 60))
    part = change.to_image(values[(slice(None), *change.model_box(box))], box)
    expected = change.to_image(values, whole(change.image_shape))[(slice(None), *box)]
    np.testing.assert_allclose(part, expected, atol=1e-6)


def test_equal_grids_change_nothing_and_read_nothing_around():
    change = regrid((5, 6, 7), (1.0, 0.5, 0.5), (1.0, 0.5, 0.5))
    box = (slice(1, 3), slice(2, 4), slice(0, 7))
    assert change.is_identity
    assert change.image_box(box) == change.model_box(box) == box
    values = torch.from_numpy(noise((2, 2, 7)))
    assert torch.equal(change.to_model(values, box), values)


def test_a_flat_axis_takes_the_nearest_plane():
    change = regrid((4, 6, 6), (2.0, 0.1, 0.1), (1.0, 0.1, 0.1), flat_axis=0)
    values = torch.arange(4.0)[:, None, None].expand(4, 6, 6)
    planes = change.to_model(values, whole(change.model_shape))[:, 0, 0]
    assert planes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_grid_never_has_fewer_than_one_voxel():
    assert regrid((1, 1, 1), (0.1,) * 3, (9.0,) * 3).model_shape == (1, 1, 1)


@pytest.mark.parametrize("box", [whole((26, 17, 9)), (slice(3, 9), slice(0, 5), slice(6, 9))])
@pytest.mark.parametrize("image", [(20, 34, 9), (13, 17, 18), (31, 15, 7)])
def test_classes_are_resized_as_nnunet_resizes_them_also_where_two_share_a_voxel(image, box):
    model = (26, 17, 9)
    classes = np.random.default_rng(1).integers(0, 4, image).astype(np.uint8)
    axes = [Axis(own, other, 1, 1) for own, other in zip(image, model, strict=True)]
    change = Regrid(tuple(axes))
    near = torch.from_numpy(classes[change.image_box(box)])
    expected = resize_segmentation(classes.astype(np.int8), model, 1)
    np.testing.assert_array_equal(change.classes_to_model(near, (1, 2, 3), box), expected[box])


def test_sizes_are_nnunets_also_where_a_half_is_rounded():
    sizes, edges = range(1, 60), [0.05 * n for n in range(1, 12)]
    for image in edges:
        for model in edges:
            for size in sizes:
                given = regrid((size, 1, 1), (image, 1, 1), (model, 1, 1)).model_shape[0]
                assert given == max(int(compute_new_shape([size], [image], [model])[0]), 1)


SPACINGS = list(itertools.product((0.1, 0.12, 0.3, 0.31, 1.0), repeat=3))


@pytest.mark.parametrize("forced", [None, True, False])
def test_the_flat_axis_is_nnunets(forced):
    for own, wanted in zip(SPACINGS, SPACINGS[17:] + SPACINGS[:17], strict=True):
        _, expected = determine_do_sep_z_and_axis(forced, own, wanted)
        assert flat_axis_of(forced, own, wanted) == expected

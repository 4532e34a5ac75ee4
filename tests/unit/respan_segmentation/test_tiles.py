"""Where windows stop and how they are weighted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from respan_common.blocks import grid
from respan_common.geometry import shape_of, whole
from respan_segmentation.tiles import Tiling, accumulate, choose_block, importance_map

PATCH = (4, 6, 5)
SHAPES = st.tuples(*[st.integers(1, 3 * window) for window in PATCH])
STEPS = st.sampled_from([0.3, 0.5, 0.75, 1.0])


@given(shape=SHAPES, step=STEPS)
def test_windows_stop_where_nnunets_do(shape, step):
    padded = [max(size, window) for size, window in zip(shape, PATCH, strict=True)]
    tiling = Tiling(shape, PATCH, step)
    for starts, before, expected in zip(
        tiling.starts,
        tiling.before,
        compute_steps_for_sliding_window(padded, PATCH, step),
        strict=True,
    ):
        assert [start + before for start in starts] == expected


@given(shape=SHAPES, step=STEPS)
def test_windows_cover_every_voxel(shape, step):
    covered = np.zeros(shape, int)
    for window in Tiling(shape, PATCH, step).touching(whole(shape)):
        covered[tuple(slice(max(part.start, 0), part.stop) for part in window)] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize("patch", [(16, 32, 32), (12, 20, 64)])
def test_weights_are_nnunets_gaussian(patch):
    expected = compute_gaussian(patch, dtype=torch.float32, device=torch.device("cpu"))
    np.testing.assert_allclose(importance_map(patch), expected, rtol=1e-5, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, step=STEPS)
def test_the_sum_of_weights_is_that_of_all_windows(shape, step):
    tiling = Tiling(shape, PATCH, step)
    padded = np.zeros([max(size, window) for size, window in zip(shape, PATCH, strict=True)])
    for window in tiling.touching(whole(shape)):
        place = tuple(
            slice(part.start + before, part.stop + before)
            for part, before in zip(window, tiling.before, strict=True)
        )
        padded[place] += importance_map(PATCH)
    inside = tuple(slice(b, b + size) for b, size in zip(tiling.before, shape, strict=True))
    np.testing.assert_allclose(tiling.weights(whole(shape)), padded[inside], rtol=1e-5)


def test_the_mean_of_equal_predictions_is_the_prediction():
    tiling = Tiling((9, 13, 11), PATCH, 0.5)
    box = (slice(2, 9), slice(0, 7), slice(5, 6))
    values = torch.zeros((9, 13, 11))
    found = accumulate(
        values, (0, 0, 0), box, tiling, lambda patches: patches + 3, 1, 2, lambda count: None
    )
    assert found.shape == (1, *shape_of(box))
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_every_call_has_the_same_number_of_windows():
    tiling, sizes = Tiling((9, 13, 11), PATCH, 0.5), set()

    def predict(patches):
        sizes.add(len(patches))
        return patches

    box = whole(tiling.shape)
    accumulate(torch.zeros(tiling.shape), (0, 0, 0), box, tiling, predict, 1, 4, lambda n: None)
    assert sizes == {4}


def cost_of(shape, patch):
    def cost(block_zyx):
        blocks = [block.inner for block in grid(shape, block_zyx)]
        tiling = Tiling(shape, patch, 0.5)
        return sum(tiling.count(box) for box in blocks), 4 * int(np.prod(block_zyx))

    return cost


def test_blocks_grow_while_they_fit_and_save_windows():
    shape, cost = (64, 256, 256), cost_of((64, 256, 256), (16, 64, 64))
    small = choose_block(shape, (32, 64, 64), cost, 4 * 64 * 128 * 128)
    large = choose_block(shape, (32, 64, 64), cost, 10**12)
    assert cost(small)[1] <= 4 * 64 * 128 * 128
    assert all(size % least == 0 for size, least in zip(small, (32, 64, 64), strict=True))
    assert large == shape
    assert cost(large)[0] < cost(small)[0] < cost((32, 64, 64))[0]


def test_a_block_is_never_smaller_than_the_least():
    shape = (64, 256, 256)
    assert choose_block(shape, (32, 64, 64), cost_of(shape, (16, 64, 64)), 1) == (32, 64, 64)

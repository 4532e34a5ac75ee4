"""Where windows stop and how they are weighted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from respan_common.geometry import whole
from respan_segmentation.tiles import Tiling, importance_map

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

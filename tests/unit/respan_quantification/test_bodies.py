"""Whatever the voxels, a spine has numbers or gaps, and nothing fails."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from respan_common.geometry import VoxelSpacing
from respan_quantification import heads, lengths
from respan_quantification.profile import middle_line

SPACINGS = [VoxelSpacing(1, 1, 1), VoxelSpacing(0.3, 0.1, 0.1), VoxelSpacing(0.2, 0.1, 0.4)]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SPACINGS), st.sampled_from([0.0, 0.1, 0.5]))
@example(845, VoxelSpacing(1, 1, 1), 0.0)
@example(1370, VoxelSpacing(0.2, 0.1, 0.4), 0.5)
def test_any_set_of_voxels_has_a_line_and_lengths(seed, spacing, standing):
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=rng.integers(1, 9, 3)), rng.uniform(0, 1.2))
    index = np.argwhere(field >= np.quantile(field, rng.uniform(0.3, 0.95)))
    roots = rng.random(len(index)) < standing
    base = index[int(np.argmax(roots))]
    way_um = rng.integers(-1, 2, 3) * np.asarray(spacing.zyx)
    middle = middle_line(index, roots, base, way_um, spacing)
    assert np.isfinite(middle.points_um).all()
    seen = rng.random(len(index)) < 0.9
    divided = heads.split(middle, seen, spacing)
    found = lengths.measure(middle, seen if divided is None else divided, seen, spacing)
    assert found.spine_um == pytest.approx(found.head_um + found.neck_um)
    assert min(found.spine_um, found.head_um, found.neck_um + 1e-9, found.head_diameter_um) >= 0


def test_a_spine_on_two_feet_has_the_line_of_the_foot_it_is_based_on():
    left = np.stack(np.broadcast_arrays(0, np.arange(6), 0), axis=1)
    right = np.stack(np.broadcast_arrays(0, np.arange(9), 5), axis=1)
    index = np.concatenate([left, right])
    roots = index[:, 1] == 0
    middle = middle_line(index, roots, index[0], np.array([0.0, -1.0, 0.0]), SPACINGS[0])
    assert middle.length_um == pytest.approx(6, abs=0.1)

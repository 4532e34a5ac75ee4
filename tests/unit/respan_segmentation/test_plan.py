"""Columns and rows of shards."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from respan_common.geometry import shape_of, whole
from respan_segmentation.plan import halves, rows, widest_column

SHARD = (4, 8, 8)
SHAPES = st.tuples(*[st.integers(1, 40)] * 3)


@given(shape=SHAPES, axis=st.integers(0, 2), wide=st.integers(1, 3))
def test_rows_and_their_shards_cover_every_voxel_once(shape, axis, wide):
    cross = tuple(edge * wide for edge in SHARD)
    by_row, by_shard = np.zeros(shape, int), np.zeros(shape, int)
    for number, column in enumerate(rows(whole(shape), SHARD, axis, cross)):
        for place, row in enumerate(column):
            assert (row.column, row.number) == (number, place)
            assert row.box[axis].start % SHARD[axis] == 0
            by_row[row.box] += 1
            for shard in row.shards:
                assert all(p.start % e == 0 for p, e in zip(shard, SHARD, strict=True))
                by_shard[shard] += 1
    assert (by_row == 1).all()
    assert (by_shard == 1).all()


def test_a_box_is_halved_at_a_shards_border_across_the_sweep():
    first, second = halves((slice(0, 4), slice(0, 8), slice(8, 31)), SHARD, axis=1)
    assert (first[2], second[2]) == (slice(8, 16), slice(16, 31))
    assert first[:2] == second[:2] == (slice(0, 4), slice(0, 8))
    assert halves((slice(0, 4), slice(0, 80), slice(0, 8)), SHARD, axis=1) is None


def cost_of(shape):
    def cost(column):
        across = [-(-size // edge) for size, edge in zip(shape, column, strict=True)]
        return int(np.prod(shape)) + 1000 * int(np.prod(across)), int(np.prod(column))

    return cost


def test_columns_grow_while_they_fit_and_save_windows():
    shape = (16, 64, 64)
    cost, least = cost_of(shape), (16, 8, 8)
    small = widest_column(shape, SHARD, 0, cost, 16 * 16 * 16)
    assert np.prod(small) <= 16 * 16 * 16
    assert cost(small)[0] < cost(least)[0]
    assert widest_column(shape, SHARD, 0, cost, 10**12) == shape
    assert widest_column(shape, SHARD, 0, cost, 1) == least
    assert shape_of(whole(shape)) == shape

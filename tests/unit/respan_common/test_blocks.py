from __future__ import annotations

import numpy as np
from hypothesis import given
from tests.strategies import triples

from respan_common.blocks import grid
from respan_common.geometry import shape_of


@given(triples(1, 23), triples(1, 9), triples(0, 6))
def test_every_voxel_is_owned_exactly_once(shape, block, halo):
    owners = np.zeros(shape, dtype=int)
    for piece in grid(shape, block, halo):
        owners[piece.inner] += 1
    assert np.all(owners == 1)


@given(triples(1, 23), triples(1, 9), triples(0, 6))
def test_a_block_sees_its_halo_unless_the_volume_ends(shape, block, halo):
    for number, piece in enumerate(grid(shape, block, halo)):
        assert piece.number == number
        assert shape_of(piece.inner_in_outer) == shape_of(piece.inner)
        for inner, outer, margin, size in zip(piece.inner, piece.outer, halo, shape, strict=True):
            assert outer.start == max(inner.start - margin, 0)
            assert outer.stop == min(inner.stop + margin, size)


@given(triples(1, 12), triples(1, 5), triples(0, 4))
def test_work_in_blocks_equals_work_on_the_whole(shape, block, halo):
    volume = np.arange(np.prod(shape)).reshape(shape)
    result = np.empty_like(volume)
    for piece in grid(shape, block, halo):
        result[piece.inner] = (volume[piece.outer] * 2)[piece.inner_in_outer]
    assert np.array_equal(result, volume * 2)


def test_a_volume_without_voxels_has_no_blocks():
    assert grid((0, 5, 5), (2, 2, 2)) == []

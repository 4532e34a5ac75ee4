"""Sums of overlapping windows in one pass."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from respan_common.geometry import relative, shape_of, whole
from respan_segmentation.sweep import Order, Sweep, orders
from respan_segmentation.tiles import Tiling, importance_map

CPU = torch.device("cpu")
PATCH = (4, 6, 5)
SHAPES = st.tuples(*[st.integers(1, 3 * window) for window in PATCH])
STEPS = st.sampled_from([0.3, 0.5, 0.75, 1.0])
ORDERS = [Order(*axes) for axes in itertools.permutations(range(3))]


def scores_for(window):
    """Two scores for every voxel of a window, different for each window."""
    generator = torch.Generator().manual_seed(hash(tuple((p.start, p.stop) for p in window)))
    return torch.randn((2, *PATCH), generator=generator)


def swept(tiling, target, order, keep=lambda window: True):
    """Sums by one pass, shape (3, *shape of `target`); every voxel must be given once."""
    found = torch.full((3, *shape_of(target)), torch.nan)
    given = np.zeros(shape_of(target), int)

    def score(panel):
        return [(window, scores_for(window)) for window in panel.windows if keep(window)]

    for strip in Sweep(tiling, target, order).strips(score, 2, CPU):
        own = relative(strip.box, target)
        found[(slice(None), *own)] = 0.0 if strip.sums is None else strip.sums
        given[own] += 1
    assert (given == 1).all()
    return found


def added_up(tiling, target, keep=lambda window: True):
    """The same by the definition."""
    padded = whole(tuple(max(s, p) for s, p in zip(tiling.shape, PATCH, strict=True)))
    total = torch.zeros((3, *shape_of(padded)))
    weight = torch.from_numpy(importance_map(PATCH))
    for window in filter(keep, tiling.touching(target)):
        place = tuple(
            slice(part.start + before, part.stop + before)
            for part, before in zip(window, tiling.before, strict=True)
        )
        total[(slice(0, 2), *place)] += scores_for(window) * weight
        total[(2, *place)] += weight
    inside = tuple(
        slice(part.start + before, part.stop + before)
        for part, before in zip(target, tiling.before, strict=True)
    )
    return total[(slice(None), *inside)]


@settings(max_examples=80, deadline=None)
@given(shape=SHAPES, step=STEPS, order=st.sampled_from(ORDERS))
def test_one_pass_gives_the_sums_of_all_windows(shape, step, order):
    tiling = Tiling(shape, PATCH, step)
    torch.testing.assert_close(
        swept(tiling, whole(shape), order), added_up(tiling, whole(shape)), atol=1e-5, rtol=1e-4
    )


@settings(max_examples=80, deadline=None)
@given(data=st.data(), shape=SHAPES, step=STEPS, order=st.sampled_from(ORDERS))
def test_a_part_has_bit_for_bit_the_sums_of_the_whole(data, shape, step, order):
    target = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        target.append(slice(start, data.draw(st.integers(start + 1, size))))
    tiling, target = Tiling(shape, PATCH, step), tuple(target)
    expected = swept(tiling, whole(shape), order)[(slice(None), *target)]
    assert torch.equal(swept(tiling, target, order), expected)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, step=STEPS, order=st.sampled_from(ORDERS), seed=st.integers(0, 99))
def test_windows_that_are_left_out_weigh_nothing(shape, step, order, seed):
    def keep(window):
        return hash((seed, *(part.start for part in window))) % 3 == 0

    tiling, box = Tiling(shape, PATCH, step), whole(shape)
    torch.testing.assert_close(
        swept(tiling, box, order, keep), added_up(tiling, box, keep), atol=1e-5, rtol=1e-4
    )


def test_panels_reach_through_the_shorter_axis_and_rows_may_run_along_any():
    found = orders((20, 300, 100))
    assert found == [Order(1, 2, 0), Order(2, 1, 0), Order(0, 1, 2)]


@pytest.mark.parametrize("length", [64, 640])
def test_memory_does_not_grow_along_the_longest_axis(length, monkeypatch):
    largest = []
    plain = torch.Tensor.new_empty

    def noted(self, *arguments, **options):
        made = plain(self, *arguments, **options)
        largest.append(made.numel())
        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", noted)
    swept(Tiling((length, 12, 10), PATCH, 0.75), whole((length, 12, 10)), Order(0, 1, 2))
    assert max(largest) <= 3 * PATCH[0] * PATCH[1] * 10

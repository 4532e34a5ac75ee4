import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import triples

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_quantification.census import merge, paint, survey, survey_box
from respan_quantification.frame import Frame
from respan_quantification.objects import components, keep

FINE = VoxelSpacing(0.1, 0.1, 0.1)


def frames(shape, block_zyx):
    return [Frame(b.outer, b.inner, shape, FINE) for b in grid(shape, block_zyx)]


def seen(mask, frame):
    return mask[survey_box(frame.inner, mask.shape)]


def census_of(mask, block_zyx, min_voxels=0):
    """The census and the painted image of a mask that is cut into blocks."""
    parts = frames(mask.shape, block_zyx)
    census = merge([survey(seen(mask, f), f) for f in parts], min_voxels)
    painted = np.full(mask.shape, 999, np.uint32)
    for frame, lookup in zip(parts, census.ids, strict=True):
        painted[frame.inner] = paint(seen(mask, frame), frame, lookup)
    return census, painted


@st.composite
def masks(draw):
    shape = draw(triples(1, 7))
    share = draw(st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.8, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 999))).random(shape) < share


@given(masks(), triples(1, 8))
def test_blocks_give_the_components_of_the_whole_image_wherever_they_cut(mask, block_zyx):
    _, painted = census_of(mask, block_zyx)
    assert np.array_equal(painted, components(mask))


@pytest.mark.parametrize("block_zyx", [(1, 1, 1), (2, 2, 2), (3, 2, 1), (1, 6, 6), (6, 6, 6)])
def test_a_checkerboard_that_hangs_together_by_edges_is_one_object(block_zyx):
    board = np.indices((6, 6, 6)).sum(axis=0) % 2 == 0
    census, painted = census_of(board, block_zyx)
    assert census.count == 1
    assert np.array_equal(painted, board)


@pytest.mark.parametrize("step", [(1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1), (0, 1, -1)])
@pytest.mark.parametrize("block_zyx", [(1, 1, 1), (2, 2, 2), (3, 3, 3)])
def test_a_diagonal_is_one_object_across_edges_and_corners_of_blocks(step, block_zyx):
    mask = np.zeros((6, 6, 6), bool)
    for n in range(6):
        mask[tuple(n if s >= 0 else 5 - n for s in step)] = True
    assert census_of(mask, block_zyx)[0].count == 1


@given(masks(), triples(1, 8))
def test_voxels_anchors_and_boxes_are_those_of_the_whole_image(mask, block_zyx):
    census, _ = census_of(mask, block_zyx)
    labels = components(mask)
    assert census.count == labels.max(initial=0)
    for number in range(1, census.count + 1):
        index = np.argwhere(labels == number)
        assert census.voxels[number] == len(index)
        assert census.anchors[number] == np.flatnonzero(labels == number)[0]
        assert (census.low[number] == index.min(axis=0)).all()
        assert (census.high[number] == index.max(axis=0) + 1).all()
        assert mask[census.box(number)].any()


@given(masks(), triples(1, 8), st.integers(0, 12))
def test_small_objects_are_dropped_by_their_size_in_the_whole_image(mask, block_zyx, min_voxels):
    census, painted = census_of(mask, block_zyx, min_voxels)
    labels = components(mask)
    sizes = np.bincount(labels.ravel())
    assert np.array_equal(painted, keep(labels, sizes >= min_voxels))
    assert (census.voxels[1:] >= min_voxels).all()


@given(masks(), triples(1, 8), st.integers(0, 12))
def test_leaving_small_components_out_at_once_changes_nothing(mask, block_zyx, min_voxels):
    parts = frames(mask.shape, block_zyx)
    late = merge([survey(seen(mask, f), f) for f in parts], min_voxels)
    early = merge([survey(seen(mask, f), f, min_voxels) for f in parts], min_voxels)
    assert all(np.array_equal(a, b) for a, b in zip(late.ids, early.ids, strict=True))
    assert np.array_equal(late.anchors, early.anchors)
    assert np.array_equal(late.voxels, early.voxels)
    assert np.array_equal(late.high, early.high)


def test_specks_inside_a_block_leave_no_rows():
    mask = np.zeros((21, 21, 21), bool)
    mask[1:-1:2, 1:-1:2, 1:-1:2] = True
    one = survey(mask, Frame.of_whole(mask.shape, FINE), 2)
    assert len(one.voxels) == 1
    assert one.rows.tolist() == [0] * 1001


def test_an_object_that_is_as_large_as_the_smallest_allowed_stays():
    mask = np.ones((1, 2, 5), bool)
    assert census_of(mask, (1, 1, 2), 10)[0].count == 1
    assert census_of(mask, (1, 1, 2), 10.5)[0].count == 0


def test_a_snake_that_enters_a_block_twice_is_one_object():
    mask = np.zeros((1, 5, 8), bool)
    mask[0, 0] = mask[0, 4] = mask[0, :, 7] = True
    census, _ = census_of(mask, (1, 5, 4))
    assert census.ids[0].tolist() == [0, 1, 1]
    assert census.count == 1


def test_an_empty_image_has_no_object():
    census, painted = census_of(np.zeros((4, 5, 6), bool), (2, 2, 2))
    assert census.count == 0
    assert not painted.any()
    assert merge([]).count == 0


def test_numbers_do_not_depend_on_the_order_in_which_blocks_are_surveyed():
    mask = np.random.default_rng(1).random((6, 7, 8)) < 0.2
    parts = frames(mask.shape, (3, 3, 3))
    surveys = [survey(seen(mask, f), f) for f in parts]
    forth, back = merge(surveys), merge(surveys[::-1])
    assert np.array_equal(forth.anchors, back.anchors)
    assert all(np.array_equal(a, b) for a, b in zip(forth.ids, back.ids[::-1], strict=True))


def test_a_survey_travels_between_processes_and_keeps_planes_only():
    mask = np.zeros((40, 40, 40), bool)
    mask[5:35, 5:35, 5:35] = True
    one = pickle.loads(pickle.dumps(survey(mask, Frame.of_whole(mask.shape, FINE))))
    assert one.voxels.tolist() == [0, 30**3]
    assert not len(one.shared_linear)
    frame = frames(mask.shape, (20, 40, 40))[1]
    assert len(survey(seen(mask, frame), frame).shared_rows) == 30**2

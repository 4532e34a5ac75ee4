import numpy as np
import pytest

from respan_training.phantoms.separation import seen_as


def row(instances, light):
    """Which each is seen as, of spines along one line."""
    instances = np.array(instances, np.uint32)[None, None]
    index = np.argwhere(instances)
    numbers = instances[tuple(index.T)]
    there = np.array(light, np.float32)[index[:, 2]]
    return seen_as(index, numbers, there, int(instances.max())).tolist()


@pytest.mark.parametrize(("dip", "seen"), [(0.95, [0, 1, 1]), (0.5, [0, 1, 2])])
def test_a_dip_tells_two_spines_apart(dip, seen):
    assert row([1, 1, 2, 2], [2, dip, dip, 1]) == seen


def test_spines_that_do_not_touch_stay_two():
    assert row([1, 0, 2], [1, 0, 1]) == [0, 1, 2]


def test_a_shoulder_melts_into_the_peak_beside_it():
    assert row([1, 1, 2, 2], [0.5, 0.6, 0.8, 1]) == [0, 2, 2]


def test_a_chain_is_the_brightest_ones():
    assert row([1, 1, 2, 2, 3, 3], [1, 1, 1.2, 1.2, 1.1, 1.1]) == [0, 2, 2, 2]


def test_a_peak_behind_a_dip_stays_when_its_neighbors_melt():
    assert row([1, 2, 2, 3, 3], [1, 1.1, 0.4, 0.4, 2]) == [0, 2, 2, 3]


def test_order_of_numbers_does_not_matter():
    assert row([2, 2, 1, 1], [2, 0.95, 0.95, 1]) == [0, 2, 2]


@pytest.mark.parametrize("step", [(0, 0, 1), (0, 1, -1), (1, -1, -1), (1, 1, 1), (1, 0, 0)])
def test_spines_touch_across_faces_edges_and_corners(step):
    index = np.array([(3, 3, 3), np.add((3, 3, 3), step)])
    numbers, light = np.array([1, 2], np.uint32), np.ones(2, np.float32)
    assert seen_as(index, numbers, light, 2).tolist() == [0, 1, 1]


def test_the_end_of_one_row_does_not_touch_the_beginning_of_the_next():
    index = np.array([(0, 0, 5), (0, 1, 0)])
    numbers, light = np.array([1, 2], np.uint32), np.ones(2, np.float32)
    assert seen_as(index, numbers, light, 2).tolist() == [0, 1, 2]


def test_no_spines_are_no_spines():
    assert row([0, 0], [1, 1]) == [0]

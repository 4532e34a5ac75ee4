"""Pictures of finds show what is there."""

import numpy as np
from bench.finds import COLUMNS, GREEN, HALF, RED, ZOOM, Stack, montage, tile

GREY = np.zeros((3, 100, 100), dtype=np.uint8)
SPINES = np.zeros((3, 100, 100), dtype=np.uint32)
SPINES[1, 48:53, 48:53] = 7
STACK = Stack(GREY, SPINES, np.array([[1.0, 60.0, 50.0], [1.0, 50.0, 99.0]]))


def places_of(picture, color):
    return np.argwhere((picture == color).all(axis=-1))


def test_a_found_spine_is_outlined_in_red():
    red = places_of(tile(STACK, np.array([1.0, 50, 50])), RED)
    assert red.min(axis=0).tolist() == [(HALF - 2) * ZOOM] * 2
    assert red.max(axis=0).tolist() == [(HALF + 3) * ZOOM] * 2


def test_an_annotated_head_is_a_green_cross_at_its_place():
    green = places_of(tile(STACK, np.array([1.0, 50, 50])), GREEN)
    assert green.mean(axis=0).tolist() == [(HALF + 10) * ZOOM, HALF * ZOOM]


def test_a_tile_at_the_edge_of_the_image_is_as_large_as_any():
    assert tile(STACK, np.array([0.0, 0, 99])).shape == (2 * HALF * ZOOM, 2 * HALF * ZOOM, 3)


def test_every_row_has_as_many_places_as_fit():
    picture = montage(STACK, [np.full((40, 3), 1.0), np.zeros((0, 3))])
    edge = 2 * HALF * ZOOM + 3
    assert picture.size == (COLUMNS * edge, 2 * edge)

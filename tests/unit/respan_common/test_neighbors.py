import itertools

import numpy as np

from respan_common.neighbors import touching_parts


def test_every_two_voxels_that_touch_are_met_once():
    places = np.moveaxis(np.indices((2, 3, 4)), 0, -1)
    met = [
        frozenset((tuple(one), tuple(other)))
        for here, there in touching_parts((2, 3, 4))
        for one, other in zip(
            places[here].reshape(-1, 3), places[there].reshape(-1, 3), strict=True
        )
    ]
    expected = {
        frozenset(pair)
        for pair in itertools.combinations(map(tuple, places.reshape(-1, 3)), 2)
        if np.abs(np.subtract(*pair)).max() == 1
    }
    assert len(met) == len(set(met))
    assert set(met) == expected

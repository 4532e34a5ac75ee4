import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_quantification.lengths import measure

SPACING = VoxelSpacing(0.1, 0.1, 0.1)


def test_a_part_that_hangs_on_by_nothing_does_not_lengthen_a_spine():
    spine = np.zeros((7, 7, 40), dtype=bool)
    spine[3, 3, 2:12] = True
    alone = measure(spine, spine, (3, 3, 2), np.zeros(3), SPACING)
    spine[3, 3, 30:35] = True
    assert measure(spine, spine, (3, 3, 2), np.zeros(3), SPACING) == alone


def test_head_and_neck_share_the_length_of_a_straight_spine():
    spine = np.zeros((7, 7, 30), dtype=bool)
    spine[2:5, 2:5, 4:24] = True
    head = spine.copy()
    head[:, :, :14] = False
    found = measure(spine, head, (3, 3, 4), np.zeros(3), SPACING)
    assert found.head_um == pytest.approx(1.0, abs=0.1)
    assert found.neck_um == pytest.approx(1.0, abs=0.1)

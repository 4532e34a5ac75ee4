import math

import numpy as np
import pytest
from tests.unit.respan_quantification.tilted import CONFOCAL, FINE, spines

from respan_common.geometry import VoxelSpacing
from respan_quantification.lengths import measure
from respan_quantification.profile import middle_line

FINER = VoxelSpacing(0.05, 0.05, 0.05)

SPINES = [
    ("mushroom", {"neck": 0.6, "thin": 0.12, "head": 0.3}, 0.6, 1.2),
    ("mushroom", {"neck": 1.2, "thin": 0.15, "head": 0.45}, 1.2, 2.1),
    ("broad", {"neck": 0.6, "thin": 0.15, "head": 0.25, "wide": 0.4}, 0.6, 1.1),
    ("bent", {"turn": 0.6, "thin": 0.15, "head": 0.3}, 0.3 * math.pi, 0.3 * math.pi + 0.6),
    ("capsule", {"length": 0.9, "radius": 0.3}, 0.0, 0.9),
    ("capsule", {"length": 0.4, "radius": 0.35}, 0.0, 0.4),
    ("capsule", {"length": 2.0, "radius": 0.15}, 0.0, 2.0),
]


def all_lengths(kind, spacing, draws, **size):
    found = spines(kind, spacing, draws, **size)
    return [measure(s.middle(), s.in_head, np.ones(len(s.index), bool), spacing) for s in found]


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL, FINER])
@pytest.mark.parametrize(("kind", "size", "neck_um", "spine_um"), SPINES)
def test_lengths_are_right_to_a_voxels_diagonal(kind, size, neck_um, spine_um, spacing):
    diagonal = float(np.linalg.norm(spacing.zyx))
    draws = 4 if spacing is FINER else 12
    if "thin" in size:  # thinner than a slice, a neck falls into pieces
        size = size | {"thin": max(size["thin"], 0.8 * spacing.z_um)}
    for found in all_lengths(kind, spacing, draws, **size):
        assert found.spine_um == pytest.approx(spine_um, abs=max(diagonal, 0.03 * spine_um))
        assert found.neck_um == pytest.approx(neck_um, abs=max(diagonal, 0.03 * neck_um))
        assert found.head_um + found.neck_um == pytest.approx(found.spine_um)


@pytest.mark.parametrize(("kind", "size", "neck_um", "spine_um"), SPINES)
def test_lengths_have_no_bias(kind, size, neck_um, spine_um):
    found = all_lengths(kind, FINE, 16, **size)
    assert np.mean([f.spine_um for f in found]) == pytest.approx(spine_um, abs=0.05)
    assert np.mean([f.neck_um for f in found]) == pytest.approx(neck_um, abs=0.05)


def test_diameters_are_right_to_half_a_voxel():
    for found in all_lengths("mushroom", FINE, 12, neck=0.6, thin=0.15, head=0.3):
        assert found.head_diameter_um == pytest.approx(0.6, abs=0.05)
        assert found.neck_diameter_um == pytest.approx(0.3, abs=0.05)
        assert found.neck_diameter_min_um == pytest.approx(0.3, abs=0.07)


def test_a_broad_heads_diameter_is_its_breadth():
    for found in all_lengths("broad", FINE, 12, neck=0.6, thin=0.15, head=0.25, wide=0.4):
        assert found.head_diameter_um == pytest.approx(0.8, abs=0.1)


def test_a_spine_that_bends_by_a_right_angle_is_straight_from_base_to_tip_only_in_part():
    for found in all_lengths("bent", FINE, 6, turn=0.6, thin=0.15, head=0.3):
        assert found.straight_um == pytest.approx(math.hypot(0.6, 1.2), abs=0.15)


def test_a_neck_that_was_inferred_has_a_length_and_no_diameter():
    spine = spines("mushroom", FINE, 1, neck=0.6, thin=0.12, head=0.3)[0]
    found = measure(spine.middle(), spine.in_head, spine.in_head, FINE)
    assert found.neck_um == pytest.approx(0.6, abs=0.1)
    assert math.isnan(found.neck_diameter_um)
    assert math.isnan(found.neck_diameter_min_um)


def test_a_part_that_hangs_on_by_nothing_does_not_lengthen_a_spine():
    stick = np.stack(np.broadcast_arrays(3, 3, np.arange(2, 12)), axis=1)
    loose = stick[:5] + np.array([0, 0, 28])
    lengths = []
    for index in (stick, np.concatenate([stick, loose])):
        none = np.zeros(len(index), bool)
        middle = middle_line(index, none, index[0], np.zeros(3), FINE)
        lengths.append(measure(middle, ~none, ~none, FINE).spine_um)
    assert lengths[0] == lengths[1]


def test_a_single_voxel_is_half_a_voxel_long_beyond_its_center():
    index = np.array([[5, 5, 5]])
    middle = middle_line(index, np.ones(1, bool), index[0], np.array([0, 0, -0.1]), FINE)
    assert measure(middle, np.ones(1, bool), np.ones(1, bool), FINE).spine_um == pytest.approx(0.1)

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.respan_quantification.tilted import CONFOCAL, FINE, spines

from respan_quantification.profile import cross_sections


def everything(spine):
    return np.ones(len(spine.index), dtype=bool)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
def test_cross_sections_add_up_to_the_volume(spacing):
    for spine in spines("mushroom", spacing, 8, neck=0.6, thin=0.2, head=0.4):
        middle = spine.middle()
        areas = cross_sections(middle, everything(spine), spacing).areas_um2
        volume_um3 = (areas[1:] + areas[:-1]).sum() / 2 * middle.step_um
        assert volume_um3 == pytest.approx(len(spine.index) * spacing.voxel_volume_um3, rel=0.04)


def test_a_tubes_cross_section_is_the_same_everywhere_at_any_orientation():
    for spine in spines("capsule", FINE, 12, length=2.0, radius=0.2):
        profile = cross_sections(spine.middle(), everything(spine), FINE)
        inner = (profile.positions_um > 0.2) & (profile.positions_um < 1.6)
        assert profile.diameters_um[inner].mean() == pytest.approx(0.4, abs=0.035)
        assert np.abs(profile.diameters_um[inner] - 0.4).max() < 0.05


def test_a_straight_spines_middle_line_is_straight_and_in_the_middle():
    for spine in spines("mushroom", FINE, 12, neck=0.8, thin=0.15, head=0.35):
        middle = spine.middle()
        assert middle.length_um < 1.03 * middle.straight_um
        ball = spine.index[spine.in_head] * 0.1
        off = np.linalg.norm(middle.points_um - ball.mean(axis=0), axis=1).min()
        assert off < 0.05


def test_the_line_ends_on_the_spines_far_side():
    for spine in spines("mushroom", FINE, 12, neck=0.6, thin=0.12, head=0.3):
        center = (spine.index[spine.in_head] * 0.1).mean(axis=0)
        tip_um = np.linalg.norm(spine.middle().points_um[-1] - center)
        assert tip_um == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_a_mirrored_spine_has_the_mirrored_line(axes):
    sign = np.where(np.isin(np.arange(3), axes), -1, 1)
    for spine in spines("mushroom", CONFOCAL, 6, neck=0.8, thin=0.2, head=0.4):
        mirrored = replace(
            spine,
            index=spine.index * sign,
            base=spine.base * sign,
            to_dendrite_um=spine.to_dendrite_um * sign,
        )
        length_um = spine.middle().length_um
        assert mirrored.middle().length_um == pytest.approx(length_um, rel=0.03)


def test_the_line_does_not_depend_on_where_in_the_image_the_spine_is():

    spine = spines("mushroom", CONFOCAL, 1, neck=0.8, thin=0.2, head=0.4)[0]
    far = np.array([1000, 20000, 30000])
    moved = replace(spine, index=spine.index + far, base=spine.base + far).middle()
    assert moved.step_um == spine.middle().step_um
    assert np.array_equal(moved.along_um, spine.middle().along_um)

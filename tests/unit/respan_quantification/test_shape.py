import math

import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import CONFOCAL, FINE, Scene

from respan_common.geometry import VoxelSpacing
from respan_quantification.shape import measure


def ball(radius, spacing, shift):
    scene = Scene((2, 2, 2), spacing)
    return scene.ball(1 + np.asarray(shift) * spacing.zyx, radius).classes > 0


def shapes(radius, spacing, draws=12):
    rng = np.random.default_rng(0)
    return [
        measure(ball(radius, spacing, rng.uniform(-0.5, 0.5, 3)), spacing) for _ in range(draws)
    ]


@pytest.mark.parametrize(
    "spacing", [VoxelSpacing(0.05, 0.05, 0.05), FINE, VoxelSpacing(0.2, 0.1, 0.1)]
)
def test_a_ball_has_the_volume_and_surface_of_a_ball(spacing):
    found = shapes(0.4, spacing)
    volume_um3 = np.mean([shape.volume_um3 for shape in found])
    assert volume_um3 == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.03)
    surface_um2 = np.mean([shape.surface_um2 for shape in found])
    assert surface_um2 == pytest.approx(4 * math.pi * 0.4**2, rel=0.04)


def test_a_head_of_three_voxels_radius_keeps_its_volume():
    volume_um3 = np.mean([shape.volume_um3 for shape in shapes(0.3, FINE, 30)])
    assert volume_um3 == pytest.approx(0.1131, rel=0.02)


def test_a_ball_is_solid_and_fills_about_half_of_its_box():
    for shape in shapes(0.4, FINE, 4):
        assert 0.95 < shape.solidity <= 1.0
        assert shape.extent == pytest.approx(math.pi / 6, rel=0.12)
        assert shape.bbox_um3 == pytest.approx(0.8**3, rel=0.12)


def test_an_object_at_the_arrays_face_has_a_closed_surface():
    whole = measure(np.pad(np.ones((4, 4, 4), bool), 2), FINE)
    cut = measure(np.ones((4, 4, 4), bool), FINE)
    assert cut.volume_um3 == whole.volume_um3
    assert cut.surface_um2 == pytest.approx(whole.surface_um2, rel=1e-6)
    assert cut.convex_um3 == pytest.approx(whole.convex_um3, rel=1e-6)


def test_the_projected_area_is_that_of_the_shadow_along_z():
    assert measure(np.ones((5, 2, 3), bool), CONFOCAL).area_um2 == pytest.approx(6 * 0.01)


def test_nothing_has_no_volume_instead_of_zero():
    assert math.isnan(measure(np.zeros((3, 3, 3), bool), FINE).volume_um3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 1, 4), (1, 3, 3), (4, 1, 1)])
def test_slivers_have_a_volume(shape):
    found = measure(np.ones(shape, bool), CONFOCAL)
    assert found.volume_um3 == pytest.approx(math.prod(shape) * 0.003)
    assert math.isnan(found.surface_um2) or found.surface_um2 > 0

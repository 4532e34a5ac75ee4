import math

import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_quantification.shape import asymmetries, measure

FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)


def solid(axes_um, spacing, rng, half_length_um=0.0):
    """Ellipsoid (or capsule: stretched along its first axis) at a random place and orientation."""
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    reach = [math.ceil((max(axes_um) + half_length_um) / edge) + 1 for edge in spacing.zyx]
    grid = [
        (np.arange(-n, n + 1) + rng.uniform(-0.5, 0.5)) * edge
        for n, edge in zip(reach, spacing.zyx, strict=True)
    ]
    points = np.stack(np.meshgrid(*grid, indexing="ij"), -1) @ turn
    points[..., 0] -= np.clip(points[..., 0], -half_length_um, half_length_um)
    return ((points / axes_um) ** 2).sum(-1) <= 1


def ellipsoid_surface(a, b, c):
    """Thomsen's formula, right to 1 %."""
    p = 1.6075
    return 4 * math.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)


def shapes(axes_um, spacing, draws=12, **more):
    rng = np.random.default_rng(0)
    return [measure(solid(axes_um, spacing, rng, **more), spacing) for _ in range(draws)]


def mean(values):
    return float(np.mean(list(values)))


ANISOTROPIES = [1, 2, 3, 5, 10]


@pytest.mark.parametrize("anisotropy", ANISOTROPIES)
@pytest.mark.parametrize("axes", [(2, 2, 2), (3, 2, 1.4)])
def test_surfaces_of_solids_of_two_slices_radius_are_right_to_five_percent(axes, anisotropy):
    spacing = VoxelSpacing(1, 1 / anisotropy, 1 / anisotropy)
    found = shapes(axes, spacing, 12 if anisotropy < 5 else 4)
    assert mean(s.surface_um2 for s in found) == pytest.approx(ellipsoid_surface(*axes), rel=0.05)


@pytest.mark.parametrize("anisotropy", ANISOTROPIES[:4])
def test_surfaces_of_capsules_are_right_to_five_percent(anisotropy):
    spacing = VoxelSpacing(1, 1 / anisotropy, 1 / anisotropy)
    found = shapes((1.6, 1.6, 1.6), spacing, 12 if anisotropy < 5 else 4, half_length_um=3.0)
    truth = 4 * math.pi * 1.6**2 + 2 * math.pi * 1.6 * 6
    assert mean(s.surface_um2 for s in found) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("anisotropy", [1, 3, 10])
@pytest.mark.parametrize("radius", [1, 2])
def test_volumes_have_no_bias(radius, anisotropy):
    spacing = VoxelSpacing(1, 1 / anisotropy, 1 / anisotropy)
    found = shapes((radius,) * 3, spacing, 300 if radius == 1 and anisotropy == 1 else 80)
    truth = 4 / 3 * math.pi * radius**3
    volumes = [0.0 if math.isnan(s.volume_um3) else s.volume_um3 for s in found]
    error = np.std(volumes) / math.sqrt(len(volumes)) / truth
    assert mean(volumes) == pytest.approx(truth, rel=max(0.01, 2.5 * error))


def test_a_ball_of_four_voxels_radius_has_its_volume_to_three_percent_on_average():
    found = shapes((0.4, 0.4, 0.4), FINE, 20)
    volumes = np.array([s.volume_um3 for s in found]) / (4 / 3 * math.pi * 0.4**3)
    assert np.sqrt(np.mean((volumes - 1) ** 2)) < 0.03


def test_a_ball_is_solid_and_round_and_fills_about_half_of_its_box():
    for shape in shapes((0.4, 0.4, 0.4), FINE, 6):
        assert 0.95 < shape.solidity <= 1.0
        assert shape.sphericity == pytest.approx(0.98, abs=0.03)
        assert shape.extent == pytest.approx(math.pi / 6, rel=0.12)
        assert shape.bbox_um3 == pytest.approx(0.8**3, rel=0.12)
        assert shape.equivalent_diameter_um == pytest.approx(0.8, abs=0.03)


def test_the_volume_of_a_mesh_on_bare_voxels_falls_short():
    for shape in shapes((0.3, 0.3, 0.3), FINE, 6):
        assert 0.85 < shape.mesh_um3 / shape.volume_um3 < 0.97


def test_an_object_at_the_arrays_face_has_a_closed_surface():
    whole = measure(np.pad(np.ones((4, 4, 4), bool), 2), FINE)
    cut = measure(np.ones((4, 4, 4), bool), FINE)
    assert cut.volume_um3 == whole.volume_um3
    assert cut.surface_um2 == pytest.approx(whole.surface_um2, rel=1e-6)
    assert cut.convex_um3 == pytest.approx(whole.convex_um3, rel=1e-6)


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_transposing_changes_nothing(order):
    mask = solid((0.6, 0.4, 0.3), CONFOCAL, np.random.default_rng(0))
    turned = VoxelSpacing(*(CONFOCAL.zyx[axis] for axis in order))
    straight, other = measure(mask, CONFOCAL), measure(mask.transpose(order), turned)
    assert other.surface_um2 == pytest.approx(straight.surface_um2, rel=0.005)
    assert other.convex_um3 == pytest.approx(straight.convex_um3, rel=0.005)


def test_the_projected_area_is_that_of_the_shadow_along_z():
    assert measure(np.ones((5, 2, 3), bool), CONFOCAL).area_um2 == pytest.approx(6 * 0.01)


def test_nothing_has_no_volume_instead_of_zero():
    assert math.isnan(measure(np.zeros((3, 3, 3), bool), FINE).volume_um3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 1, 4), (1, 3, 3), (4, 1, 1)])
def test_slivers_have_a_volume(shape):
    found = measure(np.ones(shape, bool), CONFOCAL)
    assert found.volume_um3 == pytest.approx(math.prod(shape) * 0.003)
    assert math.isnan(found.surface_um2) or found.surface_um2 > 0


def test_a_ball_is_symmetric_and_a_rod_is_not():
    ball = np.argwhere(solid((0.5, 0.5, 0.5), CONFOCAL, np.random.default_rng(0)))
    rod = np.argwhere(solid((1.0, 0.25, 0.25), FINE, np.random.default_rng(1)))
    assert asymmetries(ball, np.array([0]), CONFOCAL)[0] == pytest.approx(0, abs=0.1)
    both = np.concatenate([rod, rod + 1000])
    found = asymmetries(both, np.array([0, len(rod)]), FINE)
    assert found == pytest.approx(0.75, abs=0.05)
    assert found[0] == found[1]

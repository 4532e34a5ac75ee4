import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from respan_common.geometry import VoxelSpacing
from respan_quantification import meshes
from respan_quantification.mesh_files import as_trimesh, problems

SPACINGS = [VoxelSpacing(1, 1, 1), VoxelSpacing(0.3, 0.1, 0.1), VoxelSpacing(1, 0.1, 0.1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SPACINGS), st.floats(0.5, 2))
def test_any_lump_has_a_closed_surface_that_holds_its_volume(seed, spacing, lumpiness):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(6, 9, 9)), lumpiness)
    mask = field > np.quantile(field, 0.7)
    mesh = meshes.of_mask(mask, spacing)
    assert problems(mesh) == []
    assert as_trimesh(mesh).process(validate=False).is_watertight  # near points merged
    assert mesh.volume_um3 == pytest.approx(mask.sum() * spacing.voxel_volume_um3)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 4, 4), (4, 1, 1), (2, 2, 2), (3, 8, 8)])
def test_a_mesh_at_the_arrays_faces_is_that_of_the_object_inside_a_larger_one(spacing, shape):
    mask = np.ones(shape, bool)
    bare, padded = meshes.of_mask(mask, spacing), meshes.of_mask(np.pad(mask, 4), spacing)
    assert problems(bare) == []
    assert bare.volume_um3 == pytest.approx(padded.volume_um3)
    assert bare.surface_um2 == pytest.approx(padded.surface_um2, rel=1e-3)
    shift = padded.vertices_um.mean(axis=0) - bare.vertices_um.mean(axis=0)
    assert shift == pytest.approx(4 * np.asarray(spacing.zyx), rel=1e-3)


def test_a_mesh_lies_where_its_voxels_are():
    mask = np.zeros((6, 12, 12), bool)
    mask[2:4, 3:9, 5:11] = True
    for spacing in SPACINGS:
        middle = meshes.of_mask(mask, spacing).vertices_um.mean(axis=0)
        assert middle == pytest.approx(np.multiply([2.5, 5.5, 7.5], spacing.zyx), rel=1e-3)


def test_a_neck_of_one_voxel_is_not_blurred_away():
    mask = np.zeros((9, 9, 20), bool)
    mask[2:7, 2:7, 12:17] = True
    mask[4, 4, 2:12] = True
    reach = meshes.of_mask(mask, VoxelSpacing(1, 1, 1)).vertices_um[:, 2].min()
    assert reach < 2.5


def test_an_isosurface_lies_between_voxels_where_the_field_crosses_the_level():
    z, y, x = np.indices((15, 15, 15)) - 7.0
    field = 1 / (1 + np.exp(np.sqrt(z**2 + y**2 + x**2) - 4.3))
    mesh = meshes.of_field(field, VoxelSpacing(1, 1, 1))
    radius = np.linalg.norm(mesh.vertices_um - 7, axis=1)
    assert radius == pytest.approx(4.3, abs=0.05)
    assert problems(mesh) == []


def test_an_isosurface_is_closed_where_the_array_ends():
    mesh = meshes.of_field(np.full((3, 4, 5), 0.9), VoxelSpacing(1, 1, 1))
    assert problems(mesh) == []


def test_a_field_below_the_level_has_no_surface():
    assert meshes.of_field(np.full((3, 4, 5), 0.2), VoxelSpacing(1, 1, 1)) is None

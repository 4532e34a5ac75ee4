import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import CONFOCAL, FINE, Scene, params

from respan_common.geometry import VoxelSpacing
from respan_common.schemes import SCHEMES
from respan_quantification.classes import HEAD_ROLES, ClassImage
from respan_quantification.instances import divide, split_at_waists


def instances(scene, scheme=3, **changes):
    image = ClassImage(scene.classes, SCHEMES[scheme])
    cores = image.mask("spine_core") if image.has("spine_core") else None
    return divide(image.mask(*HEAD_ROLES), cores, scene.spacing, params(**changes))


def two_balls(distance_um, spacing=FINE, direction=(0, 0, 1), radius=0.35):
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    scene = Scene((3, 3, 3), spacing)
    for side in (-0.5, 0.5):
        scene.ball(1.5 + side * distance_um * unit, radius)
    return scene


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, 1), (0, 3, 1)])
def test_touching_spines_are_split_at_the_waist(spacing, direction):
    labels = instances(two_balls(0.62, spacing, direction))
    assert labels.max() == 2
    counts = np.bincount(labels.ravel())[1:]
    assert counts.min() / counts.max() > 0.8


def test_touching_spines_are_one_object_when_splitting_is_off():
    assert instances(two_balls(0.62), spine_splitting="connected").max() == 1


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize("seed", range(6))
def test_a_single_bumpy_spine_is_not_split(spacing, seed):
    rng = np.random.default_rng(seed)
    scene = Scene((3, 3, 3), spacing)
    for _ in range(4):
        scene.ball(1.5 + rng.uniform(-0.15, 0.15, 3), rng.uniform(0.25, 0.4))
    assert instances(scene).max() == 1


@pytest.mark.parametrize("radius", [0.1, 0.15, 0.2])
def test_a_long_thin_spine_is_not_cut_into_beads(radius):
    scene = Scene((3, 3, 4), FINE).tube((1.2, 0.6, 0.6), (1.8, 2.4, 3.2), radius, 1)
    assert instances(scene).max() == 1


def test_a_head_and_its_thick_neck_in_one_class_stay_one_spine():
    scene = Scene((3, 3, 3), FINE).ball((1.5, 2.0, 1.5), 0.35)
    assert instances(scene.tube((1.5, 0.8, 1.5), (1.5, 2.0, 1.5), 0.15, 1)).max() == 1


def test_a_waist_shallower_than_the_merge_depth_is_no_waist():
    assert instances(two_balls(0.62), split_merge_depth_um=0.3).max() == 1


def test_cores_grow_into_the_shell_that_they_share():
    core, shell = 2, 3
    scene = two_balls(0.6)
    scene.classes[scene.classes > 0] = shell
    for x in (1.2, 1.8):
        scene.classes[14:16, 14:16, int(x * 10) - 1 : int(x * 10) + 1] = core
    labels = instances(scene, scheme=4)
    assert labels.max() == 2
    assert ((labels > 0) == (scene.classes > 0)).all()
    assert len(np.unique(labels[:, :, :15])) == 2


def test_a_shell_without_a_core_is_no_spine():
    scene = two_balls(1.5)
    scene.classes[scene.classes > 0] = 3
    scene.classes[15, 15, 7] = 2
    assert instances(scene, scheme=4).max() == 1


def test_spines_that_share_a_corner_are_one_component():
    scene = Scene((0.4, 0.4, 0.4), FINE)
    scene.classes[0, 0, 0] = scene.classes[1, 1, 1] = 1
    assert instances(scene, spine_splitting="connected").max() == 1


def test_no_spine_class_gives_no_instance():
    assert instances(two_balls(0.6), scheme=2).max() == 0


def test_a_field_of_specks_is_divided_without_a_voxel_lost_and_in_the_images_own_grid(monkeypatch):
    spacing = VoxelSpacing(1.0, 0.1, 0.1)
    specks = np.random.default_rng(0).random((12, 60, 60)) < 0.4
    monkeypatch.setattr("respan_quantification.instances._MOST_FINE_VOXELS", specks.size)
    parts = split_at_waists(specks, spacing, params())
    assert np.array_equal(parts > 0, specks)
    sizes = np.bincount(parts.ravel())[1:]
    assert len(sizes) == 1 or sizes.min() >= spacing.voxels_in(0.03)

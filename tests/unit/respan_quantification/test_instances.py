import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import CONFOCAL, FINE, SPINE, Scene, params

from respan_common.geometry import VoxelSpacing
from respan_common.schemes import SCHEMES
from respan_quantification.classes import HEAD_ROLES, ClassImage
from respan_quantification.instances import divide, split_at_waists
from respan_quantification.objects import components


def instances(scene, scheme=3, **changes):
    image = ClassImage(scene.classes, SCHEMES[scheme])
    cores = image.mask("spine_core") if image.has("spine_core") else None
    grey = np.where(scene.classes > 0, 100, 10).astype(np.uint16)
    return divide(image.mask(*HEAD_ROLES), cores, grey, scene.spacing, params(**changes))


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


def test_a_speck_of_core_beside_a_core_is_no_spine_of_its_own():
    scene = two_balls(0.0)
    scene.classes[scene.classes > 0] = 3
    scene.classes[14:17, 14:17, 13:16] = 2
    scene.classes[15, 15, 18] = 2
    assert instances(scene, scheme=4).max() == 1


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


def test_a_field_of_specks_is_divided_without_a_voxel_lost_and_without_looking_at_every_pair():
    spacing = VoxelSpacing(1.0, 0.1, 0.1)
    pieces = components(np.random.default_rng(0).random((12, 60, 60)) < 0.4)
    specks = pieces == np.bincount(pieces[pieces > 0]).argmax()
    parts = split_at_waists(specks, spacing, params())
    assert np.array_equal(parts > 0, specks)
    sizes = np.bincount(parts.ravel())[1:]
    assert len(sizes) == 1 or sizes.min() >= spacing.voxels_in(0.03)


STEPS = [
    # spacing, radius, share of random directions and places that must be right
    (FINE, 0.2, 0.9),
    (FINE, 0.4, 1.0),
    (VoxelSpacing(0.15, 0.065, 0.065), 0.2, 0.9),
    (VoxelSpacing(0.15, 0.065, 0.065), 0.3, 1.0),
    (CONFOCAL, 0.3, 0.85),
    (CONFOCAL, 0.4, 0.95),
]


@pytest.mark.parametrize(("spacing", "radius", "share"), STEPS)
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.2])
def test_spheres_that_touch_are_told_apart_whatever_their_direction_and_place(
    spacing, radius, share, overlap
):
    if spacing == CONFOCAL and overlap == 0.2:
        share = 0.5 if radius < 0.4 else 0.9
    rng = np.random.default_rng(1)
    right = [
        touching_is_right(rng, spacing, radius, overlap, min_spine_volume_um3=0.015)
        for _ in range(20)
    ]
    assert np.mean(right) >= share


def touching_is_right(rng, spacing, radius, overlap, **changes):
    unit = rng.normal(size=3)
    way = unit / np.linalg.norm(unit) * radius * (1 - overlap)
    middle = 4 * radius + rng.uniform(-0.5, 0.5, 3) * spacing.zyx
    both = [Scene((8 * radius,) * 3, spacing).ball(middle + s * way, radius) for s in (-1, 1)]
    scene = Scene((8 * radius,) * 3, spacing)
    scene.classes = np.maximum(both[0].classes, both[1].classes)
    labels = instances(scene, **changes)
    only = [labels[(one.classes > 0) & (other.classes == 0)] for one, other in (both, both[::-1])]
    owners = [np.bincount(voxels, minlength=1).argmax() for voxels in only]
    share = [np.mean(voxels == owner) for voxels, owner in zip(only, owners, strict=True)]
    return labels.max() == 2 and owners[0] != owners[1] and min(share) > 0.8


SHAPES = ["ball", "ellipsoid", "mushroom", "flared", "bent", "stubby"]


@pytest.mark.parametrize("spacing", [FINE, VoxelSpacing(0.15, 0.065, 0.065), CONFOCAL])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_spine_of_any_shape_stays_one(spacing, shape):
    rng = np.random.default_rng(2)
    whole = [single(shape, rng, spacing) for _ in range(20)]
    parts = [instances(scene, 1).max() for scene in whole if one_component(scene)]
    assert np.mean(np.equal(parts, 1)) >= 0.9


def one_component(scene):
    return instances(scene, 1, spine_splitting="connected").max() == 1


def single(shape, rng, spacing):
    """A spine of random size, direction and place in a cube of 3 µm; all in one class."""
    scene = Scene((3, 3, 3), spacing)
    middle = 1.5 + rng.uniform(-0.5, 0.5, 3) * spacing.zyx
    unit = rng.normal(size=3)
    unit /= np.linalg.norm(unit)
    side = np.cross(unit, rng.normal(size=3))
    side /= np.linalg.norm(side)
    if shape == "ball":
        return scene.ball(middle, rng.uniform(0.2, 0.5))
    if shape == "ellipsoid":
        radius, reach = rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.25)
        for t in np.linspace(-1, 1, 15):
            scene.ball(middle + t * reach * unit, radius * np.sqrt(1 - 0.7 * t * t))
        return scene
    if shape == "stubby":
        half = rng.uniform(0.1, 0.4) * unit
        return scene.tube(middle - half, middle + half, rng.uniform(0.2, 0.3), 1)
    if shape == "bent":
        radius, bend = rng.uniform(0.12, 0.25), rng.uniform(0.6, 1.0)
        for angle in np.linspace(-0.6, 0.6, 25):
            there = bend * (np.sin(angle) * unit + (np.cos(angle) - 0.8) * side)
            scene.ball(middle + there, radius)
        return scene
    head, neck = rng.uniform(0.25, 0.4), rng.uniform(0.1, 0.14)
    foot = middle - 0.8 * unit
    scene.ball(middle + 0.4 * unit, head).tube(middle + 0.4 * unit, foot, neck, 1)
    return scene if shape == "mushroom" else scene.ball(foot, 1.8 * neck)


def test_spines_without_a_waist_are_split_where_the_image_darkens():
    scene = Scene((2, 2, 4), FINE).tube((1, 1, 1), (1, 1, 3), 0.4, SPINE)
    image = ClassImage(scene.classes, SCHEMES[3])
    x_um = np.arange(scene.classes.shape[2]) * FINE.x_um
    two = np.exp(-(((x_um - 1.4) / 0.4) ** 2)) + np.exp(-(((x_um - 2.6) / 0.4) ** 2))
    heads = image.mask(*HEAD_ROLES)
    for grey, count in ((1000 * two, 2), (np.full_like(two, 500), 1)):
        light = np.broadcast_to(grey, heads.shape).astype(np.uint16)
        assert divide(heads, None, light, FINE, params()).max() == count
        assert divide(heads, None, light, FINE, params(spine_splitting="connected")).max() == 1

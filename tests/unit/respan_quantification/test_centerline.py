import math

import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import (
    CONFOCAL,
    FINE,
    SPINE,
    TENFOLD,
    TWO_PHOTON,
    Scene,
)

from respan_common.geometry import VoxelSpacing
from respan_quantification.dendrites import grow_trees
from respan_quantification.objects import components

ORIENTATIONS = [
    (0, 0, 1),
    (0, 1, 0),
    (1, 0, 0),
    (0, 1, 1),
    (1, 0, 1),
    (1, 1, 1),
    (1, 2, 8),
    (3, 1, 4),
]


def trees_of(mask, spacing):
    return grow_trees(components(mask), spacing, {}, lambda: None)


def tube_tree(direction, length, spacing, shift, radius=0.5):
    """Tree of a straight tube; `shift` of its middle is in voxels."""
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    size = np.abs(unit) * length + 2 * radius + 2.0
    middle = size / 2 + np.asarray(shift) * spacing.zyx
    scene = Scene(size, spacing)
    mask = scene.tube_mask(middle - unit * length / 2, middle + unit * length / 2, radius)
    (tree,) = trees_of(mask, spacing).values()
    return tree


def mean_length(direction, length, spacing, draws=3):
    """Mean over sub-voxel shifts: one placement alone may gain or lose a slice at each end."""
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-0.5, 0.5, (draws, 3))
    return np.mean([tube_tree(direction, length, spacing, shift).length_um for shift in shifts])


@pytest.mark.parametrize(
    ("direction", "length", "spacing"),
    [
        ((0, 0, 1), 16.0, FINE),
        ((0, 1, 1), 14.14, FINE),
        ((1, 1, 1), 16.25, FINE),
        ((10, 0, 8), 12.81, CONFOCAL),
        ((10, 0, 8), 12.81, TWO_PHOTON),
    ],
)
def test_known_tubes_are_measured_within_one_percent(direction, length, spacing):
    assert mean_length(direction, length, spacing) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL, TENFOLD])
@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_tube_has_its_length_in_any_orientation_and_anisotropy(direction, spacing):
    tree = tube_tree(direction, 16, spacing, (0.2, 0.3, -0.4), radius=0.6)
    # Half a slice at each end is all that the voxels leave open.
    open_um = spacing.z_um * abs(direction[0]) / np.linalg.norm(direction)
    assert tree.length_um == pytest.approx(16, abs=0.01 * 16 + open_um / 2)
    assert tree.branches == 1


def arc_mask(radius_um, spacing):
    """Three quarters of a ring in the plane, 0.5 µm thick."""
    z, y, x = np.meshgrid(
        *[
            np.arange(0, 2 * size, edge)
            for size, edge in zip((1.5, 5.5, 5.5), spacing.zyx, strict=True)
        ],
        indexing="ij",
        sparse=True,
    )
    y, x = y - 5.5, x - 5.5
    ring = (np.hypot(y, x) - radius_um) ** 2 + (z - 1.5) ** 2 <= 0.5**2
    return ring & ~((y > 0) & (x > 0))


def test_a_bent_dendrite_has_the_length_of_its_arc():
    (tree,) = trees_of(arc_mask(4.0, CONFOCAL), CONFOCAL).values()
    assert tree.length_um == pytest.approx(1.5 * math.pi * 4.0, rel=0.02)


def test_a_fork_has_three_branches_and_their_lengths():
    scene = Scene((3, 20, 20), FINE)
    fork = (1.5, 10, 10)
    mask = scene.tube_mask((1.5, 10, 1), fork, 0.5)
    mask |= scene.tube_mask(fork, (1.5, 16, 16), 0.5) | scene.tube_mask(fork, (1.5, 4, 16), 0.5)
    (tree,) = trees_of(mask, FINE).values()
    assert tree.branches == 3
    assert tree.length_um == pytest.approx(9 + 2 * math.hypot(6, 6), rel=0.03)


def test_a_dendrite_smeared_along_z_has_no_spurs():
    z, y, x = np.meshgrid(
        np.arange(24) * 0.3, np.arange(60) * 0.1, np.arange(160) * 0.1, indexing="ij"
    )
    mask = ((z - 3.5) / 1.5) ** 2 + ((y - 3) / 0.4) ** 2 <= 1
    (tree,) = trees_of(mask & (x > 1) & (x < 15), CONFOCAL).values()
    assert tree.branches == 1
    assert tree.length_um == pytest.approx(13.9, rel=0.02)


def test_bumps_smaller_than_the_radius_make_no_branch():
    scene = Scene((3, 4, 12), FINE).tube((1.5, 2, 1), (1.5, 2, 11), 0.5, SPINE)
    for x in (3, 5, 7, 9):
        scene.ball((1.5, 2.5, x), 0.3)
    (tree,) = trees_of(scene.classes > 0, FINE).values()
    assert tree.branches == 1
    assert tree.length_um == pytest.approx(10, rel=0.02)


def test_doubling_the_spacing_doubles_every_length():
    rng = np.random.default_rng(1)
    shift = rng.uniform(-0.5, 0.5, 3)
    once = tube_tree((1, 2, 3), 10, CONFOCAL, shift)
    twice = tube_tree((1, 2, 3), 20, VoxelSpacing(0.6, 0.2, 0.2), shift, radius=1.0)
    assert twice.length_um == pytest.approx(2 * once.length_um, rel=0.01)
    assert twice.radius_um.max() == pytest.approx(2 * once.radius_um.max(), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (2, 2, 2), (1, 30, 30), (3, 1, 40)])
def test_even_a_dot_or_a_block_has_a_tree(shape):
    (tree,) = trees_of(np.ones(shape, bool), FINE).values()
    assert len(tree.points_um) >= 1
    assert np.isfinite(tree.points_um).all()
    assert 0 <= tree.length_um <= 1.5 * np.linalg.norm(np.multiply(shape, FINE.zyx))


def test_the_radius_of_a_tube_is_its_radius():
    tree = tube_tree((0, 1, 2), 12, FINE, (0, 0, 0), radius=0.7)
    assert np.median(tree.radius_um) == pytest.approx(0.7, abs=0.06)


def test_parents_come_before_their_children():
    (tree,) = trees_of(arc_mask(4.0, FINE), FINE).values()
    assert tree.parents[0] == -1
    assert (tree.parents[1:] < np.arange(1, len(tree.parents))).all()
    assert (tree.parents[1:] >= 0).all()

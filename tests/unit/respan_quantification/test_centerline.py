import math

import numpy as np
import pytest
from tests.unit.respan_quantification.dendrite_phantoms import (
    CONFOCAL,
    FINE,
    TENFOLD,
    TWO_PHOTON,
    arc,
    ball,
    curve_length,
    grown,
    helix,
    line,
    rotation,
    tube,
    union,
)

from respan_common.geometry import VoxelSpacing

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


def turned(curve, seed, spacing):
    """A curve at a random orientation and place within the voxel."""
    rng = np.random.default_rng(seed)
    return curve @ rotation(rng).T + rng.uniform(-0.5, 0.5, 3) * spacing.zyx


def tube_tree(direction, length, spacing, shift, radius=0.5):
    """Tree of a straight tube; `shift` of its middle is in voxels."""
    half = np.asarray(direction, float) / np.linalg.norm(direction) * length / 2
    middle = np.asarray(shift) * spacing.zyx
    return grown(tube(line(middle - half, middle + half), radius, spacing), spacing)


def mean_length(direction, length, spacing):
    """Mean over sub-voxel shifts: one placement alone may gain or lose a slice at each end."""
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (3 if spacing is FINE else 10, 3))
    return np.mean([tube_tree(direction, length, spacing, shift).length_um for shift in shifts])


@pytest.mark.parametrize(
    ("direction", "length", "spacing"),
    [
        ((0, 0, 1), 16.0, FINE),
        ((0, 1, 1), 14.14, FINE),
        ((1, 1, 1), 16.25, FINE),
        ((10, 0, 8), 12.81, CONFOCAL),
        ((10, 0, 8), 12.81, TWO_PHOTON),
        ((9, 1, 3), 24.3, TWO_PHOTON),
    ],
)
def test_known_tubes_are_measured_within_one_percent(direction, length, spacing):
    assert mean_length(direction, length, spacing) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("direction", [(-0.166, 0.778, 0.606), (-0.1, 0.8, 0.6)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.4, 0.3), (0.7, 0.1, 0.2)])
def test_a_tube_through_two_or_three_coarse_slices_ends_where_its_voxels_do(direction, shift):
    length_um = tube_tree(direction, 16.0, TENFOLD, shift).length_um
    assert length_um == pytest.approx(16.0, rel=0.015)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL, TENFOLD])
@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_tube_has_its_length_in_any_orientation_and_anisotropy(direction, spacing):
    tree = tube_tree(direction, 16, spacing, (0.2, 0.3, -0.4), radius=0.6)
    # Half a slice at each end is all that the voxels leave open; an oblique dendrite in coarse
    # slices is a stair besides, of which a little stays.
    open_um = spacing.z_um * abs(direction[0]) / np.linalg.norm(direction)
    stair = 0.01 if spacing is TENFOLD and 0 < direction[0] < 2 else 0.0
    assert tree.length_um == pytest.approx(16, abs=(0.01 + stair) * 16 + open_um / 2)
    assert tree.branches == 1


@pytest.mark.parametrize("tilt_deg", [0, 5, 12, 20, 30])
def test_steep_dendrites_in_coarse_slices_are_right_on_average(tilt_deg):
    rng, tilt, errors = np.random.default_rng(tilt_deg), math.radians(tilt_deg), []
    for _ in range(8):
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(19, 21)
        direction = (
            math.cos(tilt),
            math.sin(tilt) * math.cos(turn),
            math.sin(tilt) * math.sin(turn),
        )
        shift = rng.uniform(-0.5, 0.5, 3)
        errors.append(tube_tree(direction, length, TENFOLD, shift).length_um - length)
    # Both ends lie anywhere within a slice: one length is uncertain by 0.4 µm, eight by 0.15 µm.
    assert abs(np.mean(errors)) < 0.01 * 20 + 0.15
    assert np.max(np.abs(errors)) < 1.05


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize("bend_radii", [4, 8])
def test_a_bent_dendrite_has_the_length_of_its_arc(bend_radii, spacing):
    curve = turned(arc(bend_radii * 0.6, min(20 / bend_radii / 0.6, 4.5)), bend_radii, spacing)
    tree = grown(tube(curve, 0.6, spacing), spacing)
    # Each free end bends outward by a few hundredths of a micrometer: see docs/measurements.md.
    open_um = 0.1 + spacing.z_um / 4
    assert tree.length_um == pytest.approx(curve_length(curve), abs=open_um)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
def test_a_helix_has_its_length(spacing):
    curve = turned(helix(2.5, 8.0, 1.5), 1, spacing)
    tree = grown(tube(curve, 0.5, spacing), spacing)
    assert tree.length_um == pytest.approx(curve_length(curve), rel=0.01)


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize("angles", [(30, 30), (60, 60), (0, 90), (0, 45)])
def test_a_fork_has_three_branches_and_their_lengths(angles, spacing):
    one, other = np.radians(angles) * (1, -1)
    ends = [(0, 0, -10.0)] + [(0, 10 * np.sin(a), 10 * np.cos(a)) for a in (one, other)]
    arms = [turned(line((0, 0, 0), end), 3, spacing) for end in ends]
    joint = ball(arms[0][0], 0.5, spacing)
    tree = grown(union(joint, *(tube(arm, 0.5, spacing) for arm in arms)), spacing)
    assert tree.branches == 3
    assert tree.length_um == pytest.approx(30, rel=0.01)
    assert [row["length_um"] for row in tree.branches_table()] == pytest.approx([10] * 3, abs=0.7)


def test_a_dendrite_smeared_along_z_has_no_spurs():
    z, y, x = np.meshgrid(
        np.arange(24) * 0.3, np.arange(60) * 0.1, np.arange(160) * 0.1, indexing="ij"
    )
    mask = ((z - 3.5) / 1.5) ** 2 + ((y - 3) / 0.4) ** 2 <= 1
    tree = grown(np.argwhere(mask & (x > 1) & (x < 15)), CONFOCAL)
    assert tree.branches == 1
    assert tree.length_um == pytest.approx(13.9, rel=0.02)


def test_bumps_smaller_than_the_radius_make_no_branch():
    bumps = [ball((0, 0.5, x), 0.3, FINE) for x in (2, 4, 6, 8)]
    tree = grown(union(tube(line((0, 0, 0), (0, 0, 10)), 0.5, FINE), *bumps), FINE)
    assert tree.branches == 1
    assert tree.length_um == pytest.approx(10.1, rel=0.02)


def test_free_tips_reach_the_surface():
    tree = tube_tree((1, 2, 3), 10, FINE, (0.1, 0.2, 0.3))
    ends = np.linalg.norm(
        tree.points_um[[0, tree.tips[0]]] - 0.1 * np.array([0.1, 0.2, 0.3]), axis=1
    )
    assert ends == pytest.approx([5, 5], abs=0.06)


def test_doubling_the_spacing_doubles_every_length():
    shift = np.random.default_rng(1).uniform(-0.5, 0.5, 3)
    once = tube_tree((1, 2, 3), 10, CONFOCAL, shift)
    twice = tube_tree((1, 2, 3), 20, VoxelSpacing(0.6, 0.2, 0.2), shift, radius=1.0)
    assert twice.length_um == pytest.approx(2 * once.length_um, rel=0.01)
    assert twice.radius_um.max() == pytest.approx(2 * once.radius_um.max(), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (2, 2, 2), (1, 30, 30), (3, 1, 40)])
def test_even_a_dot_or_a_block_has_a_tree(shape):
    tree = grown(np.argwhere(np.ones(shape, bool)), FINE, margin=0)
    assert len(tree.points_um) >= 1
    assert np.isfinite(tree.points_um).all()
    assert 0 <= tree.length_um <= 1.5 * np.linalg.norm(np.multiply(shape, FINE.zyx))
    assert len(tree.branches_table()) == tree.branches >= 1


def test_the_radius_of_a_tube_is_its_radius():
    tree = tube_tree((0, 1, 2), 12, FINE, (0, 0, 0), radius=0.7)
    assert np.median(tree.radius_um) == pytest.approx(0.7, abs=0.06)


def test_parents_come_before_their_children():
    tree = grown(tube(arc(4.0, 4.5), 0.5, FINE), FINE)
    assert tree.parents[0] == -1
    assert (tree.parents[1:] < np.arange(1, len(tree.parents))).all()
    assert (tree.parents[1:] >= 0).all()

import numpy as np
import pytest
from tests.unit.respan_quantification.dendrite_phantoms import (
    CONFOCAL,
    FINE,
    arc,
    ball,
    curve_length,
    grown,
    line,
    rotation,
    tube,
    union,
)


def ring_with_tails(radius, spacing, seed=0):
    """A dendrite that splits around a round hole and goes on as one."""
    turn = rotation(np.random.default_rng(seed)).T
    curves = [
        arc(radius, 2 * np.pi),
        line((0, 0, radius), (0, 0, radius + 6)),
        line((0, 0, -radius), (0, 0, -radius - 6)),
    ]
    return union(*(tube(curve @ turn, 0.5, spacing) for curve in curves)), curves


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize("radius", [2.0, 4.0])
def test_a_dendrite_around_a_hole_has_one_loop_and_nearly_its_length(radius, spacing):
    voxels, curves = ring_with_tails(radius, spacing)
    tree = grown(voxels, spacing)
    assert tree.loops == 1
    assert tree.length_um == pytest.approx(sum(map(curve_length, curves)), rel=0.08)


def test_two_holes_are_two_loops():
    middle = [
        line((0, -8, 0), (0, 8, 0)),
        line((0, -8, 5), (0, 8, 5)),
        line((0, -8, 10), (0, 8, 10)),
    ]
    rungs = [line((0, y, 0), (0, y, 10)) for y in (-8, 8)]
    tree = grown(union(*(tube(curve, 0.5, FINE) for curve in middle + rungs)), FINE)
    assert tree.loops == 2


@pytest.mark.parametrize("angle_deg", [15, 30, 60, 120])
def test_a_fork_is_no_loop(angle_deg):
    angle = np.radians(angle_deg)
    ends = [(0, 0, -8.0), (0, 0, 9), (0, 9 * np.sin(angle), 9 * np.cos(angle))]
    arms = [tube(line((0, 0, 0), end), 0.5, FINE) for end in ends]
    assert grown(union(ball((0, 0, 0), 0.5, FINE), *arms), FINE).loops == 0


def test_a_tree_without_loops_has_none_at_any_orientation():
    rng = np.random.default_rng(3)
    for _ in range(3):
        turn = rotation(rng).T
        twigs = [line((0, 0, x), (0, 4 * side, x + 2)) for x, side in ((4, 1), (9, -1), (13, 1))]
        curves = [line((0, 0, 0), (0, 0, 18)), *twigs]
        voxels = union(*(tube(curve @ turn, 0.4, CONFOCAL) for curve in curves))
        assert grown(voxels, CONFOCAL).loops == 0


def test_a_small_hole_is_noise():
    voxels = tube(line((0, 0, 0), (0, 0, 10)), 0.6, FINE)
    away = np.linalg.norm(voxels[:, 1:] * 0.1 - [0.1, 5.0], axis=1)
    assert grown(voxels[away > 0.15], FINE).loops == 0


def test_a_ring_alone_is_one_loop():
    assert grown(tube(arc(3.0, 2 * np.pi), 0.5, FINE), FINE).loops == 1

import numpy as np
import pytest

from respan_quantification.sholl import Sholl
from respan_quantification.tree import Tree

NOWHERE = np.zeros((0, 3))


def path(*points):
    return Tree(np.array(points, float), np.arange(len(points)) - 1, np.ones(len(points)))


def star(arms, length):
    """Arms from the center outward; the root is the center."""
    angles = np.linspace(0, 2 * np.pi, arms, endpoint=False)
    tips = [(0, length * np.sin(a), length * np.cos(a)) for a in angles]
    return Tree(np.array([(0, 0, 0), *tips]), np.array([-1] + [0] * arms), np.ones(arms + 1))


def test_a_star_crosses_every_sphere_once_per_arm():
    found = Sholl.of(star(5, 42.0), NOWHERE, np.zeros(3), 10.0)
    assert found.intersections.tolist() == [5, 5, 5, 5, 0]
    assert found.length_um == pytest.approx([50, 50, 50, 50, 10])


def test_a_chord_crosses_the_spheres_that_it_dips_into_twice():
    found = Sholl.of(path((0, 6, -8), (0, 6, 8)), NOWHERE, np.zeros(3), 4.0)
    # Distances fall from 10 to 6 and rise again: 8 is met twice, 4 never.
    assert found.intersections.tolist() == [0, 2, 0]
    inner = 2 * np.sqrt(64 - 36)
    assert found.length_um == pytest.approx([0, inner, 16 - inner])


def test_dividing_a_centerline_changes_nothing():
    ends = np.array([(1.0, -30, 4), (2, 25, 7)])
    share = np.sort(np.random.default_rng(0).uniform(0, 1, 50))[:, None]
    fine = np.concatenate([ends[:1], ends[0] + share * (ends[1] - ends[0]), ends[1:]])
    whole = Sholl.of(path(*ends), NOWHERE, np.zeros(3), 1.7)
    parts = Sholl.of(path(*fine), NOWHERE, np.zeros(3), 1.7)
    assert whole.intersections.tolist() == parts.intersections.tolist()
    assert whole.length_um == pytest.approx(parts.length_um, abs=1e-9)


def test_shells_hold_the_whole_length_of_any_tree():
    rng = np.random.default_rng(1)
    parents = np.array([-1] + [rng.integers(0, n) for n in range(1, 60)])
    tree = Tree(rng.normal(scale=20, size=(60, 3)), parents, np.ones(60))
    found = Sholl.of(tree, NOWHERE, np.array([3.0, 4, 5]), 2.5)
    assert found.length_um.sum() == pytest.approx(tree.length_um)


def test_spines_are_counted_in_their_shell():
    spines = np.array([(0, 0, 0.0), (0, 5, 0), (0, 10, 0), (0, 10.1, 0), (0, 0, -25)])
    found = Sholl.of(star(1, 12.0), spines, np.zeros(3), 10.0)
    assert found.spines.tolist() == [3, 1, 1]


def test_the_dendrites_of_a_soma_add_up():
    parts = [Sholl.of(star(n, size), NOWHERE, np.zeros(3), 10.0) for n, size in ((2, 15), (3, 35))]
    both = Sholl.total(parts)
    assert both.intersections.tolist() == [5, 3, 3, 0]
    rows = both.rows(soma_id=4)
    assert [row["radius_um"] for row in rows] == [10, 20, 30, 40]
    assert rows[0]["soma_id"] == 4
    assert rows[0]["dendrite_id"] is None
    assert rows[1]["length_um"] == pytest.approx(40)
    assert rows[1]["spines_per_um"] == 0


def test_a_dot_has_an_empty_shell():
    (row,) = Sholl.of(path((1, 1, 1)), NOWHERE, np.array([1.0, 1, 1]), 10.0).rows()
    assert (row["intersections"], row["length_um"]) == (0, 0)
    assert np.isnan(row["spines_per_um"])

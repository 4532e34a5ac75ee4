import numpy as np
import pandas as pd
import pytest

from respan_quantification.tree import Tree
from respan_quantification.twigs import without_necks

STEM_UM, THICK_UM = 12.0, 0.5


def with_twig(length_um, radius_um=0.2):
    """A stem along x, and a twig along y from its middle; both of steps of about 0.25 µm."""
    x = np.arange(0, STEM_UM + 0.1, 0.25)
    y = np.linspace(0, length_um, max(int(length_um / 0.25), 2) + 1)[1:]
    stem = np.column_stack([np.zeros_like(x), np.zeros_like(x), x])
    twig = np.column_stack([np.zeros_like(y), y, np.full_like(y, STEM_UM / 2)])
    parents = np.r_[np.arange(len(x)) - 1, int(STEM_UM / 2 / 0.25), len(x) + np.arange(len(y) - 1)]
    radius = np.r_[np.full(len(x), THICK_UM), np.full(len(y), radius_um)]
    return Tree(np.concatenate([stem, twig]), parents, radius, loops=1, soma_id=7)


def spines(*y_um):
    """Spines with bases above the twig's axis at these distances from the stem's."""
    rows = [(0.1, y, STEM_UM / 2) for y in y_um]
    return pd.DataFrame(rows, columns=["base_z_um", "base_y_um", "base_x_um"], dtype=float)


def test_a_thin_twig_with_a_spine_at_its_tip_is_a_neck():
    tree = without_necks(with_twig(1.5), spines(1.6))
    assert tree.length_um == pytest.approx(STEM_UM)
    assert tree.branches == 1
    assert (tree.loops, tree.soma_id) == (1, 7)
    np.testing.assert_array_equal(tree.parents, np.arange(len(tree.parents)) - 1)


def test_a_spine_on_the_stem_beside_the_neck_changes_nothing():
    assert without_necks(with_twig(1.5), spines(1.6, 0.8)).branches == 1


@pytest.mark.parametrize(
    ("twig", "found"),
    [
        (with_twig(1.5), spines()),
        (with_twig(1.5), spines(0.2)),
        (with_twig(1.5, radius_um=0.65), spines(1.6)),
        (with_twig(4.0), spines(4.1)),
        (with_twig(3.4), spines(3.5, 1.08)),
        (with_twig(1.5), spines(np.nan)),
    ],
    ids=["no spine", "spine elsewhere", "thick", "long", "one more spine", "spine without a base"],
)
def test_other_twigs_are_branches(twig, found):
    assert without_necks(twig, found) is twig


def test_a_neck_that_forks_goes_with_both_heads():
    tree = with_twig(1.0)
    tip = tree.points_um[-1]
    arms = tip + np.array([(0, 0.3, 0.4), (0, 0.3, -0.4)])
    count = len(tree.parents)
    forked = Tree(
        np.concatenate([tree.points_um, arms]),
        np.r_[tree.parents, count - 1, count - 1],
        np.r_[tree.radius_um, 0.15, 0.15],
    )
    bases = pd.DataFrame(arms, columns=["base_z_um", "base_y_um", "base_x_um"])
    assert forked.branches == 5
    assert without_necks(forked, bases).length_um == pytest.approx(STEM_UM)


def test_a_dot_and_a_stem_stay_as_they_are():
    dot = Tree(np.zeros((1, 3)), np.array([-1]), np.ones(1))
    stem = Tree(np.array([(0, 0, 0), (0, 0, 1.0)]), np.array([-1, 0]), np.ones(2))
    assert without_necks(dot, spines(0.0)) is dot
    assert without_necks(stem, spines(0.0)) is stem

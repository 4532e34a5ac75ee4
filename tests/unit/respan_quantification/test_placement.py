import numpy as np
import pandas as pd
import pytest
from tests.unit.respan_quantification.dendrite_phantoms import rotation

from respan_quantification.placement import COLUMNS, place
from respan_quantification.tree import Tree


def shaft(start, stop, **more):
    """A straight dendrite of 21 nodes, 0.5 µm thick."""
    points = np.linspace(start, stop, 21)
    return Tree(points.astype(float), np.arange(21) - 1, np.full(21, 0.5), **more)


def spines(bases, heads, length=1.0):
    table = pd.DataFrame({"spine_length": np.full(len(heads), length)}, np.arange(len(heads)) + 7)
    for axis, name in enumerate("zyx"):
        table[f"base_{name}_um"] = np.array(bases, float)[:, axis]
        table[f"{name}_um"] = np.array(heads, float)[:, axis]
    return table


def around(tree, ways, at):
    bases = np.array(at) + 0.5 * np.array(ways, float)
    return place(spines(bases, bases + ways), tree)["angle_around_shaft_deg"].to_numpy()


def test_a_spine_lies_where_its_base_does():
    tree = shaft((0, 0, 0), (0, 0, 10), soma_id=2, soma_gap_um=0.3)
    placed = place(spines([(0.5, 0, 4)], [(1.5, 0, 9)]), tree)
    assert placed.index.tolist() == [7]
    assert tuple(placed.columns) == COLUMNS
    row = placed.loc[7]
    assert (row["branch_id"], row["branch_order"]) == (1, 1)
    assert row["position_on_dendrite_um"] == row["position_on_branch_um"] == pytest.approx(4)
    assert row["geodesic_dist_to_soma"] == pytest.approx(4.3)
    assert row["spine_length_from_center_um"] == pytest.approx(1.5)


@pytest.mark.parametrize("lean", [0, 17, 45, 90])
@pytest.mark.parametrize("seed", range(5))
def test_the_angle_to_the_shaft_is_that_of_base_and_head_at_any_orientation(lean, seed):
    turn = rotation(np.random.default_rng(seed))
    tree = shaft(turn @ (0, 0, -5), turn @ (0, 0, 5))
    angle = np.radians(lean)
    base = turn @ (0.5, 0, 0)
    heads = [base + turn @ (np.sin(angle), 0, sign * np.cos(angle)) for sign in (1, -1)]
    placed = place(spines([base, base], heads), tree)
    assert placed["angle_to_shaft_deg"].to_numpy() == pytest.approx([lean, lean], abs=1e-6)


def test_around_a_shaft_along_x_zero_is_plus_z_and_the_turn_is_right_handed():
    tree = shaft((0, 0, 0), (0, 0, 10))
    # x (axis) × z (zero) = -y, so a quarter turn points along -y.
    ways = [(1, 0, 0), (0, -1, 0), (-1, 0, 0), (0, 1, 0)]
    assert around(tree, ways, (0, 0, 5)) == pytest.approx([0, 90, 180, 270], abs=1e-9)


def test_a_shaft_that_runs_the_other_way_turns_the_other_way():
    tree = shaft((0, 0, 10), (0, 0, 0))
    assert around(tree, [(1, 0, 0), (0, -1, 0)], (0, 0, 5)) == pytest.approx([0, 270], abs=1e-9)


def test_around_a_shaft_along_z_zero_is_plus_y():
    tree = shaft((0, 0, 0), (10, 0, 0))
    # z (axis) × y (zero) = -x.
    ways = [(0, 1, 0), (0, 0, -1), (0, -1, 0), (0, 0, 1)]
    assert around(tree, ways, (5, 0, 0)) == pytest.approx([0, 90, 180, 270], abs=1e-9)


def test_around_an_oblique_shaft_zero_is_plus_z_across_it():
    axis = np.array([1.0, 1, 1]) / np.sqrt(3)
    zero = np.array([1.0, 0, 0]) - axis / np.sqrt(3)
    zero /= np.linalg.norm(zero)
    quarter = np.cross(axis[::-1], zero[::-1])[::-1]
    asked = np.radians([0, 30, 135, 250])
    ways = np.cos(asked)[:, None] * zero + np.sin(asked)[:, None] * quarter
    tree = shaft(-5 * axis, 5 * axis)
    assert around(tree, ways, (0, 0, 0)) == pytest.approx([0, 30, 135, 250], abs=1e-6)


def test_without_a_base_the_head_is_placed_and_the_rest_is_missing():
    nowhere = [(np.nan, np.nan, np.nan)]
    row = place(spines(nowhere, [(1, 0, 6)], np.nan), shaft((0, 0, 0), (0, 0, 10))).loc[7]
    assert row["position_on_dendrite_um"] == pytest.approx(6)
    missing = row[["geodesic_dist_to_soma", *COLUMNS[5:]]]
    assert missing.isna().all()


def test_a_dot_has_no_axis_and_no_spines_no_rows():
    dot = Tree(np.zeros((1, 3)), np.array([-1]), np.ones(1))
    row = place(spines([(0, 0, 1)], [(0, 0, 2)]), dot).loc[7]
    assert row["position_on_dendrite_um"] == 0
    assert row[["angle_to_shaft_deg", "angle_around_shaft_deg"]].isna().all()
    assert len(place(spines([(0, 0, 1)], [(0, 0, 2)]).iloc[:0], dot)) == 0

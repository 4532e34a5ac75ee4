import numpy as np
import pytest

from respan_quantification.tree import Tree


def of(points, parents, **more):
    return Tree(np.array(points, float), np.array(parents), np.ones(len(points)), **more)


def a_fork():
    """A stem of 4 µm along x; arms of 3 µm along +y and 2 µm along -y; a twig of 1 µm on the first.

    Nodes: 0 root, 1, 2 fork, 3, 4 fork of the first arm, 5 its tip, 6 second arm's tip, 7 twig.
    """
    x, y = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    fork = 4 * x
    points = [0 * x, 2 * x, fork, fork + y, fork + 2 * y, fork + 3 * y, fork - 2 * y]
    return of([*points, fork + 2 * y + x], [-1, 0, 1, 2, 3, 4, 2, 4])


def test_branches_are_the_stretches_between_root_forks_and_tips():
    tree = a_fork()
    assert tree.branches == 5
    assert tree.branch.tolist() == [1, 1, 1, 2, 2, 3, 4, 5]
    assert tree.forks.tolist() == [2, 4]
    assert tree.tips.tolist() == [5, 6, 7]
    assert tree.length_um == 10


def test_the_table_tells_each_branch_from_its_parent_to_its_end():
    rows = a_fork().branches_table()
    assert [row["branch_id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["parent_branch_id"] for row in rows] == [0, 1, 2, 1, 2]
    assert [row["branch_order"] for row in rows] == [1, 2, 3, 2, 3]
    assert [row["length_um"] for row in rows] == [4, 2, 1, 2, 1]
    assert [row["start"] for row in rows] == ["root", "fork", "fork", "fork", "fork"]
    assert [row["end"] for row in rows] == ["fork", "fork", "tip", "tip", "tip"]
    assert (rows[3]["start_x_um"], rows[3]["end_y_um"]) == (4, -2)
    assert rows[0]["mean_radius_um"] == 1


def test_branches_at_the_root_are_of_first_order():
    tree = of([(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 0, 2)], [-1, 0, 0, 1])
    assert tree.branch.tolist() == [1, 1, 2, 1]
    assert [row["branch_order"] for row in tree.branches_table()] == [1, 1]
    assert len(tree.forks) == 0


def test_a_point_lies_at_the_nearest_point_of_the_centerline():
    places = a_fork().place(np.array([[1, 0.5, 3.0], [0, 2.5, 3.0], [0, -9, 4.0], [0, 0, -1.0]]))
    assert places.branch.tolist() == [1, 3, 4, 1]
    assert places.order.tolist() == [1, 3, 2, 1]
    assert places.position_um == pytest.approx([3, 6.5, 6, 0])
    assert places.on_branch_um == pytest.approx([3, 0.5, 2, 0])
    assert places.center_um[:2] == pytest.approx(np.array([[0, 0, 3], [0, 2.5, 4]]))
    assert places.tangent[0] == pytest.approx([0, 0, 1])
    assert places.radius_um == pytest.approx(np.ones(4))


def test_a_point_beside_a_fork_belongs_to_the_branch_before_it():
    places = a_fork().place(np.array([[1.0, 0, 4]]))
    assert places.branch.tolist() == [1]
    assert places.position_um == pytest.approx([4])


def test_a_long_step_is_found_behind_the_nodes_of_short_ones():
    short = [(1, 0, x) for x in np.arange(0, 10, 0.1)]
    tree = of([(0, 0, -1), (0, 0, 20), *short], [-1, 0, 0, *range(2, 101)])
    places = tree.place(np.array([[0.4, 0, 5.0]]))
    assert places.branch.tolist() == [1]
    assert places.center_um == pytest.approx(np.array([[0, 0, 5.0]]))


def test_tangents_turn_smoothly_along_a_branch():
    angle = np.linspace(0, np.pi, 40)
    points = np.stack([0 * angle, 5 * np.sin(angle), -5 * np.cos(angle)], axis=1)
    tree = of(points, np.arange(40) - 1)
    asked = np.linspace(0.3, 2.8, 101)
    places = tree.place(6 * np.stack([0 * asked, np.sin(asked), -np.cos(asked)], axis=1))
    truth = np.stack([0 * asked, np.cos(asked), np.sin(asked)], axis=1)
    assert np.einsum("ij,ij->i", places.tangent, truth).min() > np.cos(np.radians(0.5))


def test_a_dot_has_one_branch_without_length():
    tree = of([(1, 2, 3)], [-1])
    assert tree.branches == 1
    (row,) = tree.branches_table()
    assert (row["length_um"], row["start"], row["end"]) == (0, "root", "tip")
    places = tree.place(np.zeros((2, 3)))
    assert places.position_um.tolist() == [0, 0]
    assert np.isnan(places.tangent).all()
    assert places.center_um.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_no_points_have_no_places():
    assert len(a_fork().place(np.zeros((0, 3))).position_um) == 0


def test_a_tree_comes_back_from_its_file(tmp_path):
    tree = of([(0, 0, 0), (0, 0, 1)], [-1, 0], loops=2, soma_id=3, soma_gap_um=0.25)
    tree.save(tmp_path / "one.npz")
    back = Tree.load(tmp_path / "one.npz")
    assert np.array_equal(back.points_um, tree.points_um)
    assert np.array_equal(back.parents, tree.parents)
    assert (back.loops, back.soma_id, back.soma_gap_um) == (2, 3, 0.25)

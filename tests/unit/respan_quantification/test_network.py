import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_quantification.network import Network, nearest_in_space_um
from respan_quantification.tree import Tree

FINE = VoxelSpacing(0.1, 0.1, 0.1)


def tree_of(points, parents, radius=0.5):
    points = np.asarray(points, np.float64)
    return Tree(points, np.asarray(parents, np.int64), np.full(len(points), radius))


def straight(length_um=100.0, nodes=401):
    points = np.zeros((nodes, 3))
    points[:, 2] = np.linspace(0, length_um, nodes)
    return Network(tree_of(points, np.arange(nodes) - 1))


def fork():
    """A stem of 10 µm along x, then arms of 6 µm along y and 8 µm along −y."""
    points = [(0, 0, 0), (0, 0, 5), (0, 0, 10), (0, 3, 10), (0, 6, 10), (0, -8, 10)]
    return Network(tree_of(points, [-1, 0, 1, 2, 3, 2]))


def arbor(seed, nodes=300):
    """A random tree whose nodes are joined by steps of up to a micrometer."""
    random = np.random.default_rng(seed)
    points, parents = np.zeros((nodes, 3)), np.full(nodes, -1)
    for node in range(1, nodes):
        # Mostly the last node, so that branches have inner nodes.
        parents[node] = node - 1 if random.random() < 0.9 else random.integers(node)
        points[node] = points[parents[node]] + random.normal(0, 0.4, 3)
    return Network(tree_of(points, parents))


def ways(network, feet):
    """All ways between feet, by walking from node to node."""
    tree, found = network.tree, np.zeros((len(feet), len(feet)))
    chains = []
    for step in feet.step:
        chain = [int(step)]
        while tree.parents[chain[-1]] >= 0:
            chain.append(int(tree.parents[chain[-1]]))
        chains.append(chain)
    for i, one in enumerate(chains):
        for j, other in enumerate(chains):
            common = max(set(one) & set(other), key=lambda node: tree.walked_um[node])
            meet = min(tree.walked_um[common], feet.walked_um[i], feet.walked_um[j])
            found[i, j] = feet.walked_um[i] + feet.walked_um[j] - 2 * meet
    return found


@pytest.mark.parametrize("seed", range(4))
def test_ways_are_those_of_a_walk_from_node_to_node(seed):
    network = arbor(seed)
    feet = network.random_feet(40, np.random.default_rng(seed))
    first, second = (index.ravel() for index in np.indices((40, 40)))
    found = network.distance_um(feet[first], feet[second]).reshape(40, 40)
    assert found == pytest.approx(ways(network, feet), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_foot_is_the_nearest_of_all(seed):
    network = arbor(seed)
    feet = network.random_feet(25, np.random.default_rng(seed))
    every = ways(network, feet) + np.diag(np.full(25, np.inf))
    assert network.nearest_um(feet) == pytest.approx(every.min(axis=1), abs=1e-9)


def test_feet_of_another_group_are_not_near():
    network = arbor(7)
    feet = network.random_feet(60, np.random.default_rng(1))
    groups = np.arange(60) % 3
    together = network.nearest_um(feet, groups)
    for group in range(3):
        alone = network.nearest_um(feet[np.flatnonzero(groups == group)])
        assert together[groups == group] == pytest.approx(alone)


def test_a_lone_foot_has_no_neighbor():
    network = straight()
    feet = network.feet(np.array([1]), np.array([3.0]))
    assert np.isinf(network.nearest_um(feet)).all()
    assert len(network.nearest_um(feet[[]])) == 0


def test_feet_lie_where_their_branch_and_way_say():
    network = fork()
    feet = network.feet(np.array([1, 1, 2, 3, 3]), np.array([0.0, 7.0, 11.0, 10.0, 18.0]))
    expected = [(0, 0, 0), (0, 0, 7), (0, 1, 10), (0, 0, 10), (0, -8, 10)]
    assert feet.points_um == pytest.approx(np.array(expected, float))
    assert feet.walked_um == pytest.approx([0, 7, 11, 10, 18])


@pytest.mark.parametrize("seed", range(3))
def test_pairs_within_a_radius_are_all_such_pairs(seed):
    network = arbor(seed)
    feet = network.random_feet(60, np.random.default_rng(seed))
    pairs, away = network.pairs_within(feet, 3.0, np.zeros(60, np.int64))
    every = np.triu(ways(network, feet) <= 3.0, 1)
    assert len(pairs) == every.sum()
    assert away == pytest.approx(ways(network, feet)[pairs[:, 0], pairs[:, 1]])


def test_the_window_is_shorter_at_a_tip_and_longer_at_a_fork():
    network = fork()
    feet = network.feet(np.array([1, 1, 1, 2]), np.array([0.0, 5.0, 9.0, 16.0]))
    _, length = network.around(feet, 2.0)
    assert length == pytest.approx([2, 4, 2 + 1 + 1 + 1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_windows_are_as_long_as_what_random_feet_find_there(seed):
    network = arbor(seed)
    random = np.random.default_rng(seed)
    feet = network.random_feet(10, random)
    darts = network.random_feet(60_000, random)
    total = network.steps_um.sum()
    _, length = network.around(feet, 2.5)
    for number in range(10):
        one = feet[np.full(len(darts), number)]
        share = (network.distance_um(one, darts) <= 2.5).mean()
        assert length[number] == pytest.approx(share * total, rel=0.13, abs=0.2)


def test_evenly_spaced_spines_have_their_density_everywhere_also_at_the_ends():
    network = straight(100.0)
    feet = network.feet(np.ones(100, np.int64), np.arange(100) + 0.5)
    others, length = network.around(feet, 5.0)
    assert others / length == pytest.approx(np.ones(100), abs=0.2)


def test_a_random_placement_has_its_density_on_average():
    network = arbor(3, 400)
    random = np.random.default_rng(0)
    densities = []
    for _ in range(20):
        others, length = network.around(network.random_feet(100, random), 3.0)
        densities.append((others / length).mean())
    expected = 99 / network.steps_um.sum()
    assert np.mean(densities) == pytest.approx(expected, rel=0.05)


def test_random_feet_are_spread_evenly_over_branches():
    network = fork()
    feet = network.random_feet(30_000, np.random.default_rng(0))
    shares = np.bincount(feet.branch, minlength=4)[1:] / len(feet)
    assert shares == pytest.approx(np.array([10, 6, 8]) / 24, abs=0.01)


def test_stretches_near_a_face_are_not_usable():
    points = np.zeros((401, 3))
    points[:, 0], points[:, 1], points[:, 2] = 5.0, 5.0, np.linspace(0, 40, 401)
    network = Network(tree_of(points, np.arange(401) - 1, radius=0.5))
    usable = network.usable((101, 101, 401), FINE)
    assert network.steps_um[usable].sum() == pytest.approx(35.1, abs=0.15)
    assert not network.usable((71, 101, 401), FINE).any(), "2.1 µm above it the image ends"


def test_a_single_plane_is_usable_though_its_faces_are_near():
    network = straight(40.0)
    points = network.tree.points_um + np.array([0.0, 5.0, 0.0])
    moved = Network(tree_of(points, network.tree.parents))
    assert moved.usable((1, 101, 401), FINE).any()


def test_a_dendrite_that_is_a_dot_has_no_window():
    network = Network(tree_of([(1, 1, 1)], [-1]))
    feet = network.feet(np.ones(2, np.int64), np.zeros(2))
    others, length = network.around(feet, 5.0)
    assert others.tolist() == [1, 1]
    assert length.tolist() == [0, 0]
    assert network.nearest_um(feet).tolist() == [0, 0]


def test_in_space_a_spine_of_another_dendrite_may_be_the_nearest():
    assert nearest_in_space_um(np.array([[0, 0, 0], [0, 0, 3], [0, 1, 3.0]])).tolist() == [3, 1, 1]
    assert np.isnan(nearest_in_space_um(np.zeros((1, 3)))).all()


def test_a_window_as_large_as_the_dendrite_holds_all_of_it():
    network = arbor(2, 300)
    feet = network.random_feet(30, np.random.default_rng(0))
    others, length = network.around(feet, 1000.0)
    assert others.tolist() == [29] * 30
    assert length == pytest.approx(np.full(30, network.steps_um.sum()))


def test_windows_do_not_depend_on_how_many_feet_are_looked_at_together(monkeypatch):
    network = arbor(6, 300)
    feet = network.random_feet(30, np.random.default_rng(0))
    at_once = network.around(feet, 2.0)
    monkeypatch.setattr("respan_quantification.network._CANDIDATES", 1000)
    one_by_one = network.around(feet, 2.0)
    assert one_by_one[0].tolist() == at_once[0].tolist()
    assert one_by_one[1] == pytest.approx(at_once[1])


def test_ways_do_not_depend_on_where_the_root_is():
    """A line with a side branch, rooted at either end of the line."""
    line, side = [(0, 0, x) for x in range(11)], [(0, y, 4) for y in range(1, 6)]
    one = tree_of([*line, *side], [*range(-1, 10), 4, *range(11, 15)])
    other = tree_of([*line[::-1], *side], [*range(-1, 10), 6, *range(11, 15)])
    targets = np.array([(0, 0, 0.5), (0, 0, 3.2), (0, 0, 9.9), (0, 3.3, 4), (0, 5, 4)], float)
    found = []
    for tree in (one, other):
        network, places = Network(tree), tree.place(targets)
        feet = network.feet(places.branch, places.position_um)
        first, second = (index.ravel() for index in np.indices((5, 5)))
        nearest, (others, length) = network.nearest_um(feet), network.around(feet, 3.0)
        ways_um = network.distance_um(feet[first], feet[second])
        found.append(np.concatenate([ways_um, nearest, others, length]))
    assert found[0] == pytest.approx(found[1])

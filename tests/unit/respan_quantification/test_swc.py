import warnings

import numpy as np
import pytest
from tests.unit.respan_quantification.dendrite_phantoms import FINE, ball, grown, line, tube, union

from respan_quantification.growth import Contact
from respan_quantification.swc import Heads, Soma, SwcFile, write_single_files
from respan_quantification.tree import Tree

CELL = {5: Soma((3.0, 4.0, 7.0), 1.5)}


def a_fork(end=(0.0, 0, 8), soma_id=0):
    arms = [(end, (0, 0, 0)), ((0, 0, 0), (0, 5, -4)), ((0, 0, 0), (0, -5, -4))]
    voxels = union(ball((0, 0, 0), 0.5, FINE), *(tube(line(*arm), 0.5, FINE) for arm in arms))
    root = tuple(round(10 * edge) for edge in end)
    return grown(voxels, FINE, contact=Contact(root, soma_id, 0.1) if soma_id else None)


def a_line(soma_id=0, nodes=3):
    points = np.zeros((nodes, 3)) + np.arange(nodes)[:, None]
    return Tree(points, np.arange(nodes) - 1, np.full(nodes, 0.5), soma_id=soma_id)


def samples(text):
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def written(folder, trees, somas):
    """Text of a file of these trees."""
    file = SwcFile(folder / "all.swc", somas)
    for number, tree in trees.items():
        file.add(number, tree)
    return (folder / "all.swc").read_text()


def read_strictly(path, capfd):
    """Read with both libraries; any warning of theirs fails the test."""
    morphio, neurom = pytest.importorskip("morphio"), pytest.importorskip("neurom")
    collected = morphio.WarningHandlerCollector()
    morphology = morphio.Morphology(path, warning_handler=collected)
    assert collected.get_all() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neuron = neurom.load_morphology(path)
    said = capfd.readouterr()
    assert "arning" not in said.out + said.err
    return morphology, neuron, neurom


def test_somas_come_first_and_parents_before_children(tmp_path):
    rows = samples(written(tmp_path, {1: a_fork(), 2: a_line(soma_id=5)}, CELL))
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(int(row[6]) == -1 or 0 < int(row[6]) < int(row[0]) for row in rows)
    assert [row[1] for row in rows if row[6] == "-1"] == ["1", "3"]


def test_dendrites_hang_on_their_soma(tmp_path):
    rows = samples(written(tmp_path, {1: a_line(5), 2: a_line(5)}, CELL))
    assert rows[0] == ["1", "1", "7.0000", "4.0000", "3.0000", "1.5000", "-1"]
    assert sum(row[6] == "1" for row in rows) == 2


def test_coordinates_are_x_y_z_in_micrometers(tmp_path):
    tree = Tree(np.array([[1, 2, 3.0]]), np.array([-1]), np.array([0.5]))
    assert samples(written(tmp_path, {1: tree}, {})) == [
        ["1", "3", "3.0000", "2.0000", "1.0000", "0.5000", "-1"]
    ]


def test_an_empty_image_has_a_header_only(tmp_path):
    text = written(tmp_path, {}, {})
    assert samples(text) == []
    assert text.startswith("#")


def test_a_dendrite_without_a_soma_is_read_without_a_warning(tmp_path, capfd):
    tree = a_fork()
    (path,) = write_single_files(tmp_path, [(7, tree)], {})
    assert path.name == "dendrite_7.swc"
    morphology, neuron, neurom = read_strictly(path, capfd)
    assert len(morphology.root_sections) == 1
    assert len(list(morphology.iter())) == tree.branches == 3
    assert neurom.get("total_length", neuron) == pytest.approx(tree.length_um, rel=1e-3)
    assert "no soma was seen" in path.read_text()


def test_all_dendrites_of_a_soma_are_one_tree_without_a_warning(tmp_path, capfd):
    trees = [(1, a_fork(soma_id=5)), (2, a_line(soma_id=5)), (3, a_line())]
    paths = write_single_files(tmp_path, iter(trees), CELL)
    assert [path.name for path in paths] == ["neuron_5.swc", "dendrite_3.swc"]
    morphology, neuron, neurom = read_strictly(paths[0], capfd)
    assert morphology.soma.points.tolist() == [[7, 4, 3]]
    assert len(morphology.root_sections) == 2
    assert neurom.get("number_of_neurites", neuron) == 2
    length_um = trees[0][1].length_um + trees[1][1].length_um
    assert neurom.get("total_length", neuron) == pytest.approx(length_um, rel=1e-3)
    radii = neurom.get("segment_radii", neuron)
    assert np.median(radii) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "tree",
    [
        a_line(nodes=1),
        Tree(np.eye(3), np.array([-1, 0, 0]), np.zeros(3)),
    ],
    ids=["a dot", "a fork at the root, no thickness"],
)
def test_even_odd_trees_are_read_without_a_warning(tree, tmp_path, capfd):
    (path,) = write_single_files(tmp_path, [(1, tree)], {})
    morphology, _, _ = read_strictly(path, capfd)
    assert len(morphology.root_sections) == 1


def test_spines_are_comments_that_name_the_nearest_sample(tmp_path, capfd):
    heads = {1: Heads(np.array([12]), np.array([[2.2, 2, 3.0]]), np.array([0.3]))}
    (path,) = write_single_files(tmp_path, [(1, a_line(soma_id=5))], CELL, heads)
    assert "# spine 12 3.0000 2.0000 2.2000 0.3000 4" in path.read_text().splitlines()
    read_strictly(path, capfd)

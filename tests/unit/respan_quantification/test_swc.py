import numpy as np
from tests.unit.respan_quantification.phantoms import FINE, SOMA, Scene, quantified


def samples(text):
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def a_cell():
    scene = Scene((6, 8, 14), FINE).ball((3, 4, 7), 1.5, SOMA)
    scene.tube((3, 4, 7), (3, 4, 13), 0.5).tube((3, 4, 7), (3, 4, 1), 0.5)
    return scene.tube((1, 1, 1), (1, 1, 13), 0.5)


def test_every_tree_is_rooted_and_parents_come_first():
    rows = samples(quantified(a_cell().classes, FINE).swc)
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(int(row[6]) == -1 or 0 < int(row[6]) < int(row[0]) for row in rows)
    assert [row[1] for row in rows if row[6] == "-1"] == ["1", "3"]


def test_the_soma_comes_first_and_its_dendrites_hang_on_it():
    rows = samples(quantified(a_cell().classes, FINE).swc)
    assert rows[0][1] == "1"
    x, y, z, radius = (float(value) for value in rows[0][2:6])
    assert np.allclose([x, y, z], [6.95, 3.95, 2.95], atol=0.03)
    assert abs(radius - 1.5) < 0.03
    assert sum(row[6] == "1" for row in rows) == 2


def test_coordinates_are_x_y_z_in_micrometers():
    scene = Scene((6, 4, 9), FINE).tube((4, 1, 1), (4, 1, 8), 0.5)
    rows = samples(quantified(scene.classes, FINE).swc)
    x, y, z = (np.array([float(row[n]) for row in rows]) for n in (2, 3, 4))
    # Voxel (0, 0, 0) is at 0, and its center at half a voxel in the scene.
    assert np.allclose(y, 0.95, atol=0.03)
    assert np.allclose(z, 3.95, atol=0.03)
    assert np.allclose([x.min(), x.max()], [0.95, 7.95], atol=0.06)


def test_an_empty_image_has_a_header_only():
    text = quantified(np.zeros((2, 9, 9), np.uint8), FINE).swc
    assert samples(text) == []
    assert text.startswith("#")

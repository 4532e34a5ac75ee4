import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_training.phantoms.field import Field
from respan_training.phantoms.raster import Planes, averaging, blurring, project
from respan_training.phantoms.solids import (
    Spheroid,
    balls,
    cone_distance_um,
    together,
    tube,
    union_distance_um,
)

SPACINGS = [(0.05, 0.05, 0.05), (0.15, 0.065, 0.065), (1.0, 0.102, 0.102)]


def grid(*edges_um):
    z, y, x = (np.asarray(edge, dtype=float) for edge in edges_um)
    return z[:, None, None], y[:, None], x


def filled_um3(solids, field):
    planes = Planes(field, 0.0)
    (share,) = project(solids, planes, [averaging(planes)])
    return float(share.sum()) * field.spacing.voxel_volume_um3


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_ball_fills_the_volume_of_a_ball(spacing):
    rng = np.random.default_rng(0)
    field = Field(tuple(int(4 / edge) for edge in spacing), VoxelSpacing(*spacing))
    volumes = [
        filled_um3(balls(rng.uniform(1.7, 2.3, (1, 3)), np.array([0.6]), np.ones(1)), field)
        for _ in range(8)
    ]
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.03)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_tube_fills_its_section_times_its_length_wherever_it_is_cut_into_pieces(spacing):
    field = Field(tuple(int(4 / edge) for edge in spacing), VoxelSpacing(*spacing))
    nodes_um = np.column_stack([np.full(40, 2.03), np.full(40, 1.98), np.linspace(-2, 6, 40)])
    whole = filled_um3(tube(nodes_um, np.full(40, 0.5), 1.0), field)
    assert whole == pytest.approx(np.pi * 0.5**2 * field.size_um[2], rel=0.03)


def test_overlapping_solids_are_a_union_not_a_sum():
    field = Field((40, 40, 40), VoxelSpacing(0.05, 0.05, 0.05))
    ball = balls(np.full((1, 3), 1.0), np.array([0.5]), np.ones(1))
    assert filled_um3(together([ball, ball]), field) == filled_um3(ball, field)


def test_strips_of_rows_give_the_same_image_as_one_piece(monkeypatch):
    field = Field((20, 30, 30), VoxelSpacing(0.2, 0.1, 0.1))
    ball = balls(np.full((1, 3), 1.5), np.array([0.9]), np.ones(1))
    planes = Planes(field, 1.0)
    (whole,) = project(ball, planes, [averaging(planes)])
    monkeypatch.setattr("respan_training.phantoms.raster.STRIP_VOXELS", 5000)
    (strips,) = project(ball, planes, [averaging(planes)])
    np.testing.assert_allclose(strips, whole, atol=1e-6)


def test_no_solids_leave_an_empty_image():
    field = Field((4, 5, 6), VoxelSpacing(1, 1, 1))
    assert filled_um3(together([]), field) == 0


def test_distance_to_a_cone_is_measured_from_its_surface():
    cone = tube(np.array([[0.0, 0, 0], [0, 0, 4]]), np.array([0.5, 0.5]), 1.0)
    distance = cone_distance_um(*grid([0.0], [0.0, 2.0], [-1.0, 2.0]), cone, 0)
    np.testing.assert_allclose(distance[0], [[0.5, -0.5], [np.sqrt(5) - 0.5, 1.5]])


def test_distance_to_nothing_is_infinite():
    assert np.isinf(union_distance_um(*grid([0.0], [0.0], [0.0, 1.0]), together([]))).all()


def test_a_round_spheroid_is_a_ball():
    head = Spheroid(np.zeros(3), np.array([0.0, 0, 1]), 0.4, 0.4)
    points = grid([0.3], [0.1, 0.7], [-0.2, 0.5])
    expected = np.sqrt(sum(part**2 for part in points)) - 0.4
    np.testing.assert_allclose(head.distance_um(*points), expected, atol=1e-9)
    assert head.volume_um3 == pytest.approx(4 / 3 * np.pi * 0.4**3)


def test_a_blur_keeps_the_light_and_has_its_width():
    at_um = np.arange(-5, 5, 0.05)
    row = blurring(np.array([0.0]), at_um, 0.7)[0]
    assert row.sum() == pytest.approx(1, abs=1e-4)
    assert np.sqrt((row * at_um**2).sum()) == pytest.approx(0.7, rel=1e-3)


def test_only_the_part_of_a_segment_inside_the_field_counts():
    field = Field((10, 10, 10), VoxelSpacing(1, 1, 1))  # from -0.5 to 9.5 µm
    start = np.array([[5.0, 5, -10], [5, 5, 2], [20, 20, 20], [0, 0, 0]])
    end = np.array([[5.0, 5, 20], [5, 5, 4], [21, 21, 21], [0, 0, 0]])
    np.testing.assert_allclose(field.length_inside_um(start, end), [10, 2, 0, 0], atol=1e-9)

from dataclasses import replace

import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_common.params import SynthesisParams
from respan_training.phantoms.annotation import spine_glow
from respan_training.phantoms.field import Field
from respan_training.phantoms.paths import Path, across, undulating, varicose, walk
from respan_training.phantoms.recipe import Optics, draw_recipe
from respan_training.phantoms.solids import together, tube
from respan_training.phantoms.spines import draw_spine, positions_um, second_head

STRAIGHT = Path(
    np.column_stack([np.full(81, 4.0), np.full(81, 10.0), np.linspace(0, 20, 81)]), np.full(81, 0.5)
)


def spines(count, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_spine(STRAIGHT, 40, 1, 10.0, 1.0, rng) for _ in range(count)]


def recipe_at(field):
    """A two-photon preset on another field."""
    params = SynthesisParams(kind="two-photon", spacing_um=list(field.spacing.zyx))
    return replace(draw_recipe(params, np.random.default_rng(0)), field=field)


def test_bases_lie_on_the_surface_of_the_shaft():
    for spine in spines(50):
        assert np.linalg.norm(spine.base_um[:2] - (4, 10)) == pytest.approx(0.5)


def test_length_is_the_neck_and_the_head_and_ends_at_the_tip():
    for spine in spines(50):
        if spine.has_neck:
            arc_um = np.linalg.norm(np.diff(spine.neck_um, axis=0), axis=1).sum()
            assert spine.neck_length_um == pytest.approx(arc_um)
            assert spine.length_um == pytest.approx(arc_um + 2 * spine.head.along_um)
            assert np.linalg.norm(spine.tip_um - spine.neck_um[-1]) == pytest.approx(
                2 * spine.head.along_um
            )
        else:
            assert np.isnan(spine.neck_length_um)
            assert np.linalg.norm(spine.tip_um - spine.base_um) == pytest.approx(spine.length_um)


def test_the_volume_of_a_stubby_spine_is_what_stands_out_of_a_flat_shaft():
    spine = next(spine for spine in spines(50) if spine.spine_class == "stubby")
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400_000, 3))
    inside = spine.head.distance_um(*(points + spine.head.center_um).T) < 0
    outside_shaft = (points + spine.head.center_um - spine.base_um) @ spine.head.axis > 0
    assert 8 * (inside & outside_shaft).mean() == pytest.approx(spine.volume_um3, rel=0.05)


def test_angles_around_the_shaft_are_uniform():
    outward = np.array([spine.base_um - (4, 10, 10) for spine in spines(400)]) / 0.5
    assert np.abs(outward.mean(axis=0)).max() < 0.12
    assert (outward[:, 0] > 0.9).any()
    assert (outward[:, 0] < -0.9).any()


@pytest.mark.parametrize("per_um", [0.3, 1.0, 4.0])
def test_positions_have_their_density_and_a_hard_core(per_um):
    found = positions_um(5, 2005, per_um, np.random.default_rng(1))
    assert len(found) / 2000 == pytest.approx(per_um, rel=0.1)
    assert np.diff(found).min() >= min(0.1, 0.25 / per_um) - 1e-9
    assert found.min() >= 5
    assert found.max() < 2005


@pytest.mark.parametrize("skew", [0.0, 0.25])
@pytest.mark.parametrize("spacing", [(0.1, 0.05, 0.05), (0.15, 0.065, 0.065), (1.0, 0.102, 0.102)])
def test_a_spine_gives_light_in_proportion_to_its_volume(spacing, skew):
    shape = tuple(int(size / edge) for size, edge in zip((8, 20, 20), spacing, strict=True))
    field = Field(shape, VoxelSpacing(*spacing))
    recipe = replace(recipe_at(field), optics=Optics(0.2, 0.9, halo=0.25, skew=skew))
    chosen = [spine for spine in spines(60) if spine.spine_class == "mushroom"][:10]
    glows = [spine_glow(spine, together([]), recipe) for spine in chosen]
    light_um3 = [float(glow.light.sum()) * field.spacing.voxel_volume_um3 for glow in glows]
    expected = [0.75 * spine.volume_um3 for spine in chosen]
    assert sum(light_um3) == pytest.approx(sum(expected), rel=0.04)


def test_no_light_of_a_spine_comes_from_inside_its_shaft():
    field = Field((80, 200, 200), VoxelSpacing(0.1, 0.1, 0.1))
    shaft = tube(STRAIGHT.nodes_um, np.full(81, 3.0), 1.0)
    spine = next(spine for spine in spines(50) if spine.spine_class == "stubby")
    recipe = replace(recipe_at(field), optics=Optics(0.1, 0.3))
    assert spine_glow(spine, shaft, recipe).light.max() == 0


def test_a_spine_in_bleached_depth_gives_the_light_that_is_left():
    field = Field((80, 200, 200), VoxelSpacing(0.1, 0.1, 0.1))
    recipe = recipe_at(field)
    faded = replace(recipe, detector=replace(recipe.detector, fading_per_um=0.05))
    spine = next(spine for spine in spines(50) if spine.spine_class == "mushroom")
    before, after = (spine_glow(spine, together([]), r) for r in (recipe, faded))
    share = after.light.sum() / before.light.sum()
    assert share == pytest.approx(np.exp(-0.05 * spine.head.center_um[0]), rel=0.03)


def test_a_second_head_leaves_the_middle_of_its_stems_neck():
    stem = next(spine for spine in spines(50) if spine.spine_class == "mushroom")
    second = second_head(stem, np.random.default_rng(1))
    assert second.stem is stem
    assert any(np.allclose(second.base_um, node) for node in stem.neck_um[1:-1])
    steps_um = np.linalg.norm(np.diff(second.neck_um, axis=0), axis=1)
    assert second.neck_length_um == pytest.approx(steps_um.sum())
    assert second.dendrite_id == stem.dendrite_id


def test_across_is_at_right_angles_and_of_length_one():
    tangent = np.array([0.6, 0.0, 0.8])
    for angle in np.linspace(0, 6, 7):
        assert across(tangent, angle) @ tangent == pytest.approx(0, abs=1e-12)
        assert np.linalg.norm(across(tangent, angle)) == pytest.approx(1)


def test_a_path_leaves_the_field_and_then_ends():
    field = Field((30, 100, 100), VoxelSpacing(0.3, 0.1, 0.1))
    nodes_um = walk(field.high_um / 2, np.array([0.0, 0, 1]), field, np.random.default_rng(0), 0.05)
    assert field.contains(nodes_um[:-1], 6.0).all()
    assert not field.contains(nodes_um[-1], 6.0)


def test_undulation_leaves_the_first_node_where_it_was():
    moved = undulating(STRAIGHT.nodes_um, np.random.default_rng(0), 0.1)
    np.testing.assert_array_equal(moved[0], STRAIGHT.nodes_um[0])
    assert 0.01 < np.abs(moved - STRAIGHT.nodes_um).max() < 1.0


def test_a_tube_swells_around_its_radius():
    path = varicose(STRAIGHT.nodes_um, 0.5, np.random.default_rng(0), amplitude=0.1, taper=0.0)
    assert path.radius_um.mean() == pytest.approx(0.5, rel=0.05)
    assert 0.07 < path.radius_um.std() / 0.5 < 0.13

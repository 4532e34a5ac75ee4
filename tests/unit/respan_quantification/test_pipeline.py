import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from tests.unit.respan_quantification.phantoms import (
    CONFOCAL,
    DENDRITE,
    FINE,
    NECK,
    SOMA,
    SPINE,
    TWO_PHOTON,
    Scene,
    one_spine,
    quantified,
)

from respan_common.geometry import VoxelSpacing
from respan_quantification import columns, pipeline


def the_spine(scene, **changes):
    table = quantified(scene.classes, scene.spacing, **changes).spine_table
    assert len(table) == 1
    return table.iloc[0]


def mean_of(column, spacing, direction, draws=4, draw_neck=True):
    return np.mean([spine[column] for spine in drawn_spines(spacing, direction, draws, draw_neck)])


@cache  # several tests look at other columns of the same spines
def drawn_spines(spacing, direction, draws, draw_neck):
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (draws, 3))
    scenes = [one_spine(spacing, direction, shift=shift, draw_neck=draw_neck) for shift in shifts]
    return [the_spine(scene) for scene in scenes]


@pytest.mark.parametrize(
    ("spacing", "direction"),
    [(FINE, (0, 1, 0)), (FINE, (1, 2, 0)), (CONFOCAL, (0, 1, 0)), (CONFOCAL, (1, 0, 0))],
)
@pytest.mark.parametrize("draw_neck", [True, False])
def test_a_spine_has_its_neck_and_base_to_tip_length(spacing, direction, draw_neck):
    edge = float(np.abs(direction) @ spacing.zyx / np.linalg.norm(direction))
    how = (spacing, direction, 4, draw_neck)
    assert mean_of("neck_length", *how) == pytest.approx(0.6, abs=0.6 * edge)
    assert mean_of("spine_length", *how) == pytest.approx(1.2, abs=0.6 * edge)


def test_distances_along_z_are_in_micrometers():
    near = mean_of("head_euclidean_dist_to_dend", CONFOCAL, (1, 0, 0))
    far = mean_of("spine_length_euclidean", CONFOCAL, (1, 0, 0))
    assert near == pytest.approx(0.60, abs=0.1)
    assert far == pytest.approx(1.20, abs=0.1)


def test_head_volume_is_that_of_the_ball():
    assert mean_of("head_vol", FINE, (0, 1, 0), draws=10) == pytest.approx(0.1131, rel=0.03)


def test_mirrored_spines_have_the_same_lengths():
    scene = one_spine(FINE, (0, 2, 1))
    straight = the_spine(scene)
    for axes in [(0,), (1,), (2,), (0, 1, 2)]:
        scene.classes = np.flip(scene.classes, axes).copy()
        mirrored = the_spine(scene)
        for column in ("neck_length", "spine_length", "head_length"):
            assert mirrored[column] == pytest.approx(straight[column], rel=0.06)
        for column in ("head_vol", "spine_vol", "head_area", "dendrite_id"):
            if not (column == "head_area" and 0 in axes):
                assert mirrored[column] == pytest.approx(straight[column], rel=1e-6)


def test_transposing_the_image_changes_no_length():
    scene = one_spine(FINE, (0, 1, 0))
    straight = the_spine(scene)
    scene.classes = scene.classes.transpose(2, 0, 1).copy()
    turned = the_spine(scene)
    for column in ("neck_length", "spine_length", "head_vol", "spine_surf_area"):
        assert turned[column] == pytest.approx(straight[column], rel=0.03)


def test_doubling_the_spacing_doubles_lengths_and_makes_volumes_eightfold():
    scene = one_spine(CONFOCAL, (0, 1, 0))
    once = the_spine(scene)
    scene.spacing = VoxelSpacing(*(2 * edge for edge in CONFOCAL.zyx))
    twice = the_spine(scene)
    for column in ("neck_length", "spine_length", "head_length", "spine_length_euclidean"):
        assert twice[column] == pytest.approx(2 * once[column], rel=0.02)
    for column in ("spine_vol", "head_vol", "head_convex_vol"):
        assert twice[column] == pytest.approx(8 * once[column], rel=1e-6)


def test_an_object_far_above_the_dendrite_in_z_is_rejected():
    scene = Scene((30, 4, 10), TWO_PHOTON).tube((3, 2, 1), (3, 2, 9), 0.9)
    scene.ball((26, 2, 5), 0.8)
    found = quantified(scene.classes, TWO_PHOTON, min_spine_volume_um3=0.01)
    assert (len(found.spine_table), found.numbers["discarded_too_far"]) == (0, 1)


def test_two_dendrites_of_which_one_has_a_spine_make_two_rows():
    scene = one_spine()
    scene.tube((0.7, 0.7, 0.5), (0.7, 0.7, 6.5), 0.5)
    found = quantified(scene.classes, FINE)
    assert sorted(found.dendrite_table["total_spines"]) == [0, 1]
    bare = found.dendrite_table.query("total_spines == 0").iloc[0]
    assert bare["spines_per_um"] == 0
    assert math.isnan(bare["head_vol"])
    assert found.numbers["dendrites"] == 2
    assert found.numbers["dendrite_length_um"] == pytest.approx(12, rel=0.01)


def test_close_parallel_dendrites_each_keep_the_spine_that_stands_on_them():
    # The head of the first one's spine is nearer to the second than to its own dendrite.
    scene = Scene((4, 6, 10), FINE)
    scene.tube((2, 1.5, 1), (2, 1.5, 9), 0.5).tube((2, 4.3, 1), (2, 4.3, 9), 0.5)
    scene.ball((2, 3.2, 5), 0.3).tube((2, 1.5, 5), (2, 3.2, 5), 0.12, NECK)
    found = quantified(scene.classes, FINE)
    own = found.labels["dendrites"][20, 15, 50]
    assert found.spine_table["dendrite_id"].tolist() == [own]
    assert found.spine_table["attached"].tolist() == ["seen"]


def test_a_neck_that_the_model_took_for_dendrite_is_no_branch():
    scene = Scene((4, 6, 14), FINE).tube((2, 1.5, 1), (2, 1.5, 13), 0.5)
    bare = quantified(scene.classes, FINE)
    scene.ball((2, 3.9, 7), 0.3).tube((2, 1.5, 7), (2, 3.7, 7), 0.15, DENDRITE)
    found = quantified(scene.classes, FINE)
    assert len(found.spine_table) == 1
    assert found.dendrite_table["branches"].tolist() == [1]
    lengths = [one.numbers["dendrite_length_um"] for one in (found, bare)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.01)


def test_touching_spines_are_two_rows():
    scene = Scene((3, 4, 10), FINE).tube((1.5, 1, 1), (1.5, 1, 9), 0.5)
    scene.ball((1.5, 1.75, 5), 0.35).ball((1.5, 1.75, 5.6), 0.35)
    assert len(quantified(scene.classes, FINE).spine_table) == 2


def test_a_spine_without_neck_has_no_neck_values_instead_of_zeros():
    scene = Scene((3, 4, 10), FINE).tube((1.5, 1, 1), (1.5, 1, 9), 0.5).ball((1.5, 1.75, 5), 0.35)
    row = the_spine(scene)
    assert row["attached"] == "seen"
    assert row.filter(like="neck_").isna().all()
    assert row["spine_length"] == pytest.approx(0.6, abs=0.1)
    assert row["spine_length"] == row["head_length"]


def test_an_inferred_neck_has_a_length_and_no_width():
    found = quantified(*_classes_and_spacing(one_spine(draw_neck=False)))
    row = found.spine_table.iloc[0]
    assert row["attached"] == "inferred"
    assert row["neck_length"] > 0.4
    assert row[["neck_vol", "neck_area", "neck_diameter_um", "neck_C1_int_density"]].isna().all()
    assert row["spine_vol"] == row["head_vol"]
    assert (found.labels["spines"] > 0).sum() > (found.labels["heads"] > 0).sum()


def test_without_neck_generation_the_way_is_missing():
    row = the_spine(one_spine(draw_neck=False), generate_necks=False)
    assert row["attached"] == "none"
    assert math.isnan(row["neck_length"])
    assert math.isnan(row["spine_length"])
    assert row["head_vol"] > 0


def test_a_neck_longer_than_allowed_is_not_inferred():
    assert the_spine(one_spine(draw_neck=False), max_neck_length_um=0.3)["attached"] == "none"


def test_a_thick_neck_has_its_diameter():
    scene = Scene((3, 6, 10), FINE).tube((1.5, 1, 1), (1.5, 1, 9), 0.5).ball((1.5, 3.5, 5), 0.4)
    scene.tube((1.5, 1.0, 5), (1.5, 3.5, 5), 0.25, NECK)
    assert the_spine(scene)["neck_diameter_um"] == pytest.approx(0.5, rel=0.1)


def test_distances_to_the_soma_run_along_the_dendrite_and_straight():
    scene = Scene((6, 8, 14), FINE).ball((3, 4, 2), 1.5, SOMA).tube((3, 4, 2), (3, 4, 13), 0.5)
    scene.ball((3, 5.3, 10), 0.3).tube((3, 4, 10), (3, 5.3, 10), 0.12, NECK)
    found = quantified(scene.classes, FINE)
    row = found.spine_table.iloc[0]
    assert row["geodesic_dist_to_soma"] == pytest.approx(10 - 3.5, rel=0.03)
    assert row["euclidean_dist_to_soma"] == pytest.approx(math.hypot(8, 1.3) - 1.8, rel=0.03)
    assert found.dendrite_table["soma_id"].tolist() == [1]


def test_without_a_soma_its_distances_are_missing():
    row = the_spine(one_spine())
    assert math.isnan(row["geodesic_dist_to_soma"])
    assert math.isnan(row["euclidean_dist_to_soma"])


def test_a_dendrite_apart_from_the_soma_has_no_way_along_it():
    scene = one_spine()
    scene.ball((0.8, 0.8, 3.5), 0.5, SOMA)
    row = the_spine(scene)
    assert math.isnan(row["geodesic_dist_to_soma"])
    assert row["euclidean_dist_to_soma"] > 1


@pytest.mark.parametrize("scheme", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(5, 12, 12), (1, 12, 12), (1, 1, 1)])
def test_an_empty_image_gives_tables_with_all_columns_and_a_warning(scheme, shape):
    found = quantified(np.zeros(shape, np.uint8), FINE, scheme=scheme)
    assert list(found.spine_table.columns) == columns.spine_columns(1)
    assert {"dendrite_id", "spines_per_um", "head_vol"} <= set(found.dendrite_table.columns)
    assert (len(found.spine_table), len(found.dendrite_table)) == (0, 0)
    assert found.numbers["spines"] == found.numbers["dendrite_length_um"] == 0
    assert "no dendrite" in found.warnings[0]


def test_dendrites_without_spines_keep_their_rows():
    scene = Scene((3, 3, 10), FINE).tube((1.5, 1.5, 1), (1.5, 1.5, 9), 0.5)
    found = quantified(scene.classes, FINE)
    assert len(found.dendrite_table) == 1
    assert found.warnings == ["no spine passed the filters"]


def test_spines_without_a_dendrite_are_not_reported():
    found = quantified(Scene((3, 3, 3), FINE).ball((1.5, 1.5, 1.5), 0.4).classes, FINE)
    assert len(found.spine_table) == 0
    assert "no dendrite" in found.warnings[0]


def test_a_scheme_without_spines_measures_dendrites():
    scene = Scene((3, 3, 10), FINE).tube((1.5, 1.5, 1), (1.5, 1.5, 9), 0.5, 1)
    found = quantified(scene.classes, FINE, scheme=2)
    assert found.numbers["dendrites"] == 1
    assert "does not segment spines" in found.warnings[0]


def test_a_single_slice_is_measured():
    scene = one_spine(VoxelSpacing(0.5, 0.1, 0.1))
    scene.classes = scene.classes[4:5].copy()
    row = the_spine(scene)
    assert row["spine_length"] == pytest.approx(1.2, abs=0.15)
    assert not row["touches_border"]


def test_the_core_and_shell_scheme_is_measured():
    scene = one_spine()
    classes = np.zeros_like(scene.classes)
    for value, other in ((DENDRITE, 1), (1, 3), (NECK, 4)):
        classes[scene.classes == value] = other
    classes[np.isin(scene.classes, 1) & _core(scene)] = 2
    row = the_spine_of(classes, scheme=4)
    assert row["neck_length"] == pytest.approx(0.6, abs=0.1)


def test_border_spines_are_flagged_and_removed_on_demand():
    scene = one_spine()
    scene.classes = scene.classes[:, :37].copy()
    assert the_spine(scene)["touches_border"]
    found = quantified(scene.classes, FINE, remove_border_spines=True)
    assert (len(found.spine_table), found.numbers["discarded_at_border"]) == (0, 1)


@pytest.mark.parametrize("block_zyx", [None, (16, 16, 16)])
def test_a_spine_of_which_the_model_is_nowhere_sure_is_doubtful(block_zyx):
    scene = one_spine()
    known = {"confidence": np.where(scene.classes == 1, 100, 0).astype(np.uint8)}
    known["confidence"][tuple(np.argwhere(scene.classes == 1)[7])] = 204
    found = quantified(scene.classes, FINE, block_zyx=block_zyx, **known, min_spine_confidence=0.8)
    assert found.spine_table["confidence"].to_list() == [0.8]
    found = quantified(scene.classes, FINE, block_zyx=block_zyx, **known, min_spine_confidence=0.81)
    assert (len(found.spine_table), found.numbers["discarded_doubtful"]) == (0, 1)


def test_only_what_the_model_called_a_head_can_make_it_sure():
    scene = one_spine()
    sure = np.where(scene.classes == NECK, 255, 0).astype(np.uint8)
    sure[scene.classes == 1] = 51
    found = quantified(scene.classes, FINE, confidence=sure)
    assert found.spine_table["confidence"].to_list() == [0.2]


def test_nothing_is_doubtful_where_the_model_said_nothing():
    scene = one_spine()
    for nothing in (None, np.zeros_like(scene.classes)):
        found = quantified(scene.classes, FINE, confidence=nothing, min_spine_confidence=1)
        assert found.spine_table["confidence"].isna().to_list() == [True]


def test_every_channel_is_measured_in_every_part():
    scene = one_spine()
    raw = np.stack([np.where(scene.classes == 1, 300, 20), np.where(scene.classes == NECK, 7, 1)])
    row = the_spine(scene, raw=raw.astype(np.uint16))
    assert row["head_C1_mean_int"] == 300
    assert row["head_C1_int_density"] == pytest.approx(300 * row["head_vol"])
    assert row["neck_C2_max_int"] == 7
    total = row["head_C2_int_density"] + row["neck_C2_int_density"]
    assert row["spine_C2_int_density"] == pytest.approx(total)


def test_labels_tables_and_tree_name_the_same_objects():
    found = quantified(*_classes_and_spacing(one_spine()))
    spines = found.labels["spines"]
    ids = np.unique(spines[spines > 0])
    assert ids.tolist() == found.spine_table["spine_id"].tolist()
    drawn = found.labels["skeleton"] > 0
    same = found.labels["dendrites"][drawn] == found.labels["skeleton"][drawn]
    assert same.mean() > 0.95
    head = found.spine_table.iloc[0]
    assert spines[tuple(np.rint([head.z, head.y, head.x]).astype(int))] == 1


@pytest.mark.parametrize("block_zyx", [(32, 32, 64), (13, 27, 41), (60, 80, 7)])
@pytest.mark.parametrize("scheme", [1, 3])
def test_cutting_the_image_into_blocks_changes_nothing(crowded, block_zyx, scheme, tmp_path):
    classes = np.where(crowded.classes == NECK, SPINE, crowded.classes) if scheme == 1 else None
    classes = crowded.classes if classes is None else classes
    whole = quantified(classes, FINE, scheme=scheme)
    cut = quantified(classes, FINE, scheme=scheme, block_zyx=block_zyx)
    for name, table in whole.tables.named().items():
        pd.testing.assert_frame_equal(cut.tables.named()[name], table)
    for name, labels in whole.labels.items():
        assert (cut.labels[name] == labels).all(), name
    assert (cut.numbers, cut.warnings) == (whole.numbers, whole.warnings)
    for name, one in (("whole", whole), ("cut", cut)):
        (tmp_path / name).mkdir()
        one.recipe.write_swc(tmp_path / name)
    swc = [(tmp_path / name / "dendrites.swc").read_text() for name in ("whole", "cut")]
    assert swc[0] == swc[1]


def test_cutting_blocks_into_tiles_changes_nothing(crowded, monkeypatch):
    whole = quantified(crowded.classes, FINE, meshes=True)
    monkeypatch.setattr(pipeline, "TILE", (16, 16, 40))
    cut = quantified(crowded.classes, FINE, meshes=True, block_zyx=(32, 32, 80))
    pd.testing.assert_frame_equal(cut.spine_table, whole.spine_table)
    for name, labels in whole.labels.items():
        assert (cut.labels[name] == labels).all(), name
    assert cut.image.meshes.keys() == whole.image.meshes.keys()


def test_meshes_and_distances_come_on_request():
    scene = one_spine(FINE, (0, 2, 1))
    found = quantified(scene.classes, FINE, meshes=True, distance_maps=True)
    row = found.spine_table.iloc[0]
    meshes = found.image.meshes
    assert set(meshes) == {(1, "spine"), (1, "head"), (1, "neck")}
    assert meshes[1, "spine"].volume_um3 == pytest.approx(row["spine_vol"], rel=0.01)
    center_um = meshes[1, "head"].vertices_um.mean(axis=0)
    assert center_um == pytest.approx(row[["z_um", "y_um", "x_um"]].astype(float), abs=0.1)
    to_dendrite_um, along_um = found.labels["distances"]
    assert to_dendrite_um[found.labels["heads"] > 0].max() == pytest.approx(
        row["spine_length_euclidean"], abs=0.1
    )
    assert (np.isfinite(along_um) == (found.labels["dendrites"] > 0)).all()
    assert np.nanmax(along_um) == pytest.approx(found.numbers["dendrite_length_um"], abs=0.2)


@pytest.fixture(scope="module")
def crowded():
    """Forty spines around a shaft that runs through the image, every second with a neck."""
    scene = Scene((6, 8, 20), FINE).tube((3, 4, -1), (3, 4, 21), 0.5)
    random = np.random.default_rng(0)
    for n in range(40):
        angle, radius, neck_um = random.uniform((0, 0.2, 0.3), (2 * np.pi, 0.35, 1.0))
        base = np.array([3, 4, 0.5 * n + 0.3])
        head = base + (0.5 + neck_um + radius) * np.array([np.cos(angle), np.sin(angle), 0])
        scene.ball(head, radius)
        if n % 2:
            scene.tube(base, head, 0.12, NECK)
    return scene


def _classes_and_spacing(scene):
    return scene.classes, scene.spacing


def _core(scene):
    return Scene((4.4, 4.4, 7), FINE).ball((2.2, 3.6, 3.5), 0.2).classes > 0


def the_spine_of(classes, **changes):
    table = quantified(classes, FINE, **changes).spine_table
    assert len(table) == 1
    return table.iloc[0]

import math

import numpy as np
import pandas as pd
import pytest
from tests.unit.respan_quantification.tilted import CONFOCAL, FINE

from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_common.schemes import SCHEMES
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.measurements import across_um, measured
from respan_quantification.objects import components
from respan_quantification.spines import find_spines
from respan_quantification.surface import Surface
from respan_quantification.view import View

PARAMS = QuantificationParams(min_dendrite_volume_um3=1)
SIZE_UM = (4.0, 5.0, 6.0)


def scene(spacing, scheme=3, neck_um=0.8, thin_um=0.16, head_um=0.35, gap_um=0.0):
    """Class image of a dendrite along x with one spine towards +y, and a soma far below it."""
    shape = [round(size / edge) for size, edge in zip(SIZE_UM, spacing.zyx, strict=True)]
    axes = [(np.arange(n) + 0.3) * edge for n, edge in zip(shape, spacing.zyx, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    roles = SCHEMES[scheme]
    from_axis = np.hypot(z - 2, y - 1)
    beside = np.hypot(z - 2, x - 3)
    classes = np.zeros(shape, np.uint8)
    above = y - 1.5
    neck = (beside <= thin_um) & (above > gap_um) & (above < neck_um + head_um)
    classes[neck] = roles.get("neck", roles["spine"])
    head = beside**2 + (above - neck_um - head_um) ** 2 <= head_um**2
    classes[head] = roles["spine"]
    classes[from_axis <= 0.5] = roles["dendrite"]
    return classes


def look(classes, spacing, scheme=3, params=PARAMS):
    """Find and measure the spines of a scene."""
    roles = SCHEMES[scheme]
    image = ClassImage(classes, roles)
    frame = Frame.of_whole(classes.shape, spacing)
    dendrites = components(image.mask("dendrite"))
    grey = np.where(classes > 0, 100, 10).astype(np.uint16)
    spines = find_spines(image, dendrites, grey, frame, params).spines
    view = View(frame, image, dendrites, np.zeros_like(dendrites), lambda channel: grey, 1)
    return measured(spines, view, None, params)


def row(*args, **options):
    table = look(*args, **options).table
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("spacing", [FINE, CONFOCAL])
@pytest.mark.parametrize(("scheme", "told_by"), [(3, "class"), (1, "profile")])
def test_a_spine_measures_what_was_drawn(spacing, scheme, told_by):
    found = row(scene(spacing, scheme), spacing, scheme)
    diagonal = float(np.linalg.norm(spacing.zyx))
    assert found["head_from"] == told_by
    assert found["attached"] == "seen"
    assert found["spine_length"] == pytest.approx(1.5, abs=0.6 * diagonal)
    assert found["spine_length_straight_um"] == pytest.approx(1.5, abs=0.6 * diagonal)
    assert found["neck_length"] == pytest.approx(0.8, abs=0.8 * diagonal)
    assert found["head_length"] == found["spine_length"] - found["neck_length"]
    assert found["head_diameter_um"] == pytest.approx(0.7, abs=0.1)
    assert found["neck_diameter_um"] == pytest.approx(0.32, abs=0.1)
    assert found["neck_diameter_min_um"] <= found["neck_diameter_um"] + 1e-9
    assert found["head_vol"] == pytest.approx(4 / 3 * math.pi * 0.35**3, rel=0.15)
    assert found["head_equivalent_diameter_um"] == pytest.approx(0.7, abs=0.05)
    assert found["spine_vol"] == pytest.approx(found["head_vol"] + found["neck_vol"])
    assert found["head_sphericity"] > 0.85
    assert found["head_asymmetry"] < 0.35
    assert found["head_mesh_vol"] < found["head_vol"]


@pytest.mark.parametrize("scheme", [1, 3])
def test_ends_are_where_they_were_drawn(scheme):
    found = row(scene(FINE, scheme), FINE, scheme)
    first_um = 0.3 * 0.1  # the center of the first voxel
    base = found[["base_z_um", "base_y_um", "base_x_um"]].to_numpy(float) + first_um
    tip = found[["tip_z_um", "tip_y_um", "tip_x_um"]].to_numpy(float) + first_um
    head = found[["z_um", "y_um", "x_um"]].to_numpy(float) + first_um
    assert base == pytest.approx([2, 1.5, 3], abs=0.1)
    assert tip == pytest.approx([2, 3, 3], abs=0.1)
    assert head == pytest.approx([2, 2.65, 3], abs=0.05)


def test_without_a_neck_the_whole_spine_is_the_head():
    found = row(scene(FINE, 1, neck_um=-0.2), FINE, 1)
    assert found["head_from"] == "whole"
    assert found["head_vol"] == found["spine_vol"]
    assert found["head_length"] == found["spine_length"]
    assert found[["neck_length", "neck_vol", "neck_diameter_um", "neck_surf_area"]].isna().all()
    assert pd.isna(found["neck_below_resolution"])


def test_heads_are_told_from_necks_only_on_request():
    params = PARAMS.model_copy(update={"split_heads": False})
    assert row(scene(FINE, 1), FINE, 1, params)["head_from"] == "whole"


def test_voxels_are_told_apart_as_the_table_says():
    found = look(scene(FINE, 1), FINE, 1)
    head_um3 = found.spines.in_head.sum() * FINE.voxel_volume_um3
    assert head_um3 == pytest.approx(found.table["head_vol"][0])


def test_an_inferred_neck_has_a_length_and_no_width():
    found = row(scene(FINE, 1, gap_um=0.8), FINE, 1)
    assert found["attached"] == "inferred"
    assert found["neck_length"] == pytest.approx(0.8, abs=0.15)
    assert found["spine_length"] == pytest.approx(1.5, abs=0.1)
    assert found["spine_vol"] == found["head_vol"]
    assert found[["neck_vol", "neck_diameter_um", "neck_diameter_min_um"]].isna().all()


def test_a_spine_without_a_way_has_a_head_and_no_lengths():
    params = PARAMS.model_copy(update={"generate_necks": False})
    found = row(scene(FINE, 1, gap_um=0.8), FINE, 1, params)
    assert found["attached"] == "none"
    names = ["spine_length", "spine_length_straight_um", "neck_length", "base_z_um", "tip_x_um"]
    assert found[names].isna().all()
    assert found["head_diameter_um"] == pytest.approx(0.7, abs=0.1)
    assert found["head_length"] == pytest.approx(0.7, abs=0.1)


def test_what_is_thinner_than_the_resolution_is_flagged():
    classes = scene(FINE)
    for resolution, head, neck in [((0.2,) * 3, False, False), ((0.5,) * 3, False, True)]:
        params = PARAMS.model_copy(update={"resolution_um": resolution})
        found = row(classes, FINE, params=params)
        assert (found["below_resolution"], found["neck_below_resolution"]) == (head, neck)
    params = PARAMS.model_copy(update={"resolution_um": (0.9, 0.3, 0.3)})
    assert row(classes, FINE, params=params)["below_resolution"]


def test_resolution_along_a_neck_does_not_count():
    tangents = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
    found = across_um(tangents, np.array([0.9, 0.3, 0.2]))
    assert found == pytest.approx([0.3, 0.9, 0.9, math.hypot(0.8 * 0.9, 0.6 * 0.3)])


def test_meshes_are_kept_on_request_and_lie_around_the_spine():
    assert not look(scene(FINE), FINE).meshes
    found = look(scene(FINE), FINE, params=PARAMS.model_copy(update={"meshes": True}))
    assert sorted(found.meshes) == [(1, "head"), (1, "neck"), (1, "spine")]
    spine, table = found.meshes[1, "spine"], found.table
    assert spine.volume_um3 == pytest.approx(table["spine_vol"][0])
    highest_um = spine.vertices_um.max(axis=0)[1]
    assert highest_um == pytest.approx(table["tip_y_um"][0], abs=0.08)


@pytest.mark.parametrize("scheme", [1, 3])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)])
def test_mirroring_the_image_changes_no_measurement(axes, scheme):
    classes = scene(CONFOCAL, scheme, thin_um=0.2)
    straight = row(classes, CONFOCAL, scheme)
    mirrored = row(np.flip(classes, axes).copy(), CONFOCAL, scheme)
    for name in ("spine_vol", "head_vol", "head_equivalent_diameter_um", "head_asymmetry"):
        assert mirrored[name] == pytest.approx(straight[name], rel=1e-6)
    for name in ("spine_length", "neck_length", "head_diameter_um", "neck_diameter_um"):
        assert mirrored[name] == pytest.approx(straight[name], rel=0.05)
    for name in ("spine_surf_area", "head_convex_vol", "spine_sphericity"):
        assert mirrored[name] == pytest.approx(straight[name], rel=0.01)


def test_doubling_the_spacing_doubles_lengths_and_makes_volumes_eightfold():
    classes = scene(CONFOCAL, 1)
    once = row(classes, CONFOCAL, 1)
    twice = row(classes, VoxelSpacing(0.6, 0.2, 0.2), 1)
    for name in ("spine_length", "neck_length", "head_diameter_um", "neck_diameter_min_um"):
        assert twice[name] == pytest.approx(2 * once[name], rel=1e-3)
    for name in ("spine_vol", "head_vol", "head_convex_vol", "head_mesh_vol"):
        assert twice[name] == pytest.approx(8 * once[name], rel=1e-3)


def test_blocks_do_not_change_a_single_digit():
    classes = scene(CONFOCAL, 1)
    whole = row(classes, CONFOCAL, 1)
    image = ClassImage(classes, SCHEMES[1])
    dendrites = components(image.mask("dendrite"))
    grey = np.where(classes > 0, 100, 10).astype(np.uint16)
    outer = (slice(1, 12), slice(3, 45), slice(7, 55))
    frame = Frame(outer, outer, classes.shape, CONFOCAL)
    part = ClassImage(classes[outer], SCHEMES[1])
    spines = find_spines(part, dendrites[outer], grey[outer], frame, PARAMS, final=True).spines
    labels = dendrites[outer]
    view = View(frame, part, labels, np.zeros_like(labels), lambda channel: grey[outer], 1)
    cut = measured(spines, view, None, PARAMS).table.iloc[0]
    for name in whole.index:
        if not name.startswith(("background", "shaft", "spine_C", "head_C", "neck_C")):
            assert cut[name] == whole[name] or (cut[name] != cut[name]), name


def test_no_spines_give_an_empty_table_with_all_columns():
    classes = scene(FINE)
    bare = np.where(classes == SCHEMES[3]["dendrite"], classes, 0).astype(np.uint8)
    found = look(bare, FINE)
    assert len(found.table) == 0
    assert set(found.table.columns) == set(look(classes, FINE).table.columns)


def test_the_distance_to_the_soma_is_between_surfaces():
    classes = scene(FINE, 3)
    classes[2:6, 40:48, 10:20] = SCHEMES[3]["soma"]
    image = ClassImage(classes, SCHEMES[3])
    frame = Frame.of_whole(classes.shape, FINE)
    dendrites, somas = components(image.mask("dendrite")), components(image.mask("soma"))
    spines = find_spines(image, dendrites, classes, frame, PARAMS).spines
    view = View(frame, image, dendrites, somas, lambda channel: classes, 1)
    soma = Surface.of_labels(somas, frame)
    far = measured(spines, view, soma, PARAMS).table["euclidean_dist_to_soma"][0]
    none = measured(spines, view, None, PARAMS).table["euclidean_dist_to_soma"][0]
    assert 1.0 < far < 2.5
    assert math.isnan(none)

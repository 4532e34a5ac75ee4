from dataclasses import replace

import numpy as np
import pytest
from tests.unit.respan_quantification.tilted import CONFOCAL, FINE, spines

from respan_common.geometry import VoxelSpacing
from respan_quantification import lengths
from respan_quantification.heads import split

FINER = VoxelSpacing(0.05, 0.05, 0.05)

NECKED = [
    ("mushroom", {"neck": 0.6, "thin": 0.12, "head": 0.3}),
    ("mushroom", {"neck": 1.0, "thin": 0.1, "head": 0.2}),
    ("mushroom", {"neck": 1.2, "thin": 0.15, "head": 0.45}),
    ("broad", {"neck": 0.6, "thin": 0.12, "head": 0.25, "wide": 0.4}),
]
HEADLESS = [
    {"length": 0.6, "radius": 0.3},
    {"length": 0.4, "radius": 0.35},
    {"length": 0.9, "radius": 0.3},
    {"length": 2.0, "radius": 0.1},
    {"length": 1.5, "radius": 0.15},
]


def seen(spine):
    return np.ones(len(spine.index), dtype=bool)


def neck_um(spine):
    middle = spine.middle()
    head = split(middle, seen(spine), spine.spacing)
    assert head is not None
    return lengths.measure(middle, head, seen(spine), spine.spacing).neck_um


@pytest.mark.parametrize(("spacing", "draws"), [(FINE, 16), (FINER, 5)])
@pytest.mark.parametrize(("kind", "size"), NECKED)
def test_a_neck_ends_where_the_head_begins_to_a_voxels_diagonal(kind, size, spacing, draws):
    diagonal = float(np.linalg.norm(spacing.zyx))
    for spine in spines(kind, spacing, draws, **size):
        assert neck_um(spine) == pytest.approx(size["neck"], abs=diagonal)


def test_with_coarse_slices_a_resolved_neck_is_found_as_well():
    diagonal = float(np.linalg.norm(CONFOCAL.zyx))
    for spine in spines("mushroom", CONFOCAL, 12, neck=1.0, thin=0.2, head=0.45):
        assert neck_um(spine) == pytest.approx(1.0, abs=diagonal)


@pytest.mark.parametrize(("spacing", "draws"), [(FINE, 16), (FINER, 4)])
@pytest.mark.parametrize("size", HEADLESS)
def test_stubby_spines_and_filopodia_have_no_neck(size, spacing, draws):
    for spine in spines("capsule", spacing, draws, **size):
        assert split(spine.middle(), seen(spine), spacing) is None


def test_a_ball_that_stands_on_the_dendrite_has_no_neck():
    for spine in spines("mushroom", FINE, 12, neck=0.0, thin=0.1, head=0.3):
        assert split(spine.middle(), seen(spine), FINE) is None


def test_the_head_found_is_the_head_drawn():
    for spine in spines("mushroom", FINE, 12, neck=0.6, thin=0.12, head=0.3):
        head = split(spine.middle(), seen(spine), FINE)
        common = (head & spine.in_head).sum() / (head | spine.in_head).sum()
        assert common > 0.9


def test_an_inferred_neck_is_no_neck_that_was_seen():
    spine = spines("mushroom", FINE, 1, neck=0.6, thin=0.1, head=0.3)[0]
    assert split(spine.middle(), spine.in_head, FINE) is None


def test_doubled_spacing_divides_a_spine_at_the_same_voxels():
    coarse = VoxelSpacing(0.2, 0.2, 0.2)
    for spine in spines("mushroom", FINE, 4, neck=0.6, thin=0.12, head=0.3):
        double = replace(spine, to_dendrite_um=2 * spine.to_dendrite_um, spacing=coarse)
        head = split(spine.middle(), seen(spine), FINE)
        assert np.array_equal(head, split(double.middle(), seen(double), double.spacing))

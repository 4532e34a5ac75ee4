"""Scores of a model are right where they can be counted by hand."""

import numpy as np
import pytest
from bench.rr30a import Annotation, length_in_dendrites, steps_along
from bench.scoring import figures, overlapping

PERFECT = {
    "found": 10,
    "true": 10,
    "same": 10,
    "same_flat": 10,
    "overlapping": 10,
    "found_um": 20.0,
    "true_um": 20.0,
    "found_line_um": 20.0,
    "found_line_inside_um": 20.0,
    "true_line_um": 20.0,
    "true_line_inside_um": 20.0,
    "deep_found": 8,
    "deep_true": 8,
    "deep_found_um": 16.0,
    "deep_true_um": 16.0,
}


def test_a_found_object_overlaps_a_true_one_when_more_than_half_of_both_is_shared():
    true, found = np.zeros((2, 1, 20), dtype=np.uint32), np.zeros((2, 1, 20), dtype=np.uint32)
    true[0, 0, :6], found[0, 0, 1:7] = 1, 5
    true[1, 0, :6], found[1, 0, 3:9] = 2, 6
    assert overlapping(found, true) == 1
    assert overlapping(true, true) == 2
    assert overlapping(np.zeros_like(true), true) == 0


def test_a_perfect_analysis_scores_one_and_errs_by_nothing():
    scored = figures([PERFECT, PERFECT])
    assert scored.pop("density_error") == scored.pop("density_error_inside") == 0
    assert set(scored.values()) == {1.0}


def test_spines_invented_lower_precision_and_raise_density():
    scored = figures([{**PERFECT, "found": 20}])
    assert (scored["precision"], scored["recall"]) == (0.5, 1.0)
    assert scored["f1_center"] == pytest.approx(2 / 3, abs=1e-3)
    assert scored["density_error"] == pytest.approx(1.0)


def test_length_at_the_fields_faces_lowers_the_density_of_the_whole_field_alone():
    scored = figures([{**PERFECT, "found_um": 25.0}])
    assert scored["density_error"] == pytest.approx(-0.2)
    assert scored["density_error_inside"] == 0


def test_steps_along_a_fork_add_up_to_its_length_wherever_its_pieces_end():
    swc = np.array(
        [
            [1, 3, 0.0, 0.0, 0.0, 1, -1],
            [2, 3, 3.0, 0.0, 0.0, 1, 1],
            [3, 3, 3.0, 4.0, 0.0, 1, 2],
            [4, 3, 3.0, 0.0, 0.05, 1, 2],
        ]
    )
    middles_um, lengths_um = steps_along(swc)
    assert lengths_um.sum() == pytest.approx(7.05)
    assert lengths_um.max() <= 0.1 + 1e-9
    # (z, y, x): the piece along x has its middle at x = 1.5
    along_x = (middles_um[:, :2] == 0).all(axis=1)
    assert lengths_um[along_x] @ middles_um[along_x, 2] / 3 == pytest.approx(1.5)
    assert steps_along(np.zeros((0, 7)))[1].sum() == 0


def test_nothing_found_scores_zero():
    nothing = dict.fromkeys(PERFECT, 0)
    true = {name: PERFECT[name] for name in ("true", "true_um", "true_line_um")}
    scored = figures([{**nothing, **true}])
    assert scored["f1_center"] == scored["cl_dice"] == 0
    assert scored["density_error"] == -1


def test_traced_length_lies_in_a_dendrite_half_a_micrometer_away_and_no_farther():
    dendrites = np.zeros((9, 40, 40), dtype=np.uint32)
    dendrites[4, 20] = 1
    rows = np.array([20, 24, 25])
    lines_um = np.column_stack([np.full(3, 4.0), rows * 0.12, np.full(3, 2.4)])
    slices_um = np.column_stack([[3.0, 2.0], np.full(2, 2.4), np.full(2, 2.4)])
    nothing = np.zeros((0, 3))
    assert length_in_dendrites(dendrites, Annotation(nothing, lines_um)) == pytest.approx(2 / 3)
    assert length_in_dendrites(dendrites, Annotation(nothing, slices_um)) == pytest.approx(1 / 2)

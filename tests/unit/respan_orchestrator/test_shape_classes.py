import time

import numpy as np
import pandas as pd
import pytest

from respan_orchestrator.rule_sets import find_rules, parse_rules
from respan_orchestrator.shape_classes import class_counts, classify

RODRIGUEZ = find_rules("rodriguez")
PROTRUSIONS = find_rules("protrusions")


def spine(head=0.5, neck=0.2, length=1.0, attached="seen", **more):
    """A spine with that head and neck diameter and length, in µm; neck None: it has none."""
    return {
        "dendrite_id": 1,
        "attached": attached,
        "head_diameter_um": head,
        "neck_diameter_um": np.nan if neck is None else neck,
        "neck_length": np.nan if neck is None else 0.5,
        "spine_length": length,
        "base_z_um": 0.0,
        "base_y_um": 0.0,
        "base_x_um": 10.0 * more.pop("number", 0),
        **more,
    }


def classes(*spines, rules=RODRIGUEZ):
    rows = [{**one, "base_x_um": one["base_x_um"] + 5.0 * n} for n, one in enumerate(spines)]
    return classify(pd.DataFrame(rows), rules)["shape_class"].tolist()


def exact(text):
    return parse_rules(text, "test")


FORCED = RODRIGUEZ.model_copy(update={"margin": 0.0})


def test_the_ratios_of_rodriguez_give_its_three_classes():
    assert classes(
        spine(head=0.6, neck=0.2),
        spine(head=0.25, neck=0.15),
        spine(head=0.4, neck=None, length=1.5),
        spine(head=0.5, neck=None, length=0.6),
    ) == ["mushroom", "thin", "thin", "stubby"]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (spine(head=0.35, neck=0.2), "mushroom"),  # at least 0.35
        (spine(head=0.3499, neck=0.2), "thin"),
        (spine(head=0.55, neck=0.5, length=0.6), "stubby"),  # 1.1 is not more than 1.1
        (spine(head=0.5501, neck=0.5, length=0.6), "mushroom"),
        (spine(head=0.4, neck=None, length=1.0), "stubby"),  # 2.5 is not more than 2.5
        (spine(head=0.4, neck=None, length=1.0001), "thin"),
    ],
)
def test_a_value_on_the_edge_belongs_where_the_rule_says(one, expected):
    assert classes(one, rules=FORCED) == [expected]


def test_near_an_edge_a_spine_is_ambiguous():
    found = classify(
        pd.DataFrame([spine(head=0.36), spine(head=0.40), spine(head=0.34)]), RODRIGUEZ
    )
    assert found["shape_class"].tolist() == ["ambiguous", "mushroom", "ambiguous"]
    assert found["shape_margin"].tolist() == pytest.approx(
        [0.36 / 0.35 - 1, 0.4 / 0.35 - 1, 0.01 / 0.35]
    )


def test_the_margin_is_that_of_the_question_that_matters():
    # The head is at its threshold, but without a neck nobody asks for it.
    found = classify(pd.DataFrame([spine(head=0.35, neck=None, length=0.5)]), RODRIGUEZ)
    assert found["shape_class"].tolist() == ["stubby"]
    assert found["shape_margin"].tolist() == pytest.approx([1 - 0.5 / 0.35 / 2.5])


def test_without_its_diameters_a_spine_is_unknown():
    found = classify(pd.DataFrame([spine(head=np.nan), spine(neck=np.nan)]), RODRIGUEZ)
    assert found["shape_class"].tolist() == ["unknown", "unknown"]
    assert found["shape_margin"].isna().all()


def test_what_does_not_matter_may_be_missing():
    assert classes(spine(head=0.6, neck=0.2, length=np.nan)) == ["mushroom"]
    # Thin by its head if its neck is thinner, thin by its length if not.
    assert classes(spine(head=0.2, neck=np.nan, length=1.0)) == ["thin"]


def test_a_neck_too_thin_to_be_seen_is_thinner_than_the_head():
    assert classes(
        spine(head=0.6, neck=np.nan, attached="inferred"),
        spine(head=0.2, neck=np.nan, attached="inferred"),
        spine(head=np.nan, neck=np.nan, attached="inferred"),
        spine(head=0.6, neck=np.nan, attached="none"),
    ) == ["mushroom", "thin", "unknown", "unknown"]


def test_a_few_neck_voxels_beside_a_head_that_touches_are_no_neck():
    assert classes(spine(head=0.6, neck=np.nan, length=0.8, neck_length=0.02)) == ["stubby"]


def test_columns_that_are_not_there_are_missing():
    assert classify(pd.DataFrame({"spine_id": [1, 2]}), RODRIGUEZ)["shape_class"].tolist() == [
        "unknown",
        "unknown",
    ]


def test_filopodia_are_long_and_headless_protrusions_short():
    assert classes(
        spine(head=0.3, neck=0.3, length=4.0),
        spine(head=0.3, neck=0.3, length=1.5),
        spine(head=0.3, neck=None, length=4.0),
        spine(head=0.8, neck=0.2, length=4.0),
        spine(head=0.6, neck=None, length=0.7),
        rules=PROTRUSIONS,
    ) == ["filopodium", "headless", "filopodium", "mushroom", "stubby"]


def test_two_heads_on_one_neck_are_branched():
    table = pd.DataFrame([spine(), spine(), spine()])
    table["base_x_um"] = [0.0, 0.02, 3.0]
    assert classify(table, PROTRUSIONS)["shape_class"].tolist() == [
        "branched",
        "branched",
        "mushroom",
    ]
    table["dendrite_id"] = [1, 2, 1]
    assert "branched" not in classify(table, PROTRUSIONS)["shape_class"].tolist()


def test_a_rule_may_ask_for_any_ratio_and_a_spine_that_fits_none_is_unknown():
    rules = exact('{name: own, rules: [{class: big, when: {head_vol / spine_vol: "> 0.5"}}]}')
    table = pd.DataFrame({"head_vol": [0.6, 0.2], "spine_vol": [1.0, 1.0]})
    assert classify(table, rules)["shape_class"].tolist() == ["big", "unknown"]


def test_a_class_without_an_alternative_has_no_margin():
    found = classify(pd.DataFrame([spine()]), exact("{name: all, rules: [{class: one}]}"))
    assert found["shape_class"].tolist() == ["one"]
    assert found["shape_margin"].isna().all()


def test_an_empty_table_has_no_classes():
    found = classify(pd.DataFrame([spine()]).iloc[:0], PROTRUSIONS)
    assert len(found) == 0
    assert list(found.columns) == ["shape_class", "shape_margin"]


def test_every_class_is_counted_for_every_owner():
    shapes = pd.Series(["mushroom", "thin", "mushroom", "unknown", "thin"])
    found = class_counts(shapes, np.array([0, 0, 2, 2, -1]), 3, RODRIGUEZ)
    assert found.columns.tolist() == [
        "spines_mushroom",
        "spines_thin",
        "spines_stubby",
        "spines_ambiguous",
        "spines_unknown",
    ]
    assert found.to_numpy().tolist() == [[1, 1, 0, 0, 0], [0] * 5, [1, 0, 0, 0, 1]]


def test_ten_thousand_spines_take_less_than_a_second():
    random = np.random.default_rng(0)
    count = 10_000
    table = pd.DataFrame(
        {
            "dendrite_id": random.integers(1, 20, count),
            "attached": "seen",
            "head_diameter_um": random.uniform(0.1, 1, count),
            "neck_diameter_um": random.uniform(0.05, 0.5, count),
            "neck_length": 1.0,
            "spine_length": random.uniform(0.3, 4, count),
            **{f"base_{axis}_um": random.uniform(0, 100, count) for axis in "zyx"},
        }
    )
    started = time.perf_counter()
    classify(table, PROTRUSIONS)
    assert time.perf_counter() - started < 1.0

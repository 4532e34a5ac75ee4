"""Labels of a dataset.json: the same meaning as nnU-Net's own, or an error."""

from pathlib import Path

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from tests.nnunet_models import LABELS, REGIONS, REGIONS_ORDER, write_random_model

from respan_common.errors import ModelError
from respan_common.model_folders import describe
from respan_common.model_labels import label_table

WHERE = Path("models/m/dataset.json")

CASES = {
    "classes": (LABELS, None),
    "classes and ignore": ({**LABELS, "ignore": 4}, None),
    "values out of order": ({"background": 0, "dendrite": 2, "spine": 1}, None),
    "lists of one value": ({"background": 0, "spine": [1], "dendrite": [2]}, None),
    "regions": (REGIONS, REGIONS_ORDER),
    "regions in another order": ({"spine": 1, "background": 0, "all": [2, 1]}, (1, 2)),
    "regions and ignore": ({**REGIONS, "ignore": 4}, REGIONS_ORDER),
    "a region of zeros": ({"background": 0, "empty": [0, 0], "all": [1, 2], "spine": 1}, (2, 1)),
}


def table_of(labels, order):
    dataset = {"labels": labels, "regions_class_order": list(order) if order else None}
    return label_table(dataset, WHERE)


@pytest.mark.parametrize(("labels", "order"), CASES.values(), ids=CASES)
def test_outputs_and_values_are_nnunets_own(labels, order):
    nnunets = LabelManager(labels, list(order) if order else None)
    table = table_of(labels, order)
    assert len(table.names) == nnunets.num_segmentation_heads
    assert list(table.values) == nnunets.all_labels
    assert table.ignore == nnunets.ignore_label
    assert (table.regions is not None) == nnunets.has_regions
    if table.regions is not None:
        expected = [one if isinstance(one, tuple) else (one,) for one in nnunets.all_regions]
        assert list(table.regions) == expected
        assert table.order == tuple(nnunets.regions_class_order)


def test_a_region_is_named_with_the_value_that_it_leaves():
    table = table_of(REGIONS, REGIONS_ORDER)
    assert table.written == {"background": 0, "neuron": 2, "spine": 1, "soma": 3}


def test_the_ignore_label_is_never_written():
    assert "ignore" not in table_of({**LABELS, "ignore": 4}, None).written


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"background": 0, "all": [1, 2], "spine": 1}, None, "needs regions_class_order with 2"),
        ({"background": 0, "all": [1, 2], "spine": 1}, (1, 2, 3), "needs regions_class_order"),
        ({"background": 0, "spine": 1, "ignore": 1}, None, "must be the highest value, 2, not 1"),
        ({"background": 0, "spine": 1, "ignore": 9}, None, "must be the highest value, 2, not 9"),
        ({"background": 0, "spine": 1, "ignore": [2, 3]}, None, "must be the highest"),
        ({"background": 0, "dendrite": 2}, None, "without gaps"),
        ({"background": 0, "spine": 1, "head": 1}, None, "without gaps"),
        ({"background": 0, "spine": "one"}, None, "whole numbers, but 'spine' has 'one'"),
        ({"0": "background", "1": "spine"}, None, "whole numbers"),
        ({"background": 0, "spine": 300}, None, "0 to 255"),
        ({"background": 0, "spine": []}, None, r"'spine' has \[\]"),
        ({}, None, "names no labels"),
    ],
)
def test_labels_that_cannot_be_are_refused_with_their_file(labels, order, message):
    with pytest.raises(ModelError, match=message) as refused:
        table_of(labels, order)
    assert str(WHERE) in str(refused.value)


def test_a_model_of_regions_says_what_its_network_gives_and_what_is_written(tmp_path):
    folder = write_random_model(
        tmp_path / "m", labels={**REGIONS, "ignore": 4}, regions_class_order=REGIONS_ORDER
    )
    model = describe(folder)
    assert (model.inputs, model.outputs, model.classes) == (1, 3, 4)
    assert model.regions == ((1, 2, 3), (1,), (3,))
    assert model.regions_class_order == REGIONS_ORDER
    assert model.labels == {"background": 0, "neuron": 2, "spine": 1, "soma": 3, "ignore": 4}


def test_a_model_of_classes_has_no_regions(tmp_path):
    model = describe(write_random_model(tmp_path / "m", labels={**LABELS, "ignore": 4}))
    assert (model.inputs, model.outputs, model.classes) == (1, 4, 4)
    assert (model.regions, model.regions_class_order) == (None, ())


def test_what_is_left_of_a_region_has_its_structures_role(tmp_path):
    folder = write_random_model(tmp_path / "m", labels=REGIONS, regions_class_order=REGIONS_ORDER)
    assert describe(folder).roles() == {"dendrite": 2, "spine": 1, "soma": 3}


def test_a_model_type_holds_for_regions_too(tmp_path):
    labels = {"background": 0, "a": [1, 2], "b": 1}
    folder = write_random_model(tmp_path / "m", labels=labels, regions_class_order=(2, 1))
    assert describe(folder).roles(1) == {"spine": 1, "dendrite": 2}

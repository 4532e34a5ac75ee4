"""What is verified of a model folder before anybody uses it."""

import json

import pytest
import torch
from tests.nnunet_models import (
    REGIONS,
    REGIONS_ORDER,
    make_plans_old,
    write_random_cascade,
    write_random_model,
)

from respan_common.errors import ModelError
from respan_orchestrator.model_checks import checks, refuse_useless

SPACING = (1.0, 0.1, 0.1)


def wrong(folder, scheme=None):
    return {check.subject: check.text for check in checks(folder, scheme) if not check.ok}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"convs": 2, "features": (2, 4, 8), "spacing": SPACING},
        {"patch": (32, 32)},
        {"folds": ("0", "1", "2"), "checkpoint": "checkpoint_best.pth"},
        {"network": "ResidualEncoderUNet", "convs": 2, "features": (2, 4, 8)},
        {"network": "ResidualEncoderUNet", "patch": (32, 32)},
        {"labels": {**REGIONS, "ignore": 4}, "regions_class_order": REGIONS_ORDER},
        {"configuration": "3d_lowres"},
    ],
)
def test_every_kind_of_model_passes(tmp_path, settings):
    assert wrong(write_random_model(tmp_path / "m", **{"spacing": SPACING, **settings})) == {}


def test_plans_of_early_versions_pass(tmp_path):
    assert wrong(make_plans_old(write_random_model(tmp_path / "m", spacing=SPACING))) == {}


def test_both_stages_of_a_cascade_are_looked_at(tmp_path):
    folder = write_random_cascade(tmp_path / "m", spacing=SPACING)
    found = list(checks(folder))
    assert [check.subject for check in found].count("weights") == 2
    assert all(check.ok for check in found)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_network(folder, **values):
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"] |= values
    (folder / "plans.json").write_text(json.dumps(plans))


def change_weights(folder, change):
    path = folder / "fold_all" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    change(content["network_weights"])
    torch.save(content, path)


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"features_per_stage": [3, 4]}, r"has the shape \(2, 1, 3, 3, 3\), not \(3, 1, 3, 3, 3\)"),
        ({"kernel_sizes": [[1, 3, 3], [3, 3, 3]]}, r"not \(2, 1, 1, 3, 3\)"),
        ({"strides": [[1, 1, 1], [1, 2, 2]]}, "transpconvs"),
        ({"n_conv_per_stage": [2, 1]}, "convs.1.conv.weight is missing"),
        ({"n_conv_per_stage": [0, 1]}, "do not fit"),
        ({"n_conv_per_stage_decoder": [0]}, "is one too many"),
        ({"features_per_stage": [2]}, "1 values for 2 stages"),
    ],
)
def test_plans_of_another_network_are_told_by_the_first_difference(tmp_path, plans, message):
    folder = write_random_model(tmp_path / "m", spacing=(1.0, 0.5, 0.5))
    change_network(folder, **plans)
    with pytest.raises(ModelError, match=message):
        refuse_useless(folder)


def test_labels_of_another_training_are_told_in_classes(tmp_path):
    folder = write_random_model(tmp_path / "m", spacing=SPACING)
    change(folder / "dataset.json", labels={"background": 0, "spine": 1, "dendrite": 2})
    assert "tells 4 classes with the background apart" in wrong(folder)["weights"]
    assert "names 3" in wrong(folder)["weights"]


def test_weights_that_are_no_numbers_are_told(tmp_path):
    folder = write_random_model(tmp_path / "m", spacing=SPACING)
    change_weights(folder, lambda weights: next(iter(weights.values())).fill_(float("inf")))
    assert "went astray" in wrong(folder)["weights"]


def test_weights_of_another_configuration_are_told(tmp_path):
    folder = write_random_model(tmp_path / "m", spacing=SPACING, configuration="3d_lowres")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"] = plans["configurations"]["3d_lowres"]
    (folder / "plans.json").write_text(json.dumps(plans))
    assert "was trained as '3d_lowres'" in wrong(folder)["weights"]


def test_plans_that_name_other_code_are_refused(tmp_path):
    folder = write_random_model(tmp_path / "m", spacing=SPACING)
    change_network(folder, nonlin="torch.nn.functional.torch.os.system")
    with pytest.raises(ModelError, match=r"refused: it names .*os\.system"):
        refuse_useless(folder)


def test_an_unknown_voxel_size_is_worth_a_warning_alone(tmp_path):
    folder = write_random_model(tmp_path / "m")
    assert set(wrong(folder)) == {"voxel size"}
    assert "--spacing" in refuse_useless(folder)[0]


def test_labels_that_say_nothing_are_wrong_unless_the_type_is_said(tmp_path):
    labels = {"background": 0, "class1": 1, "class2": 2}
    folder = write_random_model(tmp_path / "m", labels=labels, spacing=SPACING)
    assert "'class1'" in wrong(folder)["labels"]
    assert wrong(folder, scheme=1) == {}
    assert "'class1'" in refuse_useless(folder)[0]


def test_a_folder_that_is_no_model_ends_the_checks(tmp_path):
    assert set(wrong(tmp_path)) == {"files"}

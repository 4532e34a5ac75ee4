"""Models of two stages, and models of one stage beside them."""

import json
import shutil

import pytest
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.nnunet_models import (
    REGIONS,
    REGIONS_ORDER,
    write_random_cascade,
    write_random_model,
)

from respan_common.errors import ModelError
from respan_common.model_folders import describe

LOW, FULL = (f"nnUNetTrainer__nnUNetPlans__3d_{name}" for name in ("lowres", "cascade_fullres"))


@pytest.fixture
def dataset(tmp_path):
    return write_random_cascade(tmp_path / "Dataset001_spines", spacing=(1.0, 0.5, 0.5))


@pytest.mark.parametrize("below", ["", FULL])
def test_a_cascade_knows_its_first_stage(dataset, below):
    model = describe(dataset / below)
    assert (model.path, model.configuration) == (dataset / FULL, "3d_cascade_fullres")
    assert model.previous is not None
    assert model.previous.path == dataset / LOW
    assert model.previous.patch == (8, 16, 16)


@pytest.mark.parametrize("regions", [False, True])
def test_the_second_stage_sees_the_image_and_every_class(tmp_path, regions):
    settings = {"labels": {**REGIONS, "ignore": 4}, "regions_class_order": REGIONS_ORDER}
    model = describe(write_random_cascade(tmp_path, **(settings if regions else {})))
    plans = PlansManager(dict(model.plans))
    nnunets = determine_num_input_channels(plans, model.configuration, dict(model.dataset))
    assert (model.inputs, model.foreground) == (nnunets, (1, 2, 3))
    assert model.previous is not None
    assert model.previous.inputs == 1


def test_the_first_stage_is_a_model_of_its_own(dataset):
    model = describe(dataset / LOW)
    assert (model.configuration, model.previous, model.inputs) == ("3d_lowres", None, 1)


def test_full_resolution_comes_before_a_cascade(dataset):
    write_random_model(dataset / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    write_random_model(dataset / "nnUNetTrainer__nnUNetPlans__2d", patch=(32, 32))
    assert describe(dataset).configuration == "3d_fullres"


def test_the_digest_covers_the_first_stage(dataset):
    before = describe(dataset).digest
    write_random_model(dataset / LOW, configuration="3d_lowres", seed=7)
    assert describe(dataset).digest != before


def test_each_stage_may_have_its_own_folds(dataset):
    shutil.move(dataset / LOW / "fold_all", dataset / LOW / "fold_3")
    weights = dataset / LOW / "fold_3" / "checkpoint_final.pth"
    weights.rename(weights.with_name("checkpoint_best.pth"))
    model = describe(dataset)
    assert model.previous is not None
    assert (model.folds, model.previous.folds) == (("all",), ("3",))
    assert model.previous.checkpoints[0].name == "checkpoint_best.pth"


def test_a_missing_first_stage_is_named_with_where_to_copy_it(dataset):
    shutil.rmtree(dataset / LOW)
    with pytest.raises(ModelError, match=f"no first stage.*copy {LOW}.* to {dataset}"):
        describe(dataset)


def test_a_first_stage_without_weights_is_told(dataset):
    shutil.rmtree(dataset / LOW / "fold_all")
    with pytest.raises(ModelError, match=f"{LOW} has no weights"):
        describe(dataset)


def test_stages_with_different_labels_are_refused(dataset):
    described = dataset / LOW / "dataset.json"
    labels = {"background": 0, "dendrite": 1, "spine": 2, "soma": 3}
    described.write_text(json.dumps(json.loads(described.read_text()) | {"labels": labels}))
    with pytest.raises(ModelError, match="different labels"):
        describe(dataset)


def test_a_cascade_in_a_circle_is_refused(dataset):
    plans = json.loads((dataset / LOW / "plans.json").read_text())
    plans["configurations"]["3d_lowres"]["previous_stage"] = "3d_cascade_fullres"
    (dataset / LOW / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="two stages"):
        describe(dataset)

"""What a model folder says about itself, and what is wrong with it.

Regions, the ignore label and cascades are in `test_model_labels` and `test_cascades`.
"""

import json
import shutil

import pytest

from respan_common.errors import ModelError
from respan_common.model_folders import describe, find
from respan_common.schemes import SCHEMES

TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
LABELS = {"background": 0, "spine": 1, "dendrite": 2, "soma": 3}


def write_model(folder, folds=("all",), checkpoint="checkpoint_final.pth", **settings):
    """A folder that looks like a model; its weights are a few bytes."""
    configuration = {
        "patch_size": [8, 16, 16],
        "spacing": [1.0, 0.1, 0.2],
        "normalization_schemes": ["ZScoreNormalization"],
    }
    plans = {"configurations": {"3d_fullres": configuration | settings}}
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "channel1"}, "labels": LABELS})
    )
    for fold in folds:
        (folder / f"fold_{fold}").mkdir()
        (folder / f"fold_{fold}" / checkpoint).write_bytes(fold.encode())
    return folder


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("below", ["", TRAINER, f"Dataset001_spines/{TRAINER}"])
def test_every_layout_is_understood(tmp_path, below):
    folder = tmp_path / "model"
    write_model(folder / below)
    model = describe(folder)
    assert (model.path, model.configuration, model.folds) == (
        folder / below,
        "3d_fullres",
        ("all",),
    )
    assert (model.labels, model.classes) == (LABELS, 4)
    assert model.spacing_um == (1.0, 0.1, 0.2)
    assert find(tmp_path) == [folder]


def test_3d_fullres_is_taken_when_a_dataset_has_several_configurations(tmp_path):
    for name in ("2d", "3d_fullres"):
        folder = write_model(tmp_path / f"nnUNetTrainer__nnUNetPlans__{name}")
        rewrite(
            folder / "plans.json",
            configurations={
                name: {"patch_size": [8, 8], "spacing": [1, 1], "normalization_schemes": ["x"]}
            },
        )
    assert describe(tmp_path).configuration == "3d_fullres"


def test_several_models_that_nothing_tells_apart_are_listed(tmp_path):
    for name in ("a", "b"):
        write_model(tmp_path / name)
    with pytest.raises(ModelError, match=r"several models \(a, b\)"):
        describe(tmp_path)


def test_spacing_of_one_everywhere_means_unknown(tmp_path):
    assert describe(write_model(tmp_path / "m", spacing=[1, 1, 1])).spacing_um is None


def test_spacing_is_told_in_the_images_axis_order(tmp_path):
    folder = write_model(tmp_path / "m", spacing=[3.0, 1.0, 2.0])
    rewrite(folder / "plans.json", transpose_forward=[2, 0, 1])
    assert describe(folder).spacing_um == (1.0, 2.0, 3.0)


def test_an_inherited_configuration_is_resolved(tmp_path):
    folder = write_model(tmp_path / "m")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["large"] = {"inherits_from": "3d_fullres", "patch_size": [8, 32, 32]}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "card.json").write_text(json.dumps({"configuration": "large"}))
    model = describe(folder)
    assert (model.configuration, model.patch) == ("large", (8, 32, 32))
    assert model.settings["spacing"] == [1.0, 0.1, 0.2]


def test_all_numbered_folds_are_used_when_there_is_no_fold_all(tmp_path):
    model = describe(write_model(tmp_path / "m", folds=("0", "1", "4")))
    assert model.folds == ("0", "1", "4")


def test_a_fold_without_weights_is_left_out_aloud(tmp_path):
    folder = write_model(tmp_path / "m", folds=("0", "1"))
    (folder / "fold_1" / "checkpoint_final.pth").unlink()
    model = describe(folder)
    assert model.folds == ("0",)
    assert "fold_1" in model.warnings[0]


def test_the_best_checkpoint_serves_when_there_is_no_final_one(tmp_path):
    model = describe(write_model(tmp_path / "m", checkpoint="checkpoint_best.pth"))
    assert model.checkpoints[0].name == "checkpoint_best.pth"


def test_the_digest_depends_on_contents_and_not_on_the_place(tmp_path):
    folder = write_model(tmp_path / "m")
    before = describe(folder).digest
    shutil.copytree(folder, tmp_path / "copy")
    assert describe(tmp_path / "copy").digest == before
    (folder / "progress.png").write_bytes(b"not used")
    assert describe(folder).digest == before


@pytest.mark.parametrize("name", ["dataset.json", "plans.json", "fold_all/checkpoint_final.pth"])
def test_the_digest_changes_with_every_file_that_matters(tmp_path, name):
    folder = write_model(tmp_path / "m")
    before = describe(folder).digest
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n ")
    assert describe(folder).digest != before


def test_a_corrected_description_is_no_other_model(tmp_path):
    folder = write_model(tmp_path / "m")
    before = describe(folder).digest
    (folder / "card.json").write_text(json.dumps({"description": "for thick slices"}))
    assert describe(folder).digest == before


@pytest.mark.parametrize("entry", [{"spacing_um": [1, 0.1, 0.1]}, {"label_scheme": 1}])
def test_what_the_card_says_about_meaning_makes_another_model(tmp_path, entry):
    folder = write_model(tmp_path / "m", spacing=[1, 1, 1])
    before = describe(folder).digest
    (folder / "card.json").write_text(json.dumps(entry))
    assert describe(folder).digest != before


def test_the_card_knows_the_voxel_size_where_the_plans_do_not(tmp_path):
    folder = write_model(tmp_path / "m", spacing=[2, 2, 2])
    rewrite(folder / "plans.json", original_median_spacing_after_transp=[1, 1, 1])
    assert (describe(folder).spacing_um, describe(folder).trained_um) == (None, None)
    (folder / "card.json").write_text(json.dumps({"spacing_um": [1, 0.25, 0.5]}))
    model = describe(folder)
    assert (model.spacing_um, model.trained_um) == ((2, 0.5, 1), (1, 0.25, 0.5))


def test_the_plans_voxel_size_comes_before_the_cards(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / "card.json").write_text(json.dumps({"spacing_um": [9, 9, 9]}))
    assert describe(folder).spacing_um == (1.0, 0.1, 0.2)


@pytest.mark.parametrize("spacing", [[1, 0.1], "0.1", [0, 1, 1], ["a", "b", "c"]])
def test_a_voxel_size_that_is_none_is_refused(tmp_path, spacing):
    folder = write_model(tmp_path / "m")
    (folder / "card.json").write_text(json.dumps({"spacing_um": spacing}))
    with pytest.raises(ModelError, match="three lengths in µm"):
        describe(folder)


def test_images_of_a_coarse_network_have_their_own_voxel_size(tmp_path):
    folder = write_model(tmp_path / "m", spacing=[2.0, 0.4, 0.4])
    rewrite(folder / "plans.json", original_median_spacing_after_transp=[1.0, 0.2, 0.2])
    model = describe(folder)
    assert (model.spacing_um, model.trained_um) == ((2.0, 0.4, 0.4), (1.0, 0.2, 0.2))


def test_unfinished_work_is_no_model(tmp_path):
    write_model(tmp_path / ".m.partial")
    assert find(tmp_path) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_type_gives_the_roles_whatever_the_names(tmp_path, scheme):
    folder = write_model(tmp_path / "m")
    names = ["background", *(f"class{value}" for value in SCHEMES[scheme].values())]
    rewrite(folder / "dataset.json", labels={name: n for n, name in enumerate(names)})
    assert describe(folder).roles(scheme) == SCHEMES[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_label_names_give_the_roles_of_every_model_type(tmp_path, scheme):
    folder = write_model(tmp_path / "m")
    labels = {role.replace("_", " "): value for role, value in SCHEMES[scheme].items()}
    rewrite(folder / "dataset.json", labels={"background": 0, **labels})
    assert describe(folder).roles() == SCHEMES[scheme]


def test_the_card_may_know_the_model_type(tmp_path):
    folder = write_model(tmp_path / "m")
    rewrite(folder / "dataset.json", labels={"background": 0, "class1": 1, "class2": 2})
    (folder / "card.json").write_text(json.dumps({"label_scheme": 1}))
    assert describe(folder).roles() == {"spine": 1, "dendrite": 2}
    assert describe(folder).roles(2) == {"dendrite": 1, "soma": 2}


def test_classes_that_the_model_lacks_have_no_role(tmp_path):
    folder = write_model(tmp_path / "m")
    rewrite(folder / "dataset.json", labels={"background": 0, "spine": 1, "dendrite": 2})
    assert describe(folder).roles(1) == {"spine": 1, "dendrite": 2}


def test_an_unknown_label_is_named_with_the_way_out(tmp_path):
    folder = write_model(tmp_path / "m")
    rewrite(folder / "dataset.json", labels={"background": 0, "blob": 1})
    with pytest.raises(ModelError, match=r"'blob'.*label_scheme"):
        describe(folder).roles()


def break_plans(folder):
    (folder / "plans.json").write_text("{")


def two_channels(folder):
    rewrite(folder / "dataset.json", channel_names={"0": "a", "1": "b"})


def gap(folder):
    rewrite(folder / "dataset.json", labels={"background": 0, "dendrite": 2})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no model folder"),
        (lambda folder: shutil.rmtree(folder / "fold_all"), "has no weights"),
        (lambda folder: (folder / "dataset.json").unlink(), "has no dataset.json"),
        (lambda folder: (folder / "plans.json").unlink(), "has no plans.json"),
        (break_plans, "plans.json is not JSON"),
        (two_channels, "expects 2 channels"),
        (gap, "without gaps"),
        (lambda folder: rewrite(folder / "dataset.json", labels={}), "names no labels"),
        (lambda folder: rewrite(folder / "plans.json", configurations={}), "no configuration"),
    ],
)
def test_a_fault_is_told_with_the_folder(tmp_path, fault, message):
    folder = write_model(tmp_path / "m")
    fault(folder)
    with pytest.raises(ModelError, match=message) as refused:
        describe(folder)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("plans.json", {"configurations": ["3d_fullres"]}),
        ("plans.json", {"configurations": {"3d_fullres": 3}}),
        ("plans.json", {"transpose_forward": "zyx"}),
        ("plans.json", {"transpose_forward": [0, 0, 0]}),
        ("plans.json", {"original_median_spacing_after_transp": [1, 2]}),
        ("plans.json", {"original_median_spacing_after_transp": 3}),
        ("dataset.json", {"channel_names": 1}),
        ("dataset.json", {"labels": ["spine"]}),
        ("card.json", {"configuration": 3}),
    ],
)
def test_json_of_another_kind_is_told_and_not_a_bug(tmp_path, name, values):
    folder = write_model(tmp_path / "m")
    (folder / "card.json").write_text("{}")
    rewrite(folder / name, **values)
    with pytest.raises(ModelError, match=str(folder)):
        describe(folder)


def test_a_folder_of_other_things_is_not_a_model(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ModelError, match="not an nnU-Net model"):
        describe(tmp_path)
    assert find(tmp_path) == []
    assert find(tmp_path / "nowhere") == []

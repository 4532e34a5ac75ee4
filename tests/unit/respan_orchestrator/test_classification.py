import json

import pytest
from tests.unit.respan_orchestrator.test_summary import one_image, rows_of
from typer.testing import CliRunner

from respan_common.errors import InputError, SettingsError
from respan_orchestrator.__main__ import app
from respan_orchestrator.classification import classify_experiment
from respan_orchestrator.table_export import SPINES

SETTINGS = "Parameters: {input_resXY: 0.1, input_resZ: 0.5}\n"


@pytest.fixture
def experiment(tmp_path):
    for name in "AB":
        one_image(tmp_path / name)
        (tmp_path / name / "Analysis_Settings.yaml").write_text(SETTINGS)
    return tmp_path


def spines_of(experiment, name="A"):
    return rows_of(experiment / name / "Tables" / "a_detected_spines.csv")


def test_every_table_gets_the_classes_of_the_settings_rules(experiment):
    found = classify_experiment(experiment)
    assert found.rules == {"A": "rodriguez", "B": "rodriguez"}
    assert found.classes["mushroom"] == found.classes["stubby"] == 2
    assert [row["shape_class"] for row in spines_of(experiment)] == ["mushroom", "stubby"]
    dendrites = rows_of(experiment / "A" / "Tables" / "a_dendrite_summary.csv")
    assert dendrites[0]["spines_mushroom"] == "1"
    images = rows_of(experiment / "A" / "Tables" / "Detected_spines_summary.csv")
    assert images[0]["spines_stubby"] == "1"
    assert rows_of(experiment / "Experiment_summary.csv")[0]["shape_rules"] == "rodriguez"
    assert rows_of(experiment / "Experiment_sub_folders.csv")[1]["spines_mushroom"] == "1"


def test_other_rules_replace_the_classes_and_none_removes_them(experiment):
    own = experiment / "own.yaml"
    own.write_text('name: own\nrules: [{class: big, when: {spine_vol: "> 2"}}, {class: small}]\n')
    classify_experiment(experiment, str(own))
    assert [row["shape_class"] for row in spines_of(experiment)] == ["small", "big"]
    classify_experiment(experiment, "none")
    assert "shape_class" not in spines_of(experiment)[0]


def test_the_store_is_not_touched(experiment):
    store = experiment / "A" / "Zarr" / "a.ome.zarr"
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    classify_experiment(experiment, "protrusions")
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_the_rules_of_a_sub_folders_settings_hold_in_it_alone(experiment):
    text = SETTINGS + "Analysis: {shape_rules: protrusions}\n"
    (experiment / "B" / "Analysis_Settings.yaml").write_text(text)
    assert classify_experiment(experiment).rules == {"A": "rodriguez", "B": "protrusions"}


def test_rules_in_a_file_beside_the_settings_are_found(experiment):
    (experiment / "B" / "own.yaml").write_text("name: own\nrules: [{class: one}]\n")
    text = SETTINGS + "Analysis: {shape_rules: own.yaml}\n"
    (experiment / "B" / "Analysis_Settings.yaml").write_text(text)
    classify_experiment(experiment)
    assert spines_of(experiment, "B")[0]["shape_class"] == "one"


def test_unknown_rules_in_the_settings_are_refused_with_their_line(experiment):
    text = SETTINGS + "Analysis:\n  shape_rules: rodrigues\n"
    (experiment / "B" / "Analysis_Settings.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"line 3: .*did you mean 'rodriguez'"):
        classify_experiment(experiment)


def test_a_damaged_image_is_left_out_alone(experiment):
    with (experiment / "A" / "Zarr" / "a.ome.zarr" / SPINES).open("ab") as file:
        file.write(b"x")
    found = classify_experiment(experiment)
    assert found.images == ["B/a"]
    assert "damaged" in found.left_out["A/a"]


def test_an_experiment_without_measured_images_is_refused(tmp_path):
    (tmp_path / "a.tif").touch()
    (tmp_path / "Analysis_Settings.yaml").write_text(SETTINGS)
    with pytest.raises(InputError, match="a: not measured"):
        classify_experiment(tmp_path)


def test_the_command_counts_classes_as_json(experiment):
    result = CliRunner().invoke(app, ["classify", str(experiment), "--json"])
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["status"] == "done"
    assert content["classes"]["mushroom"] == 2
    assert content["images"] == ["A/a", "B/a"]


def test_the_command_refuses_unknown_rules(experiment):
    result = CliRunner().invoke(app, ["classify", str(experiment), "--rules", "mine", "--json"])
    assert result.exit_code == 2
    assert "neither of that name nor as a file" in json.loads(result.stdout)["error"]

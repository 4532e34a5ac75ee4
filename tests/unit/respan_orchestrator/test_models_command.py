"""`respan models` as a script and as a person see it."""

import json
import signal

import pytest
import torch
import yaml
from tests.nnunet_models import write_random_model
from typer.testing import CliRunner

from respan_orchestrator.commands.models import app

SPACING = (1.0, 0.1, 0.1)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPAN_STATE_FOLDER", str(tmp_path / "state"))
    monkeypatch.setenv("RESPAN_MODEL_ROOTS", str(tmp_path / "models"))
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
    monkeypatch.setenv("COLUMNS", "200")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "models"
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def source(tmp_path):
    folder = write_random_model(tmp_path / "mine", spacing=SPACING)
    card = {"license": "MIT", "metrics": {"f1": 0.8}, "description": "[red]not markup[/]"}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def respan_models(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(*arguments):
    result = respan_models(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_an_imported_model_is_listed_shown_and_checked(root, source):
    assert said("import", source)[0] == 0
    code, listed = said("list")
    assert (code, [model["name"] for model in listed["models"]]) == (0, ["mine"])
    code, shown = said("show", "mine")
    assert code == 0
    assert shown.keys() >= {
        "name",
        "path",
        "kind",
        "labels",
        "spacing_um",
        "digest",
        "metrics",
        "patch",
        "folds",
        "license",
        "card",
        "operating_point",
        "configuration",
    }
    assert (shown["path"], shown["spacing_um"]) == (str(root / "mine"), list(SPACING))
    code, checked = said("check", root / "mine")
    assert (code, checked["roles"]) == (0, {"spine": 1, "dendrite": 2, "soma": 3})


def test_people_see_tables_and_cards_are_no_markup(root, source):
    shown = respan_models("import", source)
    assert shown.exit_code == 0
    assert "[red]not markup[/]" in shown.stdout
    listed = respan_models("list").stdout
    assert "mine" in listed
    assert "1 x 0.1 x 0.1" in listed
    assert str(source) in listed
    assert "✓" in respan_models("check", "mine").stdout


def test_a_model_that_cannot_be_used_is_listed_with_the_reason(root, source):
    respan_models("import", source)
    (root / "mine" / "plans.json").unlink()
    assert "mine has no plans.json" in said("list")[1]["broken"][0]
    assert "cannot be used" in respan_models("list").stdout


def test_the_description_for_bioimage_io_is_yaml(root, source):
    printed = yaml.safe_load(respan_models("show", source, "--rdf").stdout)
    assert printed == said("show", source, "--rdf")[1]
    assert printed["license"] == "MIT"


@pytest.mark.parametrize("command", ["check", "import"])
def test_a_booby_trapped_checkpoint_is_refused_and_does_not_go_off(root, source, tmp_path, command):
    canary = tmp_path / "canary"

    class Trap:
        def __reduce__(self):
            return open, (str(canary), "w")

    torch.save({"network_weights": Trap()}, source / "fold_all" / "checkpoint_final.pth")
    code, answer = said(command, source)
    assert (code, answer["status"]) == (2, "failed")
    assert "would run code" in answer["error"]
    assert respan_models(command, source).exit_code == 2
    assert not canary.exists()
    assert said("list")[1]["models"] == []


def test_labels_that_say_nothing_fail_a_check_until_the_type_is_said(root, tmp_path):
    labels = {"background": 0, "class1": 1, "class2": 2}
    folder = write_random_model(tmp_path / "m", labels=labels, spacing=SPACING)
    code, answer = said("check", folder)
    assert (code, "'class1'" in answer["error"]) == (2, True)
    code, answer = said("check", folder, "--scheme", 1)
    assert (code, answer["roles"]) == (0, {"spine": 1, "dendrite": 2})
    assert said("import", folder, "--scheme", 1)[1]["card"]["label_scheme"] == 1


def test_a_voxel_size_can_be_given_once_and_for_all(root, tmp_path):
    folder = write_random_model(tmp_path / "m")
    assert "--spacing" in said("check", folder)[1]["warnings"][0]
    assert said("import", folder, "--spacing", "1,0.1,0.1")[1]["spacing_um"] == [1, 0.1, 0.1]
    code, answer = said("import", folder, "--name", "b", "--spacing", "1,0,0.1")
    assert (code, "three lengths" in answer["error"]) == (2, True)


def test_a_taken_name_is_replaced_only_on_request(root, source):
    assert [said("import", source)[0] for _ in range(2)] == [0, 2]
    assert said("import", source, "--force")[0] == 0
    assert said("import", source, "--name", "other")[0] == 0

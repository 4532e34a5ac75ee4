"""Models that are brought among those that can be called by name."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tests.nnunet_models import write_random_cascade, write_random_model

from respan_common.errors import ModelError
from respan_common.model_folders import describe
from respan_orchestrator.model_imports import import_model
from respan_orchestrator.models import known_models

TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
SPACING = (1.0, 0.1, 0.1)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def source(tmp_path):
    folder = write_random_model(tmp_path / "Dataset001_spines" / TRAINER, spacing=SPACING)
    (folder / "card.json").write_text(json.dumps({"license": "MIT", "metrics": {"f1": 0.8}}))
    (folder / "progress.png").write_bytes(b"not needed")
    (folder.parent / "LICENSE").write_text("do what you like")
    return folder.parent


def zipped(folder, archive, below=""):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for path in sorted(folder.rglob("*")):
            content.write(path, Path(below) / path.relative_to(folder))
    return archive


def names(root):
    return [model.name for model in known_models([root])]


def left_over(root):
    """Everything in the registry that is neither a model nor its lock."""
    known = {*names(root), ".imports.lock"}
    return [path.name for path in root.iterdir() if path.name not in known]


def test_a_folder_is_imported_with_card_and_license(root, source):
    model, warnings = import_model(source, [root])
    assert (model.name, model.path, warnings) == ("Dataset001_spines", root / model.name, [])
    assert (model.card["license"], model.card["metrics"]) == ("MIT", {"f1": 0.8})
    assert (model.path / "LICENSE").read_text() == "do what you like"
    assert not (model.path / "progress.png").exists()
    assert left_over(root) == []


@pytest.mark.parametrize("below", ["", "Dataset001_spines", "a/Dataset001_spines"])
def test_a_zip_with_and_without_a_top_folder_is_imported(root, source, tmp_path, below):
    archive = zipped(source, tmp_path / "spines.zip", below)
    model, _ = import_model(archive, [root], name="mine")
    assert model.digest == describe(source).digest
    assert (model.path / "LICENSE").is_file()
    assert left_over(root) == []


def test_a_name_comes_from_the_dataset_not_from_the_trainer(root, source, tmp_path):
    assert import_model(source / TRAINER, [root])[0].name == "Dataset001_spines"
    assert import_model(zipped(source, tmp_path / "a.zip"), [root])[0].name == "a"
    archive = zipped(source, tmp_path / "b.zip", "Dataset007_thin")
    assert import_model(archive, [root])[0].name == "Dataset007_thin"


def test_the_card_says_where_a_model_came_from(root, source, tmp_path):
    origin = import_model(source, [root])[0].card["imported"]
    assert (origin["from"], origin["digest"]) == (str(source), describe(source).digest)
    archive = zipped(source, tmp_path / "b.zip")
    origin = import_model(archive, [root], name="zipped")[0].card["imported"]
    assert origin["from"] == str(archive)
    assert len(origin["sha256"]) == 64
    assert origin["at"].startswith("20")


def test_an_imported_model_predicts_as_its_source_and_has_its_digest(root, source):
    model, _ = import_model(source, [root], name="mine")
    theirs = describe(source)
    assert model.digest == theirs.digest
    assert model.checkpoints[0].read_bytes() == theirs.checkpoints[0].read_bytes()


def test_both_stages_of_a_cascade_are_imported(root, tmp_path):
    source = write_random_cascade(tmp_path / "cascade", spacing=SPACING)
    model, _ = import_model(source / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", [root])
    assert (model.name, model.configuration) == ("cascade", "3d_cascade_fullres")
    assert model.digest == describe(source).digest
    assert names(root) == ["cascade"]


def test_what_the_user_knows_better_stands_in_the_card(root, tmp_path):
    labels = {"background": 0, "a": 1, "b": 2}
    source = write_random_model(tmp_path / "m", labels=labels)
    said = {"spacing_um": [1, 0.1, 0.2], "label_scheme": 1}
    model, warnings = import_model(source, [root], said=said)
    assert (model.spacing_um, model.roles()) == ((1, 0.1, 0.2), {"spine": 1, "dendrite": 2})
    assert warnings == []


def test_a_voxel_size_that_the_plans_know_better_is_not_used_silently(root, source):
    model, warnings = import_model(source, [root], said={"spacing_um": [9, 9, 9]})
    assert model.spacing_um == SPACING
    assert "not used: its plans say 1 x 0.1 x 0.1" in warnings[0]


def test_a_name_that_is_taken_is_not_overwritten_unless_forced(root, source, tmp_path):
    import_model(source, [root], name="mine")
    other = write_random_model(tmp_path / "other", spacing=SPACING, seed=5)
    with pytest.raises(ModelError, match=r"'mine' already.*--name.*--force"):
        import_model(other, [root], name="mine")
    assert describe(root / "mine").digest == describe(source).digest
    import_model(other, [root], name="mine", force=True)
    assert describe(root / "mine").digest == describe(other).digest
    assert left_over(root) == []


def test_a_name_in_another_root_is_taken_too(root, source, tmp_path):
    write_random_model(tmp_path / "shipped" / "confocal", spacing=SPACING)
    with pytest.raises(ModelError, match="'confocal' already"):
        import_model(source, [root, tmp_path / "shipped"], name="confocal")


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", "-x", "a\nb", "x" * 101, " "])
def test_a_path_is_no_name(root, source, name):
    with pytest.raises(ModelError, match="another --name"):
        import_model(source, [root], name=name)
    assert names(root) == []


def test_a_model_that_is_refused_leaves_nothing_and_is_called_as_the_user_called_it(root, source):
    weights = source / TRAINER / "fold_all" / "checkpoint_final.pth"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="copy it again") as refused:
        import_model(source, [root])
    assert str(root) not in str(refused.value)
    assert str(source) in str(refused.value)
    assert (names(root), left_over(root)) == ([], [])


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_booby_trapped_checkpoint_is_refused_and_does_not_go_off(root, source, tmp_path, as_zip):
    canary = tmp_path / "canary"

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    weights = source / TRAINER / "fold_all" / "checkpoint_final.pth"
    torch.save({**torch.load(weights, weights_only=True), "logging": Trap()}, weights)
    given = zipped(source, tmp_path / "trap.zip") if as_zip else source
    with pytest.raises(ModelError, match="would run code"):
        import_model(given, [root])
    assert not canary.exists()
    assert (names(root), left_over(root)) == ([], [])


@pytest.mark.parametrize("name", ["LICENSE", "card.json", "fold_all/checkpoint_final.pth"])
def test_a_link_out_of_the_folder_is_not_followed(root, source, tmp_path, name):
    secret = tmp_path / "secret"
    linked = source / TRAINER / name
    shutil.move(linked, secret) if linked.exists() else secret.write_text("private")
    linked.symlink_to(secret)
    if name == "card.json":
        secret.write_text("{}")
    with pytest.raises(ModelError, match="link out of the model folder"):
        import_model(source, [root])
    assert left_over(root) == []


def test_a_link_within_the_folder_is_a_file_like_any_other(root, source):
    weights = source / TRAINER / "fold_all" / "checkpoint_final.pth"
    shutil.move(weights, source / "weights")
    weights.symlink_to(source / "weights")
    model, _ = import_model(source, [root])
    assert not model.checkpoints[0].is_symlink()


def killed(source, root, rename):
    script = Path(__file__).with_name("killed_import.py")
    command = [sys.executable, str(script), str(source), str(root), str(rename)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL


def test_a_killed_import_leaves_no_half_model_and_can_be_repeated(root, source):
    killed(source, root, 1)
    assert names(root) == []
    assert len(left_over(root)) == 1
    import_model(source, [root], name="mine")
    assert (names(root), left_over(root)) == (["mine"], [])


@pytest.mark.parametrize("rename", [1, 2])
def test_a_killed_replacement_does_not_lose_the_old_model(root, source, tmp_path, rename):
    old, _ = import_model(source, [root], name="mine")
    other = write_random_model(tmp_path / "other", spacing=SPACING, seed=5)
    killed(other, root, rename)
    import_model(other, [root], name="another")
    assert describe(root / "mine").digest == old.digest
    assert left_over(root) == []


def test_what_is_neither_folder_nor_zip_is_told(root, source, tmp_path):
    with pytest.raises(ModelError, match="there is no"):
        import_model(tmp_path / "nowhere", [root])
    weights = source / TRAINER / "fold_all" / "checkpoint_final.pth"
    with pytest.raises(ModelError, match="copy the whole result folder"):
        import_model(weights, [root])
    with pytest.raises(ModelError, match="not a zip"):
        import_model(source / TRAINER / "plans.json", [root])


def test_without_a_model_root_the_way_out_is_named(source):
    with pytest.raises(ModelError, match="RESPAN_MODEL_ROOTS"):
        import_model(source, [])

"""A model is trained from phantoms through the command line, and then segments."""

import shutil

import pytest

pytestmark = pytest.mark.slow

TINY = (
    *("--epochs", "2", "--set", "dataset_name=mine", "--set", "iterations_per_epoch=3"),
    *("--set", "patch_size=[8,64,64]", "--set", "features_per_stage=[4,8,16]"),
)


def test_a_trained_model_is_not_trained_again_and_can_be_used(respan, tmp_path):
    phantoms, data, out = (tmp_path / name for name in ("phantoms", "data", "models"))
    assert respan("synth", phantoms, "--kind", "two-photon", "--shape", "12,96,96").code == 0
    for source, target, suffix in (("images", "imagesTr", "_0000"), ("labels", "labelsTr", "")):
        (data / target).mkdir(parents=True)
        (made,) = (phantoms / source).glob("*.tif")
        shutil.copyfile(made, data / target / f"case{suffix}.tif")
    first = respan("train", "nnunet", data, "--out", out, *TINY)
    assert (first.code, first.content["numbers"]["epochs"]) == (0, 2)
    weights = out / "mine" / "fold_all" / "checkpoint_final.pth"
    written = weights.stat().st_mtime_ns
    assert respan("train", "nnunet", data, "--out", out, *TINY).code == 0
    assert weights.stat().st_mtime_ns == written
    (image,) = (phantoms / "images").glob("*.tif")
    labels = respan("segment", image, "--out", tmp_path / "out", "--model", out / "mine")
    assert labels.code == 0, labels
    assert (tmp_path / "out" / f"{image.stem}_labels.tif").is_file()

"""Commands on single files and on models, with real services."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.e2e.command_line import CommandsHere
from tests.hand_model import DENDRITE, LABELS, SPACING_UM, draw, write_image


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    return write_image(tmp_path_factory.mktemp("files") / "cell.tif")


@pytest.fixture(scope="module")
def segmented(respan, image, model) -> Path:
    """Folder with the image's label TIFF."""
    out = image.parent / "segmented"
    answer = respan("segment", image, "--out", out, "--model", model)
    assert answer.content["written"] == [str(out / "cell_labels.tif")]
    return out


def test_segment_writes_the_classes_that_were_drawn(segmented, image):
    labels = tifffile.imread(segmented / "cell_labels.tif")
    assert np.array_equal(labels == LABELS["dendrite"], tifffile.imread(image) > DENDRITE - 100)


def test_segment_does_it_again_only_if_something_changed(segmented, commands, image, model):
    again = commands("segment", image, "--out", segmented, "--model", model)
    assert "segmentation" in again.content["skipped"]


def test_segment_writes_probabilities_and_doubt_if_asked(commands, image, model, tmp_path):
    usual = ("segment", image, "--out", tmp_path, "--model", model)
    asked = ("--set", "segmentation.probabilities=true", "--set", "segmentation.uncertainty=true")
    answer = commands(*usual, *asked)
    names = ("labels", "probabilities", "uncertainty")
    paths = [tmp_path / f"cell_{name}.tif" for name in names]
    assert answer.content["written"] == [str(path) for path in paths]
    shares, doubt = (tifffile.imread(path) for path in paths[1:])
    depth, height, width = tifffile.imread(image).shape
    assert (shares.dtype, shares.shape) == (np.uint8, (depth, len(LABELS), height, width))
    assert (doubt.dtype, doubt.shape) == (np.float32, (depth, height, width))
    commands(*usual)
    assert [path.exists() for path in paths] == [True, False, False]


def test_quantify_takes_labels_of_any_origin(segmented, commands, image, tmp_path):
    options = ("--scheme", 3, "--set", "quantification.min_dendrite_volume_um3=1")
    labels = segmented / "cell_labels.tif"
    answer = commands("quantify", image, labels, "--out", tmp_path, *options)
    assert answer.content["numbers"]["spines"] == 3
    assert (tmp_path / "Tables" / "cell_detected_spines.csv").is_file()


def test_quantify_refuses_labels_of_another_shape(commands, image, tmp_path):
    labels = tmp_path / "labels.tif"
    tifffile.imwrite(labels, np.zeros((5, 8, 8), np.uint8))
    answer = commands("quantify", image, labels, "--out", tmp_path)
    assert answer.code == 2
    assert "shape" in answer.content["error"]


def test_restore_without_a_model_says_what_it_needs(commands, image, tmp_path):
    answer = commands("restore", image, "--out", tmp_path)
    assert answer.code == 2
    assert "--axial-model" in answer.content["error"]


def test_convert_goes_there_and_back(commands, image, tmp_path):
    there = commands("convert", image, "--to", "ome-zarr", "--out", tmp_path)
    (store,) = there.content["written"]
    back = commands("convert", store, "--to", "tiff", "--out", tmp_path / "back")
    (copy,) = back.content["written"]
    assert np.array_equal(tifffile.imread(copy).squeeze(), draw())


def test_synth_writes_images_with_their_truth(commands, tmp_path):
    options = ("--kind", "two-photon", "--shape", "16,96,96", "--images", 1)
    assert commands("synth", tmp_path, *options).code == 0
    for kind in ("images/*.tif", "labels/*.tif", "instances/*.tif", "truth/*.csv", "truth/*.swc"):
        assert list(tmp_path.glob(kind)), kind


def test_synth_refuses_a_shape_of_two_numbers(commands, tmp_path):
    answer = commands("synth", tmp_path, "--shape", "16,96")
    assert answer.code == 2
    assert "--shape" in answer.content["error"]


def test_models_are_listed_shown_and_checked(commands, model):
    listed = CommandsHere(commands.environment | {"RESPAN_MODEL_ROOTS": str(model.parent)})
    assert [found["name"] for found in listed("models", "list").content["models"]] == ["by_hand"]
    shown = listed("models", "show", "by_hand").content
    assert (shown["labels"], shown["spacing_um"]) == (LABELS, list(SPACING_UM))
    assert listed("models", "check", model).content["roles"] == {"spine": 1, "dendrite": 2}


def test_a_model_that_is_none_is_not_shown(commands):
    answer = commands("models", "show", "unheard_of")
    assert answer.code == 2
    assert "unheard_of" in answer.content["error"]


def test_doctor_examines_this_machine(respan):
    answer = respan("doctor")
    assert answer.code in (0, 2)
    assert answer.content["findings"]

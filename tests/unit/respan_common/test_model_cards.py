"""Cards in the words of bioimage.io, judged by its own validator, and images that do not fit."""

import gc
import hashlib
import json

import numpy as np
import pytest
import yaml
from bioimageio.spec import load_description
from bioimageio.spec.model.v0_5 import ModelDescr
from tests.nnunet_models import (
    REGIONS,
    REGIONS_ORDER,
    make_plans_old,
    write_random_cascade,
    write_random_model,
)

from respan_common.geometry import VoxelSpacing
from respan_common.model_cards import FAR_ALONG_Z, FAR_IN_PLANE, misfits, rdf_of
from respan_common.model_folders import describe

pytestmark = [
    # bioimageio.spec leaves files open; they are closed by `judged`.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SPACING = (1.0, 0.1, 0.2)
CARD = {
    "name": "two/photon: v2",
    "description": "Spines in vivo.",
    "modality": "two-photon microscopy in vivo, 8 to 16 bit",
    "license": "Apache-2.0",
    "authors": ["A. Cell", {"name": "B. Spine", "affiliation": "Somewhere"}],
    "cite": [{"text": "nnU-Net", "doi": "10.1038/s41592-020-01008-z"}],
    "training_data": "phantoms",
    "metrics": {"f1": 0.8},
    "operating_point": {"min_dendrite_volume_um3": 3.0},
    "limits": "Small.",
    "imported": {"from": "/home/someone/private"},
}


def described(folder, card=CARD):
    model = describe(folder)
    (model.path / "card.json").write_text(json.dumps(card))
    return describe(folder)


def judged(model):
    """bioimage.io's own reading of the description, with every file and checksum looked at."""
    path = model.path / "rdf.yaml"
    path.write_text(yaml.safe_dump(rdf_of(model), sort_keys=False))
    found = load_description(path, perform_io_checks=True)
    gc.collect()  # it leaves files open
    summary = found.validation_summary
    errors = [error.msg for detail in summary.details for error in detail.errors]
    assert errors == []
    assert summary.status in ("valid-format", "passed")
    assert isinstance(found, ModelDescr)
    return found


@pytest.mark.parametrize("card", [CARD, {}, {"name": "a"}])
def test_bioimage_io_finds_every_card_valid(tmp_path, card):
    judged(described(write_random_model(tmp_path / "m", spacing=SPACING), card))


@pytest.mark.parametrize(
    "settings",
    [
        {"patch": (32, 32)},
        {"folds": ("0", "1")},
        {"transpose": (2, 0, 1)},
        {"network": "ResidualEncoderUNet"},
        {"normalization": "CTNormalization"},
        {"normalization": "RescaleTo01Normalization"},
        {"normalization": "RGBTo01Normalization"},
        {"normalization": "NoNormalization"},
        {"spacing": (1.0, 1.0, 1.0)},
        {"labels": {**REGIONS, "ignore": 4}, "regions_class_order": REGIONS_ORDER},
        {"labels": {"background": 0, "Odd name µ": 1, "2": 2}},
    ],
)
def test_bioimage_io_finds_every_kind_of_model_valid(tmp_path, settings):
    judged(described(write_random_model(tmp_path / "m", **{"spacing": SPACING, **settings})))


def test_bioimage_io_finds_a_cascade_valid(tmp_path):
    model = described(write_random_cascade(tmp_path / "m", spacing=SPACING))
    found = judged(model)
    assert [str(tensor.id) for tensor in found.inputs] == ["image", "first_stage"]
    assert rdf_of(model)["config"]["respan"]["first_stage"]["configuration"] == "3d_lowres"


def test_plans_of_early_versions_are_described(tmp_path):
    folder = make_plans_old(write_random_model(tmp_path / "m", spacing=SPACING, convs=2))
    found = rdf_of(describe(folder))["weights"]["pytorch_state_dict"]["architecture"]
    assert (found["callable"], found["kwargs"]["n_conv_per_stage"]) == ("PlainConvUNet", [2, 2])


def test_axes_have_the_networks_order_and_the_images_voxel_size(tmp_path):
    folder = write_random_model(
        tmp_path / "m", spacing=(0.2, 1.0, 0.1), transpose=(2, 0, 1), patch=(8, 16, 32)
    )
    image = rdf_of(describe(folder))["inputs"][0]
    axes = [(axis["id"], axis["scale"], axis["unit"]) for axis in image["axes"][2:]]
    assert axes == [("x", 0.2, "micrometer"), ("z", 1.0, "micrometer"), ("y", 0.1, "micrometer")]
    assert [axis["size"]["min"] for axis in image["axes"][2:]] == [8, 16, 32]


def test_outputs_are_named_in_the_networks_order(tmp_path):
    labels = {"dendrite": 2, "background": 0, "spine": 1}
    model = describe(write_random_model(tmp_path / "a", labels=labels))
    channel = rdf_of(model)["outputs"][0]["axes"][1]
    assert channel["channel_names"] == ["background", "spine", "dendrite"]
    regions = describe(
        write_random_model(tmp_path / "b", labels=REGIONS, regions_class_order=REGIONS_ORDER)
    )
    output = rdf_of(regions)["outputs"][0]
    assert output["axes"][1]["channel_names"] == ["neuron", "spine", "soma"]
    assert output["postprocessing"] == [{"id": "sigmoid"}]


def test_weights_and_what_has_no_place_elsewhere_are_told(tmp_path):
    model = described(write_random_model(tmp_path / "m", spacing=SPACING, folds=("0", "3")))
    found = rdf_of(model)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in model.checkpoints]
    assert found["weights"]["pytorch_state_dict"]["sha256"] == digests[0]
    own = found["config"]["respan"]
    assert [one["sha256"] for one in own["weights"]] == digests
    assert [one["source"].split("/")[0] for one in own["weights"]] == ["fold_0", "fold_3"]
    assert (own["digest"], own["training_data"]) == (model.digest, "phantoms")
    assert own["operating_point"] == {"min_dendrite_volume_um3": 3.0}
    assert own["roles"] == {"spine": 1, "dendrite": 2, "soma": 3}
    assert "private" not in json.dumps(found)


def test_test_tensors_cover_and_documentation_are_named_when_there_are_some(tmp_path):
    model = described(write_random_model(tmp_path / "m", spacing=SPACING))
    np.save(model.path / "test_input.npy", np.ones((1, 1, 16, 32, 32), np.float32))
    np.save(model.path / "test_output.npy", np.full((1, 4, 16, 32, 32), 0.25, np.float32))
    (model.path / "README.md").write_text("# Model\n")
    found = judged(model)
    assert found.inputs[0].test_tensor is not None
    assert found.outputs[0].test_tensor is not None
    assert found.documentation is not None


@pytest.fixture
def model(tmp_path):
    return described(write_random_model(tmp_path / "m", spacing=(0.4, 0.1, 0.1)))


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ((0.4, 0.1, 0.1), True),
        ((0.4, 0.1 * FAR_IN_PLANE, 0.1 * FAR_IN_PLANE), True),
        ((0.4, 0.1 * FAR_IN_PLANE * 1.01, 0.1), False),
        ((0.4, 0.1, 0.1 / FAR_IN_PLANE / 1.01), False),
        ((0.4 * FAR_ALONG_Z, 0.1, 0.1), True),
        ((0.4 / FAR_ALONG_Z, 0.1, 0.1), True),
        ((0.4 * FAR_ALONG_Z * 1.01, 0.1, 0.1), False),
        ((0.9, 0.06, 0.06), False),  # each edge is near, but the voxels' proportion is not
    ],
)
def test_only_a_far_voxel_size_is_a_misfit(model, image, fits):
    assert (misfits(model, VoxelSpacing(*image)) == []) == fits


def test_a_misfit_names_both_voxel_sizes_and_the_way_out(model):
    (text,) = misfits(model, VoxelSpacing(0.4, 0.3, 0.3))
    for part in ("0.4 x 0.1 x 0.1", "0.4 x 0.3 x 0.3", "3 times in y", "respan models list"):
        assert part in text


def test_doubling_both_voxel_sizes_changes_nothing(model):
    image = VoxelSpacing(0.8, 0.15, 0.15)
    twice = VoxelSpacing(1.6, 0.3, 0.3)
    assert misfits(model, image) == misfits(model, twice, trained_um=(0.8, 0.2, 0.2)) == []


def test_an_unknown_voxel_size_is_no_misfit(tmp_path):
    model = describe(write_random_model(tmp_path / "m"))
    assert misfits(model, VoxelSpacing(5, 5, 5)) == []
    assert misfits(model, VoxelSpacing(5, 5, 5), trained_um=(1, 1, 1)) != []


def test_a_coarse_network_is_judged_by_its_training_images(tmp_path):
    folder = write_random_model(tmp_path / "m", spacing=(3.0, 0.4, 0.4))
    plans = json.loads((folder / "plans.json").read_text())
    plans["original_median_spacing_after_transp"] = [1.0, 0.1, 0.1]
    (folder / "plans.json").write_text(json.dumps(plans))
    assert misfits(describe(folder), VoxelSpacing(1.0, 0.1, 0.1)) == []


@pytest.mark.parametrize(
    ("modality", "fits"),
    [
        ("", True),
        ("2P", True),
        ("Multi-photon, awake mouse", True),
        ("unheard of", True),
        ("confocal or two-photon", True),
        ("Confocal (Airyscan)", False),
        ("spinning-disk", False),
    ],
)
def test_another_modality_is_a_misfit_where_both_are_known(model, modality, fits):
    told = misfits(model, VoxelSpacing(0.4, 0.1, 0.1), modality=modality)
    assert (told == []) == fits
    assert fits or "trained for two-photon images, this one is confocal" in told[0]

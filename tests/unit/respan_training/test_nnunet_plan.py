import os

import numpy as np
import pytest

from respan_common.errors import InputError
from respan_common.geometry import VoxelSpacing
from respan_common.params import NnunetTrainingParams
from respan_training.nnunet_dataset import LabeledVolume
from respan_training.nnunet_plan import NnunetFolders, fingerprint, plan

SHAPE = (24, 64, 64)
DESCRIPTION = {
    "channel_names": {"0": "neuron"},
    "labels": {"background": 0, "spine": 1, "dendrite": 2},
    "numTraining": 1,
    "file_ending": ".tif",
    "overwrite_image_reader_writer": "Tiff3DIO",
}
TWO_PHOTON = VoxelSpacing(1.0, 0.102, 0.102)


def volume(spacing=TWO_PHOTON):
    labels = np.zeros(SHAPE, dtype=np.float32)
    labels[4:8, 20:30] = 2
    return LabeledVolume(1 + 10 * labels[None], labels, spacing)


def planned(tmp_path, spacing=TWO_PHOTON, **params):
    plans = plan(
        NnunetFolders(tmp_path, "x"),
        DESCRIPTION,
        fingerprint([volume(spacing)], 1),
        NnunetTrainingParams(**params),
    )
    return plans["configurations"]["3d_fullres"]


def test_coarse_planes_are_convolved_only_once_the_others_have_caught_up(tmp_path):
    settings = planned(tmp_path, patch_size=[12, 64, 64], features_per_stage=[2, 4, 4, 4, 4])
    network = settings["architecture"]["arch_kwargs"]
    assert network["kernel_sizes"] == [[1, 3, 3]] * 3 + [[3, 3, 3]] * 2
    assert network["strides"] == [[1, 1, 1]] + [[1, 2, 2]] * 3 + [[2, 2, 2]]
    assert settings["spacing"] == pytest.approx(TWO_PHOTON.zyx)


def test_kernels_span_coarse_planes_after_the_flat_stages(tmp_path):
    features = [2, 4, 4, 4, 4]
    asked = {"patch_size": [12, 64, 64], "features_per_stage": features, "flat_stages": 1}
    network = planned(tmp_path, **asked)["architecture"]["arch_kwargs"]
    assert network["kernel_sizes"] == [[1, 3, 3]] + [[3, 3, 3]] * 4
    assert network["strides"] == [[1, 1, 1]] + [[1, 2, 2]] * 3 + [[2, 2, 2]]


def test_isotropic_voxels_are_halved_along_every_axis(tmp_path):
    settings = planned(
        tmp_path, VoxelSpacing(0.1, 0.1, 0.1), patch_size=[16, 32, 32], features_per_stage=[2, 4]
    )
    assert settings["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1], [2, 2, 2]]


def test_the_plan_has_the_sizes_that_were_asked_for(tmp_path):
    settings = planned(
        tmp_path,
        patch_size=[12, 62, 64],
        features_per_stage=[3, 5],
        convolutions_per_stage=1,
        batch_size=4,
    )
    network = settings["architecture"]["arch_kwargs"]
    assert settings["patch_size"] == [12, 62, 64]
    assert settings["batch_size"] == 4
    assert network["features_per_stage"] == [3, 5]
    assert network["n_conv_per_stage"] == [1, 1]
    assert network["n_conv_per_stage_decoder"] == [1]


def test_a_patch_grows_to_a_multiple_of_the_strides(tmp_path):
    settings = planned(tmp_path, patch_size=[12, 63, 64], features_per_stage=[3, 5])
    assert settings["patch_size"] == [12, 64, 64]


def test_more_stages_than_the_patch_allows_are_refused(tmp_path):
    with pytest.raises(InputError, match="features_per_stage has 6 stages"):
        planned(tmp_path, patch_size=[4, 16, 16], features_per_stage=[2] * 6)


def test_a_network_without_a_second_stage_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least two stages"):
        planned(tmp_path, features_per_stage=[8])


def test_without_sizes_the_plan_is_that_of_nnunet(tmp_path):
    settings = planned(tmp_path)
    assert settings["architecture"]["arch_kwargs"]["features_per_stage"][:2] == [32, 64]


def test_planning_leaves_the_environment_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/mine")
    before = dict(os.environ)
    planned(tmp_path, patch_size=[12, 64, 64], features_per_stage=[2, 4])
    assert dict(os.environ) == before


def test_labels_without_a_voxel_are_an_error():
    empty = LabeledVolume(np.ones((1, *SHAPE), np.float32), np.zeros(SHAPE, np.float32), TWO_PHOTON)
    with pytest.raises(InputError, match="nothing to learn"):
        fingerprint([empty], 1)


def test_the_fingerprint_describes_the_foreground_only():
    channel = fingerprint([volume()], 1)["foreground_intensity_properties_per_channel"]["0"]
    assert channel["mean"] == 21
    assert channel["std"] == 0

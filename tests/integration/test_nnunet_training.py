"""Tiny trainings of real files: seconds each, with nnU-Net's own classes."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from tests.taken_gpu import taken_gpu

from respan_common.errors import BusyError, CancelledError, InputError, ModelError
from respan_common.events import Reporter, SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import NnunetTrainingParams
from respan_common.settings import Runtime
from respan_training.jobs import TrainingJob
from respan_training.stage import run_training
from respan_training.tiffs import write_volume

SPACING = VoxelSpacing(1.0, 0.1, 0.1)
TINY = NnunetTrainingParams(
    dataset_name="tiny",
    epochs=2,
    iterations_per_epoch=3,
    patch_size=[4, 16, 16],
    features_per_stage=[2, 4],
    convolutions_per_stage=1,
    augmentation="light",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        labels = np.zeros((6, 24, 24), dtype=np.uint8)
        labels[2:4, 8:14] = 2
        labels[3, 14:16, ::6] = 1
        image = rng.poisson(5 + 50 * (labels > 0)).astype(np.uint16)
        write_volume(folder / "labelsTr" / f"{name}.tif", labels, SPACING)
        write_volume(folder / "imagesTr" / f"{name}_0000.tif", image, SPACING)
    return folder


def train(data, out, report=None, start=None, **changes):
    params = TINY.model_copy(update=changes)
    job = TrainingJob(data, out, params, start, Runtime("cpu", 1))
    return run_training(job, report or SilentReporter())


def test_a_training_waits_for_the_gpu_that_others_use(data, tmp_path, monkeypatch):
    with (
        taken_gpu(tmp_path, monkeypatch) as runtime,
        pytest.raises(BusyError, match="held by microscope since"),
    ):
        run_training(TrainingJob(data, tmp_path, TINY, None, runtime), SilentReporter())


class StopsAfter(Reporter):
    """Goes away after some iterations, as a caller or a power cut would."""

    def __init__(self, iterations):
        super().__init__(send=lambda event: None, cancelled=lambda: False)
        self.iterations = iterations

    def progress(self, done, total, message=""):
        if done >= self.iterations:
            raise CancelledError("gone")


def weights_of(out):
    path = out / "tiny" / "fold_all" / "checkpoint_final.pth"
    return torch.load(path, weights_only=True)["network_weights"]


def is_same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, train(data, out)


def test_a_trained_model_is_loaded_by_nnunet_itself(trained):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(trained[0] / "tiny"), ("all",), "checkpoint_final.pth"
    )
    image = np.random.default_rng(0).random((1, 6, 24, 24)).astype(np.float32)
    classes = predictor.predict_single_npy_array(image, {"spacing": list(SPACING.zyx)})
    assert classes.shape == (6, 24, 24)


def test_the_checkpoint_holds_only_what_predicting_needs(trained):
    path = trained[0] / "tiny" / "fold_all" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    assert content["trainer_name"] == "nnUNetTrainer"
    assert set(content) == {
        "network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"
    }  # fmt: skip


def test_the_result_says_how_it_went(trained):
    _, result = trained
    assert result.written == ("tiny",)
    assert result.numbers["epochs"] == 2
    assert np.isfinite(result.numbers["loss"])
    assert "model type 1" in result.warnings[0]


def test_a_training_that_was_stopped_ends_with_the_same_weights(data, trained, tmp_path):
    with pytest.raises(CancelledError):
        train(data, tmp_path, StopsAfter(4))
    assert not (tmp_path / "tiny").exists()
    random.seed(99)
    torch.manual_seed(99)
    train(data, tmp_path)
    assert is_same(weights_of(tmp_path), weights_of(trained[0]))


def test_averaged_weights_of_a_stopped_training_end_the_same(data, tmp_path):
    changes = {"mixed_precision": True, "weight_averaging": 0.9}
    train(data, tmp_path / "whole", **changes)
    with pytest.raises(CancelledError):
        train(data, tmp_path / "stopped", StopsAfter(4), **changes)
    train(data, tmp_path / "stopped", **changes)
    assert is_same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped"))


def test_the_published_weights_are_the_average(data, trained, tmp_path):
    train(data, tmp_path, weight_averaging=0.9)
    assert not is_same(weights_of(tmp_path), weights_of(trained[0]))


def test_a_training_that_was_stopped_goes_on_where_it_was(data, tmp_path):
    seen = []

    class Watches(SilentReporter):
        def progress(self, done, total, message=""):
            if message.startswith("epoch"):
                seen.append(done)

    with pytest.raises(CancelledError):
        train(data, tmp_path, StopsAfter(4))
    train(data, tmp_path, Watches())
    assert min(seen) == 3


def test_another_seed_gives_other_weights(data, trained, tmp_path):
    train(data, tmp_path, seed=1)
    assert not is_same(weights_of(tmp_path), weights_of(trained[0]))


def test_the_same_training_again_is_skipped(data, trained):
    before = weights_of(trained[0])
    assert train(data, trained[0]).skipped
    assert is_same(weights_of(trained[0]), before)


def test_more_epochs_continue_and_replace_the_model(data, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "out")
    result = train(data, tmp_path / "out", epochs=3)
    assert result.numbers["epochs"] == 3
    record = json.loads((tmp_path / "out" / "tiny" / "training.json").read_text())
    assert [epoch["number"] for epoch in record["epochs"]] == [1, 2, 3]


def test_other_parameters_start_anew(data, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "out")
    train(data, tmp_path / "out", features_per_stage=[3, 4])
    assert weights_of(tmp_path / "out")["encoder.stages.0.0.convs.0.conv.weight"].shape[0] == 3


def test_a_training_starts_from_the_weights_of_a_model(data, trained, tmp_path):
    start = trained[0] / "tiny"
    train(data, tmp_path, start=start, initial_learning_rate=1e-12, epochs=1)
    ours, theirs = weights_of(tmp_path), weights_of(trained[0])
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


def test_a_model_whose_plans_name_other_code_is_refused(data, trained, tmp_path):
    start = tmp_path / "model"
    shutil.copytree(trained[0] / "tiny", start)
    plans = (start / "plans.json").read_text().replace("torch.nn.LeakyReLU", "os.system")
    (start / "plans.json").write_text(plans)
    with pytest.raises(ModelError, match=r"os\.system"):
        train(data, tmp_path / "out", start=start)


def test_deeper_networks_learn_from_coarse_outputs_too(data, tmp_path):
    result = train(data, tmp_path, epochs=1, features_per_stage=[2, 4, 4])
    assert np.isfinite(result.numbers["loss"])


def test_the_default_augmentation_trains_too(data, tmp_path):
    assert train(data, tmp_path, augmentation="default", epochs=1).numbers["epochs"] == 1


def test_a_folder_of_somebody_else_is_not_replaced(data, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no model of an earlier training"):
        train(data, tmp_path)
    assert (tmp_path / "tiny" / "thesis.txt").exists()


def test_the_name_of_a_model_cannot_lead_out_of_its_folder(data, tmp_path):
    with pytest.raises(InputError, match="without slashes"):
        train(data, tmp_path, dataset_name="../elsewhere")


def test_a_training_leaves_the_environment_as_it_was(data, tmp_path):
    before = dict(os.environ)
    train(data, tmp_path, epochs=1)
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_small_network_learns_to_find_dendrites(tmp_path):
    from respan_common.params import SynthesisParams
    from respan_training.synthesis import write_training_data

    phantoms = SynthesisParams(
        kind="two-photon", images=2, shape=[12, 96, 96], spacing_um=[1.0, 0.2, 0.2], snr="easy"
    )
    write_training_data(tmp_path / "data", phantoms)
    train(
        tmp_path / "data",
        tmp_path,
        epochs=12,
        iterations_per_epoch=25,
        patch_size=[8, 48, 48],
        features_per_stage=[8, 16, 32],
    )
    epochs = json.loads((tmp_path / "tiny" / "training.json").read_text())["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"] - 0.5
    # An epoch is judged by few random patches: 0.5 to 0.8, with the same weights.
    assert np.mean([epoch["pseudo_dice"][1] for epoch in epochs[-4:]]) > 0.6

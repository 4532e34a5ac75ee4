"""Loading models: what is read, what is refused."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from tests.nnunet_models import write_random_model

from respan_common.checkpoints import read_checkpoint
from respan_common.errors import CapacityError, ModelError
from respan_common.geometry import VoxelSpacing
from respan_common.model_folders import describe
from respan_segmentation.model import grids, load
from respan_segmentation.networks import BatchedNetwork

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_random_model(tmp_path / "model", spacing=(1.0, 0.1, 0.1))


def change_plans(folder, **settings):
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"].update(settings)
    (folder / "plans.json").write_text(json.dumps(plans))


class Trap:
    """Runs a command when an ordinary pickle reader meets it."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_booby_trapped_checkpoint_is_refused_and_does_not_run(folder, tmp_path):
    path, canary = folder / "fold_all" / "checkpoint_final.pth", tmp_path / "canary"
    content = read_checkpoint(path)
    torch.save({**content, "logging": Trap(canary)}, path)
    with pytest.raises(ModelError, match=r"checkpoint_final.pth is refused.*mkdir"):
        load(describe(folder), [CPU])
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the trap itself works
    assert canary.exists()


def test_plans_that_name_other_code_are_refused(folder):
    architecture = describe(folder).settings["architecture"]
    change_plans(folder, architecture={**architecture, "network_class_name": "os.system"})
    with pytest.raises(ModelError, match=r"names os\.system"):
        load(describe(folder), [CPU])


def test_numpy_numbers_in_the_training_log_are_harmless(folder):
    path = folder / "fold_all" / "checkpoint_final.pth"
    log = {"dice": [np.float64(0.5), np.float32(0.5)], "epoch": np.int64(3), "curve": np.ones(3)}
    torch.save({**read_checkpoint(path), "logging": log, "_best_ema": np.float64(0.1)}, path)
    assert read_checkpoint(path)["logging"]["dice"][0] == 0.5


def test_a_file_that_is_no_checkpoint_is_named(folder):
    path = folder / "fold_all" / "checkpoint_final.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="is not a readable checkpoint"):
        load(describe(folder), [CPU])


def test_weights_of_another_network_are_refused(folder, tmp_path):
    other = write_random_model(tmp_path / "other", spacing=(1.0, 0.1, 0.1), features=(3, 5))
    (folder / "plans.json").write_text((other / "plans.json").read_text())
    with pytest.raises(ModelError, match="do not fit the network"):
        load(describe(folder), [CPU])


def test_a_checkpoint_of_another_configuration_is_refused(folder):
    path = folder / "fold_all" / "checkpoint_final.pth"
    torch.save({**read_checkpoint(path), "init_args": {"configuration": "2d"}}, path)
    with pytest.raises(ModelError, match="trained as '2d'"):
        load(describe(folder), [CPU])


def test_the_last_model_stays_loaded_until_its_files_change(folder):
    first = load(describe(folder), [CPU])
    assert load(describe(folder), [CPU]) is first
    write_random_model(folder, spacing=(1.0, 0.1, 0.1), seed=5)
    assert load(describe(folder), [CPU]) is not first


def test_every_mirrored_prediction_counts_once(folder):
    model = load(describe(folder), [CPU])
    patch = torch.randn(1, 1, 16, 32, 32)
    predict = model.predictor(mirrors=True)

    def mirrored(windows):
        return all_scores(predict, windows)

    for axis in (2, 3, 4):
        turned = torch.flip(mirrored(torch.flip(patch, [axis])), [axis])
        torch.testing.assert_close(turned, mirrored(patch), atol=1e-4, rtol=1e-4)


def all_scores(predict, windows):
    return torch.stack([scores.clone() for scores in predict(windows)])


@pytest.mark.parametrize("precision", ["full", "nnunet"])
def test_compiled_networks_give_what_pytorch_gives(folder, precision):
    model = load(describe(folder), [CPU], threads=2)
    patches = torch.randn(3, 1, 16, 32, 32)
    expected = model.networks[0](patches)
    found = all_scores(model.predictor(mirrors=False, precision=precision), patches)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_cores_belong_to_the_network_for_a_second_image_as_well(folder):
    model = load(describe(folder), [CPU], 2)
    before = torch.get_num_threads()
    try:
        for _ in range(2):
            torch.set_num_threads(2)  # as the start of every stage does
            all_scores(
                model.predictor(mirrors=False, precision="full"), torch.randn(1, 1, 16, 32, 32)
            )
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_half_precision_decides_almost_every_voxel_alike(folder):
    model = load(describe(folder), [CPU])
    patches = torch.randn(2, 1, 16, 32, 32)
    half, full = (
        all_scores(model.predictor(mirrors=False, precision=p), patches) for p in ("half", "full")
    )
    assert (half.argmax(1) == full.argmax(1)).float().mean() > 0.98


def test_a_network_that_cannot_be_compiled_runs_in_pytorch(folder, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise RuntimeError("unknown layer")

    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("openvino.convert_model", refuse)
    model = load(describe(folder), [CPU], threads=3)
    patches = torch.randn(2, 1, 16, 32, 32)
    found = all_scores(model.predictor(mirrors=False), patches)
    torch.testing.assert_close(found, model.networks[0](patches), atol=1e-4, rtol=1e-4)
    assert "unknown layer" in caplog.text


def test_a_translation_is_kept_and_a_damaged_one_made_anew(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    write_random_model(folder, seed=77)  # of which this process has not loaded anything yet
    patches = torch.randn(1, 1, 16, 32, 32)
    first = load(describe(folder), [CPU], threads=1)
    expected = all_scores(first.predictor(mirrors=False), patches)
    (kept,) = (folder / "cache").rglob("*.xml")
    for content in (kept.read_bytes(), b"damaged"):
        kept.write_bytes(content)
        again = load(describe(folder), [CPU], threads=2)
        again._runs.clear()
        found = all_scores(again.predictor(mirrors=False), patches)
        torch.testing.assert_close(found, expected)
    assert kept.read_bytes() != b"damaged"


def test_several_devices_share_a_batch_and_change_nothing(folder):
    network = load(describe(folder), [CPU]).networks[0]
    patches = torch.randn(5, 1, 16, 32, 32)
    alone, shared = (
        all_scores(BatchedNetwork(network, [CPU] * n, 2 * n, half=False).stream, patches)
        for n in (1, 3)
    )
    torch.testing.assert_close(shared, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, network(patches), atol=1e-4, rtol=1e-4)


class Small(torch.nn.Module):
    """Stands for a device whose memory holds a few windows at a time."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, patches):
        self.sizes.append(len(patches))
        if len(patches) > self.most:
            raise torch.OutOfMemoryError
        return patches


def test_a_batch_that_does_not_fit_is_halved_and_every_window_predicted_once():
    network = Small(most=2)
    batched = BatchedNetwork(network, [CPU], 8, half=False)
    windows = torch.arange(7.0).reshape(7, 1, 1, 1, 1)
    torch.testing.assert_close(all_scores(batched.stream, windows), windows)
    assert batched.batch == 2
    assert network.sizes == [8, 4, 2, 2, 2, 2]


def test_a_window_that_does_not_fit_is_a_capacity_error():
    batched = BatchedNetwork(Small(most=0), [CPU], 2, half=False)
    with pytest.raises(CapacityError, match="smaller patches"):
        list(batched.stream(torch.zeros(1, 1, 4, 4, 4)))


def test_folds_that_agree_have_no_doubt_and_others_have(tmp_path):
    same = write_random_model(tmp_path / "same", folds=["0"], seed=1)
    shutil.copytree(same / "fold_0", same / "fold_1")
    different = write_random_model(tmp_path / "different", folds=["0", "1"], seed=1)
    patches = torch.randn(1, 1, 16, 32, 32)
    doubts = []
    for path in (same, different):
        model = load(describe(path), [CPU])
        found = all_scores(model.predictor(mirrors=False, disagreement=True), patches)
        assert found.shape[1] == describe(path).outputs + 1
        doubts.append(found[:, -1])
    assert doubts[0].abs().max() < 1e-4
    assert doubts[1].mean() > 0.01


def test_a_2d_model_sees_slices_one_by_one_at_the_images_own_distance(tmp_path):
    folder = write_random_model(tmp_path / "flat", patch=(32, 32), spacing=(1.0, 0.1, 0.1))
    model = describe(folder)
    assert model.patch == (1, 32, 32)
    found = grids(model, (7, 40, 40), VoxelSpacing(0.3, 0.2, 0.2), model.spacing_um)
    assert found.model_shape == (7, 80, 80)


def test_a_given_model_spacing_decides_the_grid(folder):
    found = grids(describe(folder), (10, 40, 40), VoxelSpacing(1.0, 0.1, 0.1), (2.0, 0.2, 0.2))
    assert found.model_shape == (5, 20, 20)


def test_without_a_model_spacing_the_image_stays_as_it_is(folder):
    assert grids(describe(folder), (10, 40, 40), VoxelSpacing(0.3, 0.2, 0.2), None).is_identity


def test_an_unknown_resampling_is_named(folder):
    change_plans(folder, resampling_fn_data="my_resampling")
    with pytest.raises(ModelError, match="my_resampling"):
        grids(describe(folder), (10, 40, 40), VoxelSpacing(0.3, 0.2, 0.2), None)

"""One image of a store, from file to file."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.nnunet_models import write_random_model
from tests.taken_gpu import taken_gpu
from tests.unit.respan_segmentation.prediction import ours
from tests.unit.respan_segmentation.stage_runs import IMAGE, SPACING, classes_of, publish, segment

from respan_common.errors import BusyError, CapacityError, InputError, ModelError
from respan_common.events import Accepted, Progress, Reporter
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_segmentation import walk


def test_what_is_done_is_found_without_the_gpu_and_anything_else_waits_for_it(
    store, model, tmp_path, monkeypatch
):
    segment(store, model)
    with taken_gpu(tmp_path, monkeypatch) as runtime:
        assert segment(store, model, runtime=runtime).is_old
        with pytest.raises(BusyError, match="held by microscope since"):
            segment(store, model, runtime=runtime, channel=1)
        segment(store, model, runtime=replace(runtime, device="cpu"), channel=1)


def test_the_classes_are_those_of_the_asked_channel(store, model):
    record = segment(store, model)
    found = open_volume(store, "labels/classes")
    np.testing.assert_array_equal(found.read(), ours(model, IMAGE, SPACING, step=0.75))
    assert found.spacing == SPACING
    assert found.dtype == np.uint8
    assert found.attributes["roles"] == {"spine": 1, "dendrite": 2, "soma": 3}
    assert list(record.outputs) == ["confidence", "labels/classes"]
    assert record.warnings == []


def test_the_same_request_is_answered_by_the_record(store, model):
    first = segment(store, model)
    assert segment(store, model, step_size=0.75).digest == first.digest
    assert segment(store, model).is_old
    assert not segment(store, model, preset="exact").is_old


def test_an_image_with_an_empty_surround_is_background_there(tmp_path, model):
    padded = np.pad(IMAGE, ((2, 1), (9, 0), (4, 4)))
    store = publish(tmp_path / "padded.ome.zarr", [padded])
    segment(store, model, channel=1)
    found = open_volume(store, "labels/classes").read()
    inside = found[2:-1, 9:, 4:-4]
    np.testing.assert_array_equal(inside, ours(model, IMAGE, SPACING, step=0.75))
    assert np.count_nonzero(found) == np.count_nonzero(inside)


def test_an_image_of_zeros_is_background(tmp_path, model):
    store = publish(tmp_path / "dark.ome.zarr", [np.zeros_like(IMAGE)])
    segment(store, model, channel=1)
    assert not open_volume(store, "labels/classes").read().any()


def test_a_model_without_a_voxel_size_takes_the_images_and_says_so(store, tmp_path):
    model = write_random_model(tmp_path / "unknown")
    assert "does not say which voxel size" in segment(store, model).warnings[0]
    assert segment(store, model, model_spacing_um=[1.0, 0.1, 0.1]).warnings == []


def test_progress_ends_at_all_and_says_what_was_understood(store, model):
    events = []
    record = segment(store, model, Reporter(events.append, lambda: False))
    accepted = next(event for event in events if isinstance(event, Accepted))
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert accepted.shape == IMAGE.shape
    assert (accepted.device, accepted.blocks, accepted.blocks_done) == ("cpu", 1, 0)
    assert last.done == last.total
    assert record.numbers["windows"] > 1
    assert record.numbers["skipped_share"] == 0


def dendrites_in_the_dark():
    """A noisy field with one bright thread in a corner."""
    image = np.random.default_rng(4).normal(200, 5, (10, 400, 300))
    image[4:7, 20:24, :200] += 500
    return image.astype(np.uint16)


class Threshold:
    """A stand-in for a model: dendrite where the normalized image is above 3."""

    devices, least_batch = (torch.device("cpu"),), None

    def predictor(self, **options):
        def predict(windows):
            for window in windows:
                nothing = torch.zeros_like(window)
                yield torch.cat([nothing, nothing - 1, window - 3, nothing - 1])

        return predict


def test_empty_tiles_are_skipped_and_said_to_be_and_nothing_is_lost(tmp_path, monkeypatch):
    model = write_random_model(tmp_path / "model", spacing=SPACING.zyx, patch=(8, 32, 32))
    monkeypatch.setattr(walk, "load", lambda *arguments: Threshold())
    image = dendrites_in_the_dark()
    stores = [publish(tmp_path / f"{n}.ome.zarr", [image]) for n in range(2)]
    every = segment(stores[0], model, channel=1)
    some = segment(stores[1], model, channel=1, skip_empty=True)
    assert some.numbers["windows"] == every.numbers["windows"]
    assert every.numbers["windows_skipped"] == 0
    assert 0.3 < some.numbers["skipped_share"] < 1
    assert (classes_of(stores[0]) > 0).sum() > 2000
    np.testing.assert_array_equal(classes_of(stores[1]), classes_of(stores[0]))


def test_probabilities_and_doubt_are_images_of_their_own(store, tmp_path):
    model = write_random_model(tmp_path / "folds", spacing=(1.0, 0.1, 0.1), folds=["0", "1"])
    segment(store, model, probabilities=True, uncertainty=True)
    shares, doubt = open_volume(store, "probabilities"), open_volume(store, "uncertainty")
    assert shares.channel_names == ["background", "spine", "dendrite", "soma"]
    assert doubt.channel_names == ["entropy", "disagreement"]
    values = np.stack([shares.read(channel=n + 1) for n in range(4)]).astype(int)
    assert np.abs(values.sum(axis=0) - 255).max() <= 2
    found = classes_of(store)
    assert (np.take_along_axis(values, found[None], 0)[0] >= values.max(axis=0) - 1).all()
    assert 0 <= doubt.read().min() < doubt.read().max() <= 1
    assert doubt.read(channel=2).max() > 0


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_confidence_is_the_probability_of_spines_where_there_are_any(store, model, threshold):
    segment(store, model, probabilities=True, spine_threshold=threshold)
    shares, sure = open_volume(store, "probabilities"), open_volume(store, "confidence")
    assert sure.channel_names == ["spine"]
    spine = classes_of(store) == 1
    assert 0 < spine.mean() < 1
    expected = np.where(spine, shares.read(channel=2), 0).astype(int)
    assert np.abs(sure.read() - expected).max() <= 1


def test_what_was_asked_for_once_is_gone_when_it_is_not_asked_for(store, model):
    segment(store, model, uncertainty=True)
    segment(store, model)
    assert not (store / "uncertainty").exists()


@pytest.fixture
def own_model(model, tmp_path):
    """A model that may be written to."""
    return Path(shutil.copytree(model, tmp_path / "own model"))


def test_a_spine_threshold_of_the_models_card_applies_and_can_be_overruled(store, own_model):
    usual = (segment(store, own_model), classes_of(store))[1]
    (own_model / "card.json").write_text('{"operating_point": {"spine_threshold": 1.0}}')
    assert not (segment(store, own_model), classes_of(store) == 1)[1].any()
    assert (usual == 1).any()
    segment(store, own_model, spine_threshold=0.0)
    assert (classes_of(store) == 1).all()


def test_a_threshold_that_is_no_probability_is_a_model_error(store, own_model):
    (own_model / "card.json").write_text('{"operating_point": {"spine_threshold": "high"}}')
    with pytest.raises(ModelError, match=r"card\.json.*number from 0 to 1"):
        segment(store, own_model)


def test_an_image_unlike_the_training_is_said_to_be(store, own_model):
    card = {"trained_range": {"skewness": [5, 9], "foreground_share": [0, 1e-6], "other": 3}}
    (own_model / "card.json").write_text(json.dumps(card))
    warnings = " ".join(segment(store, own_model).warnings)
    assert "skewness" in warnings
    assert "far more was found" in warnings
    assert "roughness" not in warnings


def test_how_sure_a_model_is_does_not_depend_on_where_spines_are_cut_off(store, own_model):
    card = {"trained_range": {"confidence": [0.999, 1]}}
    (own_model / "card.json").write_text(json.dumps(card))
    said = [segment(store, own_model, spine_threshold=t).warnings for t in (None, 0.1, 0.9)]
    assert "not sure" in " ".join(said[0])
    assert said[0] == said[1] == said[2]


def test_a_channel_that_does_not_exist_is_an_input_error(store, model):
    with pytest.raises(InputError, match=r"channel 3 does not exist: .* has 2"):
        segment(store, model, channel=3)


def test_a_model_without_known_labels_is_refused_before_any_work(store, tmp_path):
    model = write_random_model(tmp_path / "odd", labels={"background": 0, "thing": 1})
    with pytest.raises(ModelError, match="'thing'"):
        segment(store, model)
    assert not (store / "labels").exists()


def test_a_demanded_gpu_that_is_absent_is_a_capacity_error(store, model, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CapacityError, match="GPU"):
        segment(store, model, runtime=Runtime(device="cuda", threads=1))

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.taken_gpu import taken_gpu

from respan_common.drafts import drafting_store
from respan_common.errors import (
    BusyError,
    CancelledError,
    InputError,
    ModelError,
    VolumeNotFoundError,
)
from respan_common.events import Accepted, Reporter, SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import RestorationParams
from respan_common.records import StageKey
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_restoration import care, stage
from respan_restoration.selfnet import SelfNet
from respan_restoration.stage import RestorationJob

# Keras and csbdeep warn about NumPy and about each other.
pytestmark = pytest.mark.filterwarnings("ignore")

ANISOTROPIC = VoxelSpacing(0.5, 0.13, 0.13)
CPU = Runtime("cpu", threads=1)


def store_of(folder, volume, spacing=ANISOTROPIC):
    """Publish a (c, z, y, x) volume as a raw image."""
    store = folder / "cell.ome.zarr"
    key = StageKey("ingest", {"file": str(volume.sum())})
    with drafting_store(store, key, SilentReporter()) as draft:
        names = [f"C{n + 1}" for n in range(len(volume))]
        image = draft.image("", volume.shape, spacing, volume.dtype, names)
        whole = tuple(slice(0, size) for size in volume.shape[1:])
        for n, values in enumerate(volume):
            image.write(whole, values, n + 1)
        draft.publish()
    return store


def noise(shape, dtype=np.uint16, most=500):
    return np.random.default_rng(3).integers(0, most, shape).astype(dtype)


def checkpoint(folder):
    """A Self-Net that hands slices through."""
    network = SelfNet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for n, center in ((1, 3), (3, 1), (5, 1), (13, 1), (15, 1), (18, 3)):
            network.model[n].weight[0, 0, center, center] = 1
    torch.save(network.state_dict(), folder / "axial.pkl")
    return str(folder / "axial.pkl")


def restore(store, report=None, **params):
    job = RestorationJob(store, RestorationParams(**params), CPU)
    return stage.run(job, report or SilentReporter())


def ramp(depth, spacing):
    """Brightness that grows by 1000 per µm of depth, from the image's face."""
    centers_um = (np.arange(depth) + 0.5) * spacing.z_um
    return np.broadcast_to((1000 * centers_um).astype(np.uint16)[:, None, None], (depth, 12, 14))


def test_what_is_done_is_found_without_the_gpu_and_self_net_waits_for_it(tmp_path, monkeypatch):
    store = store_of(tmp_path, noise((1, 6, 12, 14)))
    done = RestorationParams(axial_model=checkpoint(tmp_path))
    new = done.model_copy(update={"axial_max_intensity": 400.0})
    stage.run(RestorationJob(store, done, CPU), SilentReporter())
    with taken_gpu(tmp_path, monkeypatch) as runtime:
        assert stage.run(RestorationJob(store, done, runtime), SilentReporter()).is_old
        with pytest.raises(BusyError, match="held by microscope since"):
            stage.run(RestorationJob(store, new, runtime), SilentReporter())


def test_care_that_runs_on_the_processor_waits_for_no_gpu(tmp_path, monkeypatch, care_folder):
    store = store_of(tmp_path, noise((1, 9, 30, 33)))
    params = RestorationParams(care_models={1: str(care_folder)})
    monkeypatch.setattr("tensorflow.test.is_built_with_cuda", lambda: False)
    with taken_gpu(tmp_path, monkeypatch) as runtime:
        assert not stage.run(RestorationJob(store, params, runtime), SilentReporter()).is_old


def test_one_channel_is_restored_and_the_other_is_the_raw_one(tmp_path, care_folder):
    volume = noise((2, 9, 30, 33))
    store = store_of(tmp_path, volume)
    restore(store, care_models={1: str(care_folder)})
    restored = open_volume(store, "restored")
    assert restored.dtype == np.uint16
    assert restored.spacing == ANISOTROPIC
    assert restored.channel_names == ["C1", "C2"]
    np.testing.assert_array_equal(restored.read(channel=2), volume[1])
    from csbdeep.models import CARE

    model = CARE(None, care_folder.name, basedir=str(care_folder.parent))
    expected = model.predict(volume[0], "ZYX")
    assert expected.min() < 0  # what wraps around in a careless cast
    expected = np.clip(np.rint(expected), 0, 65535)
    assert np.abs(restored.read(channel=1) - expected).max() <= 1


def test_eight_bit_images_are_restored_as_sixteen_bits(tmp_path, care_folder):
    store = store_of(tmp_path, noise((2, 5, 20, 20), np.uint8, 200))
    restore(store, care_models={2: str(care_folder)})
    restored, raw = open_volume(store, "restored"), open_volume(store)
    assert restored.dtype == np.uint16
    np.testing.assert_array_equal(restored.read(channel=1), raw.read(channel=1))


def test_float_images_keep_their_negative_values(tmp_path, care_folder):
    store = store_of(tmp_path, noise((1, 5, 20, 20)).astype(np.float32) / 500 - 0.5)
    restore(store, care_models={1: str(care_folder)})
    restored = open_volume(store, "restored").read()
    assert restored.dtype == np.float32
    assert restored.min() < 0


def test_axial_restoration_gives_cubic_voxels_at_the_right_places(tmp_path):
    deep = ramp(40, ANISOTROPIC)
    # A slice taken for a channel would have the shape or the brightness of the wrong axis.
    store = store_of(tmp_path, np.stack([deep // 2, deep]))
    params = {"axial_model": checkpoint(tmp_path), "channel": 2, "axial_max_intensity": 30000}
    record = restore(store, **params)
    restored = open_volume(store, "restored")
    assert restored.shape_zyx == (round(40 * 0.5 / 0.13), 12, 14)
    assert restored.spacing.zyx == (0.13, 0.13, 0.13)
    assert record.numbers["depth"] == 154
    brightness = 1000 * (np.arange(154) + 0.5) * 0.13
    for channel, share in ((1, 0.5), (2, 1.0)):
        values = restored.read(channel=channel)
        expected = np.broadcast_to((share * brightness)[:, None, None], values.shape)
        np.testing.assert_allclose(values[20:-20], expected[20:-20], atol=3)


def test_care_comes_first_and_self_net_works_on_its_result(tmp_path, care_folder):
    volume, spacing = noise((2, 9, 30, 33)), VoxelSpacing(0.1, 0.1, 0.1)
    first, second = tmp_path / "first", tmp_path / "second"
    both, alone = store_of(first, volume, spacing), store_of(second, volume, spacing)
    restore(alone, care_models={1: str(care_folder)})
    params = {"axial_model": checkpoint(tmp_path), "axial_max_intensity": 2000}
    restore(both, care_models={1: str(care_folder)}, **params)
    expected, found = (open_volume(store, "restored") for store in (alone, both))
    # At cubic voxels nothing is interpolated, and this Self-Net hands slices through.
    for channel in (1, 2):
        difference = found.read(channel=channel).astype(int) - expected.read(channel=channel)
        assert np.abs(difference).max() <= 1
    assert not list(both.rglob("*.npy"))


def test_a_channel_restored_by_care_that_is_not_the_neuron_follows_to_the_new_grid(
    tmp_path, care_folder
):
    store = store_of(tmp_path, noise((2, 9, 30, 33)))
    params = {"axial_model": checkpoint(tmp_path), "axial_max_intensity": 2000}
    restore(store, care_models={2: str(care_folder)}, channel=1, **params)
    restored = open_volume(store, "restored")
    assert restored.channels == 2
    assert restored.shape_zyx == (35, 30, 33)


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing to restore"):
        restore(store_of(tmp_path, noise((1, 5, 20, 20))))


def test_a_channel_that_does_not_exist_is_refused(tmp_path, care_folder):
    store = store_of(tmp_path, noise((2, 5, 20, 20)))
    with pytest.raises(InputError, match=r"channel 3 cannot be restored: cell\.ome\.zarr has 2"):
        restore(store, care_models={3: str(care_folder)})
    with pytest.raises(InputError, match="channel 4 cannot be restored"):
        restore(store, axial_model=checkpoint(tmp_path), channel=4)


def test_intensity_limits_in_the_wrong_order_are_refused(tmp_path):
    store = store_of(tmp_path, noise((1, 5, 20, 20)))
    with pytest.raises(InputError, match=r"axial_min_intensity \(9\) must be smaller"):
        restore(store, axial_model="any", axial_min_intensity=9, axial_max_intensity=9)


def test_a_channel_that_cannot_be_normalized_is_named(tmp_path, care_folder):
    volume = noise((2, 5, 30, 30))
    volume[1] = 0
    volume[1, 2, 3, 4] = 900
    store = store_of(tmp_path, volume)
    with pytest.raises(InputError, match=r"channel 2 of cell\.ome\.zarr: percentiles"):
        restore(store, care_models={2: str(care_folder)})


def test_a_store_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(VolumeNotFoundError):
        restore(tmp_path / "gone.ome.zarr", axial_model="any")


def test_missing_weights_leave_no_result_behind(tmp_path, care_folder):
    store = store_of(tmp_path, noise((1, 5, 20, 20)))
    broken = shutil.copytree(care_folder, tmp_path / "broken")
    for weights in broken.glob("*.h5"):
        weights.unlink()
    with pytest.raises(ModelError, match="broken has no weights"):
        restore(store, care_models={1: str(broken)})
    with pytest.raises(VolumeNotFoundError):
        open_volume(store, "restored")


def test_the_same_restoration_is_not_done_twice(tmp_path):
    store = store_of(tmp_path, noise((1, 9, 20, 20)))
    params = {"axial_model": checkpoint(tmp_path), "axial_max_intensity": 600}
    assert not restore(store, **params).is_old
    assert restore(store, **params).is_old
    assert not restore(store, **params | {"axial_max_intensity": 700}).is_old


def test_a_model_trained_anew_at_the_same_place_is_applied_anew(tmp_path):
    store = store_of(tmp_path, noise((1, 9, 20, 20)))
    params = {"axial_model": checkpoint(tmp_path), "axial_max_intensity": 600}
    restore(store, **params)
    state = torch.load(params["axial_model"], weights_only=True)
    torch.save({name: tensor * 0 for name, tensor in state.items()}, params["axial_model"])
    assert not restore(store, **params).is_old
    assert open_volume(store, "restored").read().max() == 0


def test_the_record_names_models_and_parameters(tmp_path, care_folder):
    store = store_of(tmp_path, noise((1, 5, 20, 20)))
    record = restore(store, care_models={1: str(care_folder)})
    assert record.params["care_models"] == {"1": "care"}
    assert len(record.model_digest) == 64
    assert str(tmp_path) not in json.dumps(record.model_dump(mode="json"))


class Stopped(Reporter):
    """Cancels when a piece of work is about to begin."""

    def __init__(self, before):
        super().__init__(send=lambda event: None, cancelled=lambda: False)
        self.before = before

    def progress(self, done, total, message=""):
        if message == self.before:
            raise CancelledError("stop")


def test_a_stopped_restoration_goes_on_where_it_stopped(tmp_path, care_folder, monkeypatch):
    store = store_of(tmp_path, noise((2, 9, 30, 33)))
    params = {"axial_model": checkpoint(tmp_path), "axial_max_intensity": 2000}
    params["care_models"] = {1: str(care_folder)}
    with pytest.raises(CancelledError):
        restore(store, Stopped("channel 2, block 0"), **params)
    with pytest.raises(VolumeNotFoundError):
        open_volume(store, "restored")
    monkeypatch.setattr(care, "restore", None)  # a second call would be an error
    events = []
    restore(store, Reporter(events.append, lambda: False), **params)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done, accepted.device) == (3, 2, "cpu")
    assert accepted.spacing_um == ANISOTROPIC.zyx


def test_an_image_too_dark_for_its_limits_is_reported(tmp_path):
    store = store_of(tmp_path, noise((1, 9, 20, 20), np.uint8, 200))
    warnings = restore(store, axial_model=checkpoint(tmp_path)).warnings
    assert any("set axial_max_intensity" in warning for warning in warnings)


def test_care_on_the_processor_is_reported_if_a_gpu_was_asked_for(tmp_path, care_folder):
    store = store_of(tmp_path, noise((1, 5, 20, 20)))
    job = RestorationJob(store, RestorationParams(care_models={1: str(care_folder)}), CPU)
    if care.runs_on_gpu():
        pytest.skip("this TensorFlow has a GPU")
    record = stage.run(replace(job, runtime=Runtime("cuda", threads=1)), SilentReporter())
    assert any("CARE ran on the CPU" in warning for warning in record.warnings)

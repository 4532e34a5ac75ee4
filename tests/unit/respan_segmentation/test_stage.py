"""One image of a store, from file to file."""

import numpy as np
import pytest
from tests.nnunet_models import write_random_model
from tests.unit.respan_segmentation.prediction import ours, textured

from respan_common.drafts import drafting_store
from respan_common.errors import CancelledError, CapacityError, InputError, ModelError
from respan_common.events import Accepted, Progress, Reporter, SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import SegmentationParams
from respan_common.records import StageKey
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_segmentation import walk
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run

CPU = Runtime(device="cpu", threads=1)
SPACING = VoxelSpacing(1.0, 0.12, 0.12)
IMAGE = textured((10, 60, 50))


def publish(store, images, group=""):
    """A new store with one image group; every image is one channel."""
    with drafting_store(store, StageKey("ingest", {}), SilentReporter()) as draft:
        names = [str(n) for n in range(len(images))]
        writer = draft.image(group, (len(images), *images[0].shape), SPACING, np.uint16, names)
        for n, values in enumerate(images):
            writer.write(tuple(slice(0, size) for size in values.shape), values, n + 1)
        draft.publish()
    return store


@pytest.fixture
def store(tmp_path):
    return publish(tmp_path / "cell.ome.zarr", [IMAGE[::-1], IMAGE])


@pytest.fixture
def model(tmp_path):
    return write_random_model(tmp_path / "model", spacing=(1.0, 0.1, 0.1), patch=(8, 32, 32))


def segment(store, model, report=None, group="", runtime=CPU, **params):
    params = {"channel": 2, "model": str(model), **params}
    job = SegmentationJob(store, group, model, SegmentationParams(**params), runtime)
    return run(job, report or SilentReporter())


def test_the_classes_are_those_of_the_asked_channel(store, model):
    record = segment(store, model)
    found = open_volume(store, "labels/classes")
    np.testing.assert_array_equal(found.read(), ours(model, IMAGE, SPACING, step=0.75))
    assert found.spacing == SPACING
    assert found.dtype == np.uint8
    assert found.attributes["roles"] == {"spine": 1, "dendrite": 2, "soma": 3}
    assert list(record.outputs) == ["labels/classes"]
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


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0)])
def test_a_model_of_another_axis_order_sees_the_image_in_that_order(tmp_path, axes):
    cube = VoxelSpacing(0.12, 0.12, 0.12)
    image = textured((20, 36, 28))
    turned = write_random_model(tmp_path / "turned", patch=(16, 16, 16), transpose=axes)
    plain = write_random_model(tmp_path / "plain", patch=(16, 16, 16))
    segment(publish(tmp_path / "a.ome.zarr", [image]), turned, channel=1)
    found = open_volume(tmp_path / "a.ome.zarr", "labels/classes").read()
    expected = ours(plain, np.ascontiguousarray(image.transpose(axes)), cube, step=0.75)
    assert (found == expected.transpose(np.argsort(axes))).mean() > 0.9999


def test_a_model_without_a_voxel_size_takes_the_images_and_says_so(store, tmp_path):
    model = write_random_model(tmp_path / "unknown")
    assert "does not say which voxel size" in segment(store, model).warnings[0]
    assert segment(store, model, model_spacing_um=[1.0, 0.1, 0.1]).warnings == []


def test_progress_counts_every_window(store, model):
    events = []
    record = segment(store, model, Reporter(events.append, lambda: False))
    accepted = next(event for event in events if isinstance(event, Accepted))
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert accepted.shape == IMAGE.shape
    assert (accepted.device, accepted.blocks, accepted.blocks_done) == ("cpu", 1, 0)
    assert last.done == last.total == record.numbers["windows"]


def test_a_canceled_stage_resumes_at_its_first_unfinished_block(tmp_path, model, monkeypatch):
    monkeypatch.setattr(walk, "_PROCESSOR_BUDGET", 0)  # one shard per block
    image = textured((6, 520, 40))
    store = publish(tmp_path / "long.ome.zarr", [image])
    log = store / ".respan" / "partial" / "segmentation" / ".respan" / "done.log"
    with pytest.raises(CancelledError):
        segment(store, model, Reporter(lambda event: None, log.exists), channel=1)
    events = []
    segment(store, model, Reporter(events.append, lambda: False), channel=1)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done) == (2, 1)
    np.testing.assert_array_equal(
        open_volume(store, "labels/classes").read(), ours(model, image, SPACING, step=0.75)
    )


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

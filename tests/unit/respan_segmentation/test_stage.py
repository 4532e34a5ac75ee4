"""One image of a store, from file to file."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.nnunet_models import (
    LABELS,
    REGIONS,
    REGIONS_ORDER,
    write_random_cascade,
    write_random_model,
)
from tests.taken_gpu import taken_gpu
from tests.unit.respan_segmentation.prediction import (
    add_up_in_single_precision,
    nnunets,
    ours,
    textured,
)

from respan_common.drafts import drafting_store
from respan_common.errors import BusyError, CancelledError, CapacityError, InputError, ModelError
from respan_common.events import Accepted, Progress, Reporter, SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import SegmentationParams
from respan_common.records import StageKey
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_segmentation import passes, walk
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


def segment(store, model, report=None, group="", runtime=CPU, region=None, **params):
    # As in single precision, so that results can be compared; every tile, as nothing is empty.
    exactly = {"precision": "full", "skip_empty": False}
    params = {"channel": 2, "model": str(model)} | exactly | params
    wanted = SegmentationParams(**params)
    refiner = Path(wanted.refinement_model) if wanted.refinement_model else None
    job = SegmentationJob(store, group, model, wanted, runtime, refiner, region)
    return run(job, report or SilentReporter())


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


def in_an_empty_surround(image):
    """The image inside an ellipsoid; 0 outside."""
    places = np.meshgrid(*[np.linspace(-1.1, 1.2, size) for size in image.shape], indexing="ij")
    return np.where(sum(place**2 for place in places) < 1, image, 0).astype(image.dtype)


ALONG_Y = {"transpose": (1, 0, 2), "spacing": (0.1, 1.0, 0.1)}
EMPTY_AROUND = {"image": in_an_empty_surround(IMAGE), "spacing": (1.0, 0.1, 0.1)}
LOWRES = {"spacing": (2.0, 0.3, 0.3), "patch": (8, 16, 16), "configuration": "3d_lowres"}
WHOLE_IMAGES = {
    "windows in another axis order": {**ALONG_Y, "patch": (32, 8, 32)},
    "slices in another axis order": {**ALONG_Y, "patch": (16, 32)},
    "an empty surround": {**EMPTY_AROUND, "patch": (8, 32, 32)},
    "an empty surround that is masked": {
        **EMPTY_AROUND,
        "patch": (8, 32, 32),
        "mask_zeros": True,
    },
    "an empty surround in another axis order": {
        **ALONG_Y,
        "image": in_an_empty_surround(IMAGE),
        "patch": (32, 8, 32),
    },
    "a low resolution": LOWRES,
    "regions at a low resolution": {
        **LOWRES,
        "labels": REGIONS,
        "regions_class_order": REGIONS_ORDER,
    },
}


@pytest.mark.parametrize("kind", WHOLE_IMAGES)
def test_whole_images_are_classified_as_nnunet_does(kind, tmp_path, monkeypatch):
    how = dict(WHOLE_IMAGES[kind])
    image = how.pop("image", IMAGE)
    model = write_random_model(tmp_path / "model", seed=1, **how)
    store = publish(tmp_path / "cell.ome.zarr", [image])
    segment(store, model, channel=1, preset="exact")
    add_up_in_single_precision(monkeypatch)
    expected = nnunets(model, image, SPACING, mirrors=True)
    assert np.unique(expected).size > 1
    assert (classes_of(store) == expected).mean() >= 0.9995


CASCADES = {
    "classes": {"labels": LABELS},
    "regions": {"labels": REGIONS, "regions_class_order": REGIONS_ORDER},
    "an ignore label": {"labels": LABELS | {"ignore": 4}},
    "an empty surround": {"image": in_an_empty_surround(IMAGE)},
    "another axis order": {**ALONG_Y, "low_spacing": (0.3, 2.0, 0.3), "patch": (32, 8, 32)},
    "several folds": {"folds": ["0", "1"]},
}


@pytest.mark.parametrize("kind", CASCADES)
def test_a_cascade_shows_its_second_stage_what_the_first_found(kind, tmp_path, monkeypatch):
    usual = {"spacing": (1.0, 0.1, 0.1), "low_spacing": (2.0, 0.3, 0.3), "patch": (8, 32, 32)}
    how = usual | CASCADES[kind]
    image, folds = how.pop("image", IMAGE), tuple(how.get("folds", ["all"]))
    model = write_random_cascade(tmp_path / "model", seed=2, **how)
    store = publish(tmp_path / "cell.ome.zarr", [image])
    segment(store, model, channel=1, step_size=0.5)
    add_up_in_single_precision(monkeypatch)
    first, second = sorted(model.iterdir(), reverse=True)
    seen = nnunets(first, image, SPACING, folds=folds)
    expected = nnunets(second, image, SPACING, folds=folds, first_stage=seen)
    assert min(np.unique(seen).size, np.unique(expected).size) > 1
    blind = nnunets(second, image, SPACING, folds=folds, first_stage=np.zeros_like(seen))
    assert (blind == expected).mean() < 0.99
    assert (classes_of(store) == expected).mean() >= 0.999


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


LONG = textured((6, 1050, 40))
"""Three shards, one after the other."""


@pytest.fixture
def long_store(tmp_path):
    return publish(tmp_path / "long.ome.zarr", [LONG])


@pytest.fixture(scope="module")
def long_classes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model = write_random_model(path / "model", spacing=(1.0, 0.1, 0.1), patch=(8, 32, 32))
    return ours(model, LONG, SPACING, step=0.75)


def classes_of(store):
    return open_volume(store, "labels/classes").read()


def test_a_canceled_stage_resumes_at_its_first_unfinished_row(long_store, model, long_classes):
    log = long_store / ".respan" / "partial" / "segmentation" / ".respan" / "done.log"
    with pytest.raises(CancelledError):
        segment(long_store, model, Reporter(lambda event: None, log.exists), channel=1)
    events = []
    segment(long_store, model, Reporter(events.append, lambda: False), channel=1)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done) == (3, 1)
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


def rows_of(start, stop):
    return (slice(0, 6), slice(start, stop), slice(0, 40))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_regions_one_after_the_other_give_the_whole(long_store, model, long_classes, order):
    regions = [rows_of(0, 512), rows_of(512, 1024), rows_of(1024, 1050)]
    left = []
    for number in order:
        record = segment(long_store, model, channel=1, region=regions[number])
        left.append(record.numbers.get("shards_left", 0))
    assert left == [2, 1, 0]
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


def test_a_region_that_cuts_through_a_shard_is_an_input_error(long_store, model):
    with pytest.raises(InputError, match=r"multiples of .*512"):
        segment(long_store, model, channel=1, region=rows_of(0, 500))


REPLICA = """
import sys
from pathlib import Path
from respan_common.events import SilentReporter
from respan_common.params import SegmentationParams
from respan_common.settings import Runtime
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run
store, model, start, stop = sys.argv[1:]
params = SegmentationParams(model=model, precision="full", skip_empty=False)
region = (slice(0, 6), slice(int(start), int(stop)), slice(0, 40)) if stop != "0" else None
job = SegmentationJob(Path(store), "", Path(model), params, Runtime("cpu", 1), None, region)
run(job, SilentReporter())
"""


@pytest.mark.parametrize("kill", [False, True])
def test_replicas_share_an_image_and_one_that_is_killed_costs_only_time(
    long_store, model, long_classes, kill
):
    def replica(start, stop):
        return subprocess.Popen(
            [sys.executable, "-c", REPLICA, str(long_store), str(model), str(start), str(stop)]
        )

    replicas = [replica(0, 0), replica(512, 1050)]
    if kill:
        claims = long_store / ".respan" / "partial" / "segmentation" / ".respan" / "claims"
        wait_for(lambda: any(claims.glob("classes*")) or replicas[0].poll() is not None)
        replicas[0].kill()
        replicas[0].wait()
        replicas.append(replica(0, 0))
    assert [one.wait(120) for one in replicas[-2:]] == [0, 0]
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_where_memory_is_short_narrower_columns_give_the_same(tmp_path, model, monkeypatch):
    image = textured((6, 560, 550))
    whole_store = publish(tmp_path / "whole.ome.zarr", [image])
    segment(whole_store, model, channel=1)
    plain = passes.scores_of

    def short(read, box, *rest):
        if box[2].stop - box[2].start > 512:
            raise torch.OutOfMemoryError
        yield from plain(read, box, *rest)

    monkeypatch.setattr(passes, "scores_of", short)
    store = publish(tmp_path / "cut.ome.zarr", [image])
    record = segment(store, model, channel=1)
    assert "narrower columns" in record.warnings[0]
    np.testing.assert_array_equal(classes_of(store), classes_of(whole_store))


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


class Greys:
    """A stand-in for a model: spine from a grey value on."""

    devices, least_batch = (torch.device("cpu"),), None

    def __init__(self, least):
        self.least = least

    def predictor(self, **options):
        def predict(windows):
            for window in windows:
                nothing = torch.zeros_like(window)
                yield torch.cat([nothing, window - self.least, nothing - 1, nothing - 1])

        return predict


@pytest.fixture
def strict_second(tmp_path, monkeypatch):
    """Two models: spines are what is above 100, but at a second look above 200."""
    raw = {"spacing": SPACING.zyx, "patch": (4, 16, 16), "normalization": "NoNormalization"}
    first, second = (write_random_model(tmp_path / name, **raw) for name in ("one", "two"))
    least = {"one": 100, "two": 200}
    monkeypatch.setattr(walk, "load", lambda folder, *rest: Greys(least[folder.name]))
    return first, str(second)


def spines_along_y():
    """Bright spines with a dim border, one across shards; dim ones; and what is too large."""
    image = np.full((6, 1050, 40), 20, np.uint16)
    for y in (100, 505, 700, 1020):
        image[1:5, y : y + 12, 4:12] = 150
        image[2:4, y + 2 : y + 10, 6:10] = 300
    for y in (300, 900):
        image[1:5, y : y + 12, 20:28] = 150
    image[2:4, 560:640, 30:36] = 150
    return image


def test_spines_are_looked_at_again(tmp_path, strict_second):
    first, second = strict_second
    image = spines_along_y()
    store = publish(tmp_path / "spines.ome.zarr", [image])
    plain = segment(store, first, channel=1)
    np.testing.assert_array_equal(classes_of(store), image > 100)
    record = segment(store, first, channel=1, refinement_model=second)
    expected = image > 200
    expected[:, 560:640] = (image > 100)[:, 560:640]
    np.testing.assert_array_equal(classes_of(store), expected)
    assert record.numbers["refined"] == 6
    assert "over more than 8 µm" in record.warnings[0]
    assert record.digest != plain.digest
    assert "refined" not in plain.numbers
    assert list(record.outputs) == ["confidence", "labels/classes"]


@pytest.mark.parametrize("step", ["classes", "refined"])
def test_a_canceled_refinement_goes_on_where_it_was(tmp_path, strict_second, step):
    first, second = strict_second
    store = publish(tmp_path / "spines.ome.zarr", [spines_along_y()])
    log = store / ".respan" / "partial" / "segmentation" / ".respan" / "done.log"
    begun = lambda: log.exists() and f"{step} " in log.read_text()  # noqa: E731
    how = {"channel": 1, "refinement_model": second}
    with pytest.raises(CancelledError):
        segment(store, first, Reporter(lambda event: None, begun), **how)
    events = []
    record = segment(store, first, Reporter(events.append, lambda: False), **how)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done) == (3, 1 if step == "refined" else 0)
    assert record.numbers["refined"] == 6
    interrupted = classes_of(store)
    again = publish(tmp_path / "again.ome.zarr", [spines_along_y()])
    segment(again, first, **how)
    np.testing.assert_array_equal(interrupted, classes_of(again))


def test_regions_share_the_refinement(tmp_path, strict_second):
    first, second = strict_second
    store = publish(tmp_path / "spines.ome.zarr", [spines_along_y()])
    how = {"channel": 1, "refinement_model": second}
    for start, stop in ((512, 1050), (0, 512)):
        record = segment(store, first, region=rows_of(start, stop), **how)
    assert record.numbers["refined"] == 6


def test_any_two_models_go_together(store, model, tmp_path):
    second = write_random_model(tmp_path / "second", patch=(8, 16, 16), seed=5)
    segment(store, model)
    plain = classes_of(store)
    record = segment(store, model, refinement_model=str(second), refinement_margin_um=0.12)
    assert record.numbers["refined"] > 0
    assert (classes_of(store) != plain).any()


def test_a_cascade_cannot_refine(store, model, tmp_path):
    cascade = write_random_cascade(tmp_path / "cascade")
    with pytest.raises(InputError, match=r"refinement_model.*cascade"):
        segment(store, model, refinement_model=str(cascade))


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


def test_a_spine_threshold_of_the_models_card_applies_and_can_be_overruled(store, model):
    usual = (segment(store, model), classes_of(store))[1]
    (model / "card.json").write_text('{"operating_point": {"spine_threshold": 1.0}}')
    assert not (segment(store, model), classes_of(store) == 1)[1].any()
    assert (usual == 1).any()
    segment(store, model, spine_threshold=0.0)
    assert (classes_of(store) == 1).all()


def test_a_threshold_that_is_no_probability_is_a_model_error(store, model):
    (model / "card.json").write_text('{"operating_point": {"spine_threshold": "high"}}')
    with pytest.raises(ModelError, match=r"card\.json.*number from 0 to 1"):
        segment(store, model)


def test_an_image_unlike_the_training_is_said_to_be(store, model):
    card = {"trained_range": {"skewness": [5, 9], "foreground_share": [0, 1e-6], "other": 3}}
    (model / "card.json").write_text(json.dumps(card))
    warnings = " ".join(segment(store, model).warnings)
    assert "skewness" in warnings
    assert "far more was found" in warnings
    assert "roughness" not in warnings


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

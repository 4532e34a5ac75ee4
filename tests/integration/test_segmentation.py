"""The segmentation service as a process of its own, asked over gRPC."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import zarr
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image
from tests.nnunet_models import write_random_model
from tests.stage_services import stage_channel
from tests.unit.respan_segmentation.prediction import ours, textured
from tests.waiting import becomes_true

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.drafts import drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.model_folders import describe
from respan_common.records import StageKey
from respan_common.volumes import open_volume

SPACING = VoxelSpacing(1.0, 0.12, 0.12)
IMAGE = textured((10, 60, 50))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def model(root):
    return write_random_model(root / "models" / "small", spacing=(1.0, 0.1, 0.1), patch=(8, 32, 32))


@pytest.fixture(scope="module")
def slow_model(root):
    """Takes far longer than the tests' patience."""
    return write_random_model(
        root / "models" / "slow", spacing=(1.0, 0.01, 0.01), patch=(8, 64, 64), features=(8, 16)
    )


@pytest.fixture(scope="module")
def store(root):
    return publish(root / "cell.ome.zarr", IMAGE)


def publish(store, image):
    """A new store whose raw and restored image are one channel each."""
    with drafting_store(store, StageKey("ingest", {}), SilentReporter()) as draft:
        for group, values in (("", image), ("restored", image[::-1])):
            writer = draft.image(group, (1, *image.shape), SPACING, image.dtype, ["neuron"])
            writer.write(whole(image.shape), values)
        draft.publish()
    return store


@pytest.fixture(scope="module")
def channel(root):
    """A connection to a running service whose data root is `root`."""
    with stage_channel("segmentation", root) as connection:
        yield connection


@pytest.fixture(scope="module")
def other_channel(root):
    """A connection to another such service."""
    with stage_channel("segmentation", root, "other") as connection:
        yield connection


def request(uri, model, group="", region=None, **params):
    message = pb.SegmentationParams(model=str(model), **params)
    volume = {"uri": str(uri), "group": group}
    if region is None:
        return pb.SegmentRequest(volume=volume, params=message)
    start, stop = region
    return pb.SegmentRequest(volume=volume, params=message, region={"start": start, "stop": stop})


def segment(connection, *arguments, **options):
    stub = rpc.SegmentationServiceStub(connection)
    return list(stub.Segment(request(*arguments, **options), timeout=120))


def refusal(connection, *arguments, **options):
    with pytest.raises(grpc.RpcError) as refused:
        segment(connection, *arguments, **options)
    return refused.value.code(), refused.value.details()


def test_an_image_is_segmented_and_the_second_time_it_is_there_already(channel, store, model):
    events = segment(channel, store, model, precision="full")
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("accepted") == kinds.count("result") == 1
    accepted = next(event.accepted for event in events if event.HasField("accepted"))
    assert list(accepted.shape) == list(IMAGE.shape)
    assert (accepted.device, accepted.model_digest) == ("cpu", describe(model).digest)
    assert list(events[-1].result.written) == ["confidence", "labels/classes"]
    found = open_volume(store, "labels/classes")
    np.testing.assert_array_equal(found.read(), ours(model, IMAGE, SPACING, step=0.75))
    assert found.attributes["roles"]["dendrite"] == 2
    assert segment(channel, store, model, precision="full")[-1].result.skipped


def test_the_restored_image_is_segmented_when_the_request_says_so(channel, store, model):
    assert not segment(channel, store, model, "restored", precision="full")[-1].result.skipped
    found = open_volume(store, "labels/classes").read()
    np.testing.assert_array_equal(found, ours(model, IMAGE[::-1], SPACING, step=0.75))


@pytest.fixture(scope="module")
def long_image():
    """Three shards, one after the other."""
    return textured((6, 1050, 40))


UPPER, LOWER = ([0, 0, 0], [6, 512, 40]), ([0, 512, 0], [6, 1050, 40])


def test_two_services_make_one_image_of_its_regions(
    channel, other_channel, root, model, long_image
):
    alone = publish(root / "alone.ome.zarr", long_image)
    together = publish(root / "together.ome.zarr", long_image)
    segment(channel, alone, model)
    with ThreadPoolExecutor(2) as both:
        upper = both.submit(segment, channel, together, model, region=UPPER)
        lower = both.submit(segment, other_channel, together, model, region=LOWER)
        results = [call.result()[-1].result for call in (upper, lower)]
    written = ["confidence", "labels/classes"]
    assert sorted(list(result.written) for result in results) == [[], written]
    assert [result.numbers["shards_left"] > 0 for result in results if not result.written] == [True]
    expected = open_volume(alone, "labels/classes").read()
    np.testing.assert_array_equal(open_volume(together, "labels/classes").read(), expected)


@pytest.mark.parametrize(
    ("region", "complaint"),
    [
        (([0, 0, 0], [6, 500, 40]), "multiples of"),
        (([0, 100, 0], [6, 512, 40]), "multiples of"),
        (([0, 0, 0], [6, 2000, 40]), "multiples of"),
        (([0, 0, 0], [6, 0, 40]), "holds no voxel"),
        (([0, -512, 0], [6, 512, 40]), "holds no voxel"),
        (([], []), "three whole numbers"),
    ],
)
def test_a_region_that_cannot_be_is_an_invalid_argument(
    channel, root, model, long_image, region, complaint
):
    store = root / "regions.ome.zarr"
    if not store.exists():
        publish(store, long_image)
    code, details = refusal(channel, store, model, region=region)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("region: ")
    assert complaint in details


def test_probabilities_and_doubt_are_images_that_others_can_read(channel, root, model):
    store = publish(root / "doubt.ome.zarr", IMAGE)
    events = segment(channel, store, model, probabilities=True, uncertainty=True, mirroring=True)
    groups = {
        "probabilities": ["background", "spine", "dendrite", "soma"],
        "uncertainty": ["entropy", "disagreement"],
        "confidence": ["spine"],
    }
    assert sorted(events[-1].result.written) == sorted(["labels/classes", *groups])
    for group, names in groups.items():
        Image.from_zarr(zarr.open_group(store / group, mode="r"))
        image = next(iter(Reader(parse_url(store / group))()))
        assert image.metadata["channel_names"] == names
        found = np.stack([open_volume(store, group).read(channel=n + 1) for n in range(len(names))])
        np.testing.assert_array_equal(image.data[0].compute(), found)
        assert len(np.unique(found)) > 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_size", 2.0),
        ("precision", "double"),
        ("spine_threshold", 1.5),
        ("refinement_margin_um", -1.0),
        ("preset", "slow"),
        ("label_scheme", 9),
        ("model_spacing_um", [1.0, 0.1]),
    ],
)
def test_a_bad_value_is_refused_by_name(channel, store, model, name, value):
    code, details = refusal(channel, store, model, **{name: value})
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert name in details


def test_a_canceled_call_stops_within_two_seconds(channel, root, slow_model):
    store = publish(root / "long.ome.zarr", np.tile(IMAGE, (2, 4, 4)))
    stub = rpc.SegmentationServiceStub(channel)
    call = stub.Segment(request(store, slow_model, preset="exact"), timeout=120)
    assert next(iter(call)).HasField("accepted")
    threading.Timer(1.0, call.cancel).start()
    with pytest.raises(grpc.RpcError) as ended:
        list(call)
    canceled = time.monotonic()
    assert ended.value.code() == grpc.StatusCode.CANCELLED
    assert becomes_true(lambda: not is_busy(stub), 5)
    assert time.monotonic() - canceled < 2.5
    assert not (store / "labels").exists()


def is_busy(stub):
    return stub.Describe(stage_pb2.DescribeRequest(), timeout=30).busy


def test_a_folder_that_is_no_model_is_named(channel, store, root):
    code, details = refusal(channel, store, root / "models")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "holds several models" in details or "not an nnU-Net model" in details


def test_a_model_outside_the_roots_is_not_opened(channel, store):
    code, details = refusal(channel, store, "/etc")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "lies outside the folders" in details


def test_a_refinement_model_outside_the_roots_is_not_opened(channel, store, model):
    code, details = refusal(channel, store, model, refinement_model="/etc")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "params.refinement_model" in details
    assert "lies outside the folders" in details


def test_an_image_that_does_not_exist_is_not_found(channel, root, model):
    code, _ = refusal(channel, root / "gone.ome.zarr", model)
    assert code == grpc.StatusCode.NOT_FOUND


def test_a_channel_that_does_not_exist_is_an_invalid_argument(channel, store, model):
    code, details = refusal(channel, store, model, channel=4)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "channel 4 does not exist" in details


def test_the_service_describes_itself_and_its_models(channel, model):
    answer = rpc.SegmentationServiceStub(channel).Describe(stage_pb2.DescribeRequest(), timeout=30)
    assert answer.service == "segmentation"
    assert str(model) in answer.models


def test_the_service_is_healthy(channel):
    message = health_pb2.HealthCheckRequest(service="respan.v1.SegmentationService")
    answer = health_pb2_grpc.HealthStub(channel).Check(message, timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING

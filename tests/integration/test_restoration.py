"""The restoration service as a process of its own, asked over gRPC."""

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.stage_services import stage_channel

from respan.v1 import restoration_pb2 as pb
from respan.v1 import restoration_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.convert import to_proto
from respan_common.drafts import drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import RestorationParams
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_restoration.selfnet import SelfNet


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def channel(root):
    """A connection to a running service whose data root is `root`."""
    with stage_channel("restoration", root) as connection:
        yield connection


@pytest.fixture(scope="module")
def checkpoint(root):
    (root / "models").mkdir()
    torch.manual_seed(0)
    torch.save(SelfNet().state_dict(), root / "models" / "axial.pkl")
    return str(root / "models" / "axial.pkl")


@pytest.fixture(scope="module")
def store(root):
    volume = np.random.default_rng(0).integers(0, 500, (2, 6, 16, 18)).astype(np.uint16)
    store = root / "cell.ome.zarr"
    with drafting_store(store, StageKey("ingest", {}), SilentReporter()) as draft:
        spacing = VoxelSpacing(0.3, 0.1, 0.1)
        image = draft.image("", volume.shape, spacing, volume.dtype, ["neuron", "other"])
        for n, values in enumerate(volume):
            image.write((slice(0, 6), slice(0, 16), slice(0, 18)), values, n + 1)
        draft.publish()
    return store


@pytest.fixture(scope="module")
def care_folder(root):
    """A csbdeep model with the weights it was born with."""
    from csbdeep.models import CARE, Config

    config = Config("ZYX", unet_n_depth=1, unet_n_first=4)
    model = CARE(config, "care", basedir=str(root))
    model.keras_model.save_weights(str(root / "care" / "weights_last.h5"))
    return root / "care"


def restore(channel, uri, group="", **params):
    message = to_proto(RestorationParams(**params), pb.RestorationParams)
    request = pb.RestoreRequest(volume={"uri": str(uri), "group": group}, params=message)
    return list(rpc.RestorationServiceStub(channel).Restore(request, timeout=120))


def refusal(channel, uri, **params):
    with pytest.raises(grpc.RpcError) as refused:
        restore(channel, uri, **params)
    return refused.value.code(), refused.value.details()


def test_an_image_is_restored_and_the_second_time_it_is_there_already(channel, store, checkpoint):
    events = restore(channel, store, axial_model=checkpoint, axial_max_intensity=500)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("accepted") == kinds.count("result") == 1
    assert kinds[-1] == "result"
    accepted = next(event.accepted for event in events if event.HasField("accepted"))
    assert list(accepted.shape) == [2, 6, 16, 18]
    assert accepted.device == "cpu"
    result = events[-1].result
    assert (list(result.written), result.skipped) == (["restored"], False)
    restored = open_volume(store, "restored")
    assert restored.shape_zyx == (18, 16, 18)
    assert restored.spacing.zyx == (0.1, 0.1, 0.1)
    again = restore(channel, store, axial_model=checkpoint, axial_max_intensity=500)
    assert again[-1].result.skipped


# Keras and csbdeep warn about NumPy and about each other.
@pytest.mark.filterwarnings("ignore")
def test_care_in_the_worker_gives_csbdeeps_own_grey_values(channel, store, care_folder):
    events = restore(channel, store, care_models={2: str(care_folder)}, care_tiles=[1, 2, 2])
    assert events[-1].HasField("result")
    from csbdeep.models import CARE

    raw, restored = open_volume(store), open_volume(store, "restored")
    model = CARE(None, "care", basedir=str(care_folder.parent))
    expected = model.predict(raw.read(channel=2), "ZYX")
    assert np.abs(restored.read(channel=2) - np.clip(expected, 0, 65535)).max() <= 1
    np.testing.assert_array_equal(restored.read(channel=1), raw.read(channel=1))


def test_a_request_without_models_is_an_invalid_argument(channel, store):
    code, details = refusal(channel, store)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "nothing to restore" in details


def test_a_restored_image_is_not_restored_again(channel, store, checkpoint):
    code, details = refusal(channel, store, group="restored", axial_model=checkpoint)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "starts from the raw image" in details


def test_an_image_that_does_not_exist_is_not_found(channel, root, checkpoint):
    code, _ = refusal(channel, root / "gone.ome.zarr", axial_model=checkpoint)
    assert code == grpc.StatusCode.NOT_FOUND


def test_a_model_folder_without_weights_is_named(channel, store, root):
    folder = root / "half"
    folder.mkdir()
    (folder / "config.json").write_text('{"axes": "ZYXC"}')
    code, details = refusal(channel, store, care_models={1: str(folder)})
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{folder} has no weights" in details


@pytest.mark.parametrize("params", [{"care_models": {2: "/etc"}}, {"axial_model": "/etc/passwd"}])
def test_a_model_outside_the_roots_is_not_opened(channel, store, params):
    code, details = refusal(channel, store, **params)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "lies outside the folders" in details


def test_the_service_describes_itself_and_its_models(channel, checkpoint):
    answer = rpc.RestorationServiceStub(channel).Describe(stage_pb2.DescribeRequest(), timeout=30)
    assert answer.service == "restoration"
    assert list(answer.models) == [checkpoint]


def test_the_service_is_healthy(channel):
    request = health_pb2.HealthCheckRequest(service="respan.v1.RestorationService")
    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING

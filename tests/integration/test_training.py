"""The training service as a process of its own, asked over gRPC."""

import grpc
import pytest
from tests.stage_services import stage_channel
from tests.waiting import becomes_true

from respan.v1 import stage_pb2
from respan.v1 import training_pb2 as pb
from respan.v1 import training_pb2_grpc as rpc
from respan_common.params import SynthesisParams
from respan_training.synthesis import write_training_data

TINY = {
    "dataset_name": "tiny",
    "epochs": 1,
    "iterations_per_epoch": 2,
    "patch_size": [4, 16, 16],
    "features_per_stage": [2, 4],
    "convolutions_per_stage": 1,
    "augmentation": "light",
}
PHANTOM = {"kind": "two-photon", "shape": [8, 48, 48], "spacing_um": [0.5, 0.2, 0.2]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def client(root):
    """A client of a running service whose data root is `root`."""
    with stage_channel("training", root) as connection:
        yield rpc.TrainingServiceStub(connection)


def result_of(stream):
    events = list(stream)
    assert events[0].WhichOneof("event") == "accepted"
    return events[-1].result


def test_phantoms_are_made_on_request(client, root):
    request = pb.SynthesizeRequest(out_uri=str(root / "phantoms"), params={**PHANTOM, "images": 1})
    result = result_of(client.Synthesize(request, timeout=120))
    assert result.numbers["volumes"] == 1
    assert all((root / "phantoms" / file).exists() for file in result.written)


def test_a_model_is_trained_on_request(client, root):
    write_training_data(root / "set", SynthesisParams(**PHANTOM, images=2))
    request = pb.TrainNnunetRequest(
        data_uri=str(root / "set"), out_uri=str(root / "models"), params=TINY
    )
    result = result_of(client.TrainNnunet(request, timeout=120))
    assert list(result.written) == ["tiny"]
    assert (root / "models" / "tiny" / "fold_all" / "checkpoint_final.pth").exists()


def test_a_cancelled_training_stops_and_can_go_on(client, root):
    write_training_data(root / "set", SynthesisParams(**PHANTOM, images=2))
    request = pb.TrainNnunetRequest(
        data_uri=str(root / "set"),
        out_uri=str(root / "long"),
        params={**TINY, "iterations_per_epoch": 100_000},
    )
    stream = client.TrainNnunet(request, timeout=120)
    for event in stream:
        if event.WhichOneof("event") == "progress" and event.progress.done > 0:
            break
    stream.cancel()
    assert becomes_true(lambda: not client.Describe(stage_pb2.DescribeRequest()).busy, 10)


def test_a_folder_outside_the_roots_is_refused(client):
    request = pb.TrainNnunetRequest(data_uri="/etc", out_uri="/etc", params=TINY)
    with pytest.raises(grpc.RpcError) as refused:
        list(client.TrainNnunet(request, timeout=60))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "data_uri" in refused.value.details()


def test_two_time_points_are_refused(client, root):
    request = pb.SynthesizeRequest(out_uri=str(root / "x"), params={**PHANTOM, "timepoints": 2})
    with pytest.raises(grpc.RpcError) as refused:
        list(client.Synthesize(request, timeout=60))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

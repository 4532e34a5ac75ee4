"""The quantification service as a process of its own, asked over gRPC."""

import subprocess
import sys

import grpc
import numpy as np
import pandas as pd
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.stage_services import stage_channel
from tests.taken_gpu import taken_gpu
from tests.unit.respan_quantification.phantoms import SOMA, Scene, one_spine
from tests.waiting import becomes_true

from respan.v1 import quantification_pb2 as pb
from respan.v1 import quantification_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.blocks import grid
from respan_common.convert import to_proto
from respan_common.drafts import drafting, drafting_store
from respan_common.errors import BusyError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_common.records import StageKey
from respan_common.schemes import SCHEMES
from respan_common.volumes import open_volume
from respan_quantification.stage import QuantificationJob, run

LABELS = ["spines", "heads", "necks", "dendrites", "soma", "skeleton"]
TABLES = ["spines", "dendrites", "branches", "branch_orders", "neurons", "image"]
FILES = [f"tables/{name}/table.parquet" for name in TABLES]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def channel(root):
    """A connection to a running service whose data root is `root`."""
    with stage_channel("quantification", root) as connection:
        yield connection


def publish(store, classes, raw, spacing, raw_spacing=None, roles=None):
    """A store with a raw image (c, z, y, x) and its classes (z, y, x)."""
    silent = SilentReporter()
    with drafting_store(store, StageKey("ingest", {}), silent) as draft:
        names = [f"channel {n + 1}" for n in range(len(raw))]
        image = draft.image("", raw.shape, raw_spacing or spacing, raw.dtype, names)
        for n, values in enumerate(raw):
            for block in grid(values.shape, image.block_zyx):
                image.write(block.inner, values[block.inner], n + 1)
        draft.publish()
    with drafting(store, StageKey("segmentation", {}), silent) as draft:
        attributes = {"roles": SCHEMES[3] if roles is None else roles}
        labels = draft.labels(
            "labels/classes", classes.shape, spacing, np.uint8, attributes=attributes
        )
        for block in grid(classes.shape, labels.block_zyx):
            labels.write(block.inner, classes[block.inner])
        draft.publish()
    return store


def grey(classes):
    return np.stack([np.where(classes > 0, 200, 10), classes * 3]).astype(np.uint16)


@pytest.fixture(scope="module")
def store(root):
    scene = one_spine()
    return publish(root / "cell.ome.zarr", scene.classes, grey(scene.classes), scene.spacing)


def quantify(connection, uri, group="", **params):
    values = QuantificationParams(**({"min_dendrite_volume_um3": 1.0} | params))
    message = to_proto(values, pb.QuantificationParams)
    request = pb.QuantifyRequest(volume={"uri": str(uri), "group": group}, params=message)
    return list(rpc.QuantificationServiceStub(connection).Quantify(request, timeout=120))


def refusal(connection, uri, **params):
    with pytest.raises(grpc.RpcError) as refused:
        quantify(connection, uri, **params)
    return refused.value.code(), refused.value.details()


def test_an_image_is_quantified_and_the_second_time_it_is_there_already(channel, store):
    events = quantify(channel, store)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("accepted") == kinds.count("result") == 1
    assert list(next(e.accepted for e in events if e.HasField("accepted")).shape) == [2, 44, 44, 70]
    result = events[-1].result
    assert {f"labels/{name}" for name in LABELS} | set(FILES) <= set(result.written)
    assert (result.numbers["spines"], result.numbers["dendrites"]) == (1, 1)
    assert result.numbers["dendrite_length_um"] == pytest.approx(6, rel=0.01)
    assert not result.skipped
    assert quantify(channel, store)[-1].result.skipped
    assert not quantify(channel, store, max_spine_volume_um3=10.0)[-1].result.skipped


def test_tables_and_label_images_agree(channel, store):
    quantify(channel, store)
    spines = pd.read_parquet(store / FILES[0])
    whole, heads, necks = (open_volume(store, f"labels/{name}").read() for name in LABELS[:3])
    assert (whole == heads + necks).all()
    assert np.unique(whole).tolist() == [0, *spines["spine_id"]]
    raw = open_volume(store).read(channel=2)
    assert spines["neck_C2_mean_int"].iloc[0] == raw[necks > 0].mean()
    dendrites = pd.read_parquet(store / FILES[1])
    assert dendrites["total_spines"].tolist() == [1]
    skeleton = open_volume(store, "labels/skeleton").read()
    assert set(np.unique(skeleton)) == {0, 1}


def test_a_dendrite_far_dimmer_than_the_other_is_left_out_and_counted(channel, root):
    scene = Scene((3, 6, 8), VoxelSpacing(0.2, 0.1, 0.1))
    scene.tube((1.5, 1.5, 0), (1.5, 1.5, 8), 0.5).tube((1.5, 4.5, 0), (1.5, 4.5, 8), 0.4)
    image = grey(scene.classes)
    image[0, :, 30:][scene.classes[:, 30:] > 0] = 20  # 10 above the background, the other 190
    store = publish(root / "two.ome.zarr", scene.classes, image, scene.spacing)
    both = quantify(channel, store, min_dendrite_brightness=0.05)[-1].result
    assert (both.numbers["dendrites"], both.numbers["discarded_dim_dendrites"]) == (2, 0)
    one = quantify(channel, store, min_dendrite_brightness=0.1)[-1].result
    assert (one.numbers["dendrites"], one.numbers["discarded_dim_dendrites"]) == (1, 1)
    assert not open_volume(store, "labels/dendrites").read()[:, 30:].any()


def test_what_is_too_small_for_a_soma_is_dendrite(channel, root):
    scene = Scene((3, 3, 8), VoxelSpacing(0.2, 0.1, 0.1))
    scene.ball((1.5, 1.5, 4), 0.6, SOMA).tube((1.5, 1.5, 0), (1.5, 1.5, 8), 0.4)
    store = publish(root / "thick.ome.zarr", scene.classes, grey(scene.classes), scene.spacing)
    assert quantify(channel, store)[-1].result.numbers["dendrites"] == 2
    whole = quantify(channel, store, min_soma_volume_um3=2.0)[-1].result
    assert whole.numbers["dendrites"] == 1
    assert not open_volume(store, "labels/soma").read().any()


def test_an_image_without_anything_ends_with_empty_tables_and_a_warning(channel, root):
    nothing = np.zeros((3, 20, 20), np.uint8)
    spacing = VoxelSpacing(0.3, 0.1, 0.1)
    store = publish(root / "empty.ome.zarr", nothing, grey(nothing), spacing)
    result = quantify(channel, store)[-1].result
    assert "no dendrite" in result.warnings[0]
    assert result.numbers["spines"] == 0
    assert len(pd.read_parquet(store / FILES[0])) == 0
    assert "spine_C2_int_density" in pd.read_parquet(store / FILES[0])


def test_the_raw_image_is_measured_on_the_finer_grid_of_restored_classes(channel, root):
    scene = one_spine()
    coarse = grey(scene.classes)[:, ::4]
    raw_spacing = VoxelSpacing(0.4, 0.1, 0.1)
    store = publish(
        root / "restored.ome.zarr", scene.classes, coarse, scene.spacing, raw_spacing=raw_spacing
    )
    assert quantify(channel, store)[-1].result.numbers["spines"] == 1
    assert pd.read_parquet(store / FILES[0])["head_C1_mean_int"].iloc[0] > 150


def test_a_channel_that_does_not_exist_is_the_callers_fault(channel, store):
    code, text = refusal(channel, store, channel=3)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "channel 3" in text
    assert "2 channels" in text


def test_a_restored_group_is_refused(channel, store):
    assert refusal(channel, store, group="restored")[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_an_image_that_was_not_segmented_is_not_found(channel, root):
    assert refusal(channel, root / "none.ome.zarr")[0] == grpc.StatusCode.NOT_FOUND


def test_a_path_outside_the_data_roots_is_refused(channel):
    assert refusal(channel, "/etc/passwd")[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_classes_without_a_meaning_or_of_another_field_are_refused(channel, root):
    scene = one_spine()
    raw = grey(scene.classes)
    store = publish(root / "mute.ome.zarr", scene.classes, raw, scene.spacing, roles={})
    code, text = refusal(channel, store)
    assert (code, "roles" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    store = publish(root / "other.ome.zarr", scene.classes, raw[..., :40], scene.spacing)
    code, text = refusal(channel, store)
    assert (code, "field" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)


def test_the_service_is_healthy_and_says_what_it_is(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    name = "respan.v1.QuantificationService"
    status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    answer = rpc.QuantificationServiceStub(channel).Describe(
        stage_pb2.DescribeRequest(), timeout=10
    )
    assert answer.service == "quantification"


def test_only_with_cupy_a_gpu_is_waited_for(store, tmp_path, monkeypatch):
    params = QuantificationParams(min_dendrite_volume_um3=1.0, max_neck_length_um=2.5)
    (tmp_path / "cupy.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with (
        taken_gpu(tmp_path, monkeypatch) as runtime,
        pytest.raises(BusyError, match="held by microscope since"),
    ):
        run(QuantificationJob(store, params, runtime), SilentReporter())


def test_replicas_that_are_asked_for_one_image_share_it_and_agree(root, store):
    """Two processes of their own, at the same time; one of them is killed in the middle."""
    quantify_here = """
import sys
from pathlib import Path
from respan_common.events import SilentReporter
from respan_common.params import QuantificationParams
from respan_common.settings import Runtime
from respan_quantification.stage import QuantificationJob, run
params = QuantificationParams(min_dendrite_volume_um3=1.0, max_neck_length_um=float(sys.argv[2]))
record = run(QuantificationJob(Path(sys.argv[1]), params, Runtime(threads=1)), SilentReporter())
print(record.is_old, record.numbers["spines"])
"""
    command = [sys.executable, "-c", quantify_here, str(store), "3.5"]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    becomes_true(lambda: (store / ".respan/partial/quantification/.parts").is_dir(), 60)
    replicas[0].kill()
    replicas[0].communicate()
    said = [replica.communicate(timeout=120)[0].split() for replica in replicas[1:]]
    assert sorted(is_old for is_old, _ in said) == ["False", "True"]
    assert {spines for _, spines in said} == {"1.0"}

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tests.integration.servers import Probed, probe_service
from tests.waiting import becomes_true, is_gone

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as pb_grpc
from respan.v1 import stage_pb2

SERVICE = "respan.v1.SegmentationService"
SOON_S = 2.0
"""A stage whose caller is gone has stopped by then."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with probe_service(tmp_path_factory.mktemp("probe"), queue_limit=48) as running:
        yield running
        assert becomes_true(running.is_idle, SOON_S)
        assert running.stop() == 0


@pytest.fixture
def stub(service):
    with service.stub() as client:
        yield client
    assert becomes_true(service.is_idle, SOON_S), "the test left work behind"


def worker_of(events) -> int:
    """Process that works; it says so in its first event."""
    return int(next(events).accepted.model_digest)


def failure(events) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(events)
    return caught.value


# What a client sees.


def test_health_says_serving(service):
    with service.channel() as channel:
        checks = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = checks.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_client_that_knows_only_reflection_can_call_describe(service):
    with service.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        method = DescriptorPool(database).FindServiceByName(SERVICE).methods_by_name["Describe"]
        ask = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{SERVICE}/Describe",
            request_serializer=ask.SerializeToString,
            response_deserializer=answer.FromString,
        )
        assert call(ask(), timeout=5).service == "segmentation"


def test_a_stage_streams_what_it_accepted_its_progress_and_its_result(service, stub):
    accepted, progress, result = stub.Segment(service.request("work"), timeout=30)
    assert list(accepted.accepted.shape) == [1, 2, 3]
    assert (accepted.accepted.blocks, accepted.accepted.blocks_done) == (4, 1)
    assert (progress.progress.done, progress.progress.message) == (1, "done")
    assert dict(result.result.numbers) == {"spines": 3.0}
    assert list(result.result.warnings) == ["look here"]
    assert not result.result.skipped


def test_the_worker_stays_warm_and_its_model_is_listed(service, stub):
    pids = {worker_of(stub.Segment(service.request("work"), timeout=30)) for _ in range(2)}
    assert len(pids) == 1
    assert service.describe().loaded_models == [str(pid) for pid in pids]


def test_the_peak_memory_is_that_of_this_stage(service, stub):
    peaks = [
        list(stub.Segment(service.request(behavior), timeout=30))[-1].result.peak_rss_mb
        for behavior in ("allocate", "work")
    ]
    assert peaks[0] > 128
    assert peaks[1] < peaks[0] - 100


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("InputError", grpc.StatusCode.INVALID_ARGUMENT),
        ("ModelError", grpc.StatusCode.INVALID_ARGUMENT),
        ("VolumeNotFoundError", grpc.StatusCode.NOT_FOUND),
        ("VolumeFormatError", grpc.StatusCode.FAILED_PRECONDITION),
        ("CapacityError", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_an_error_has_its_status_and_its_text(service, stub, name, status):
    error = failure(stub.Segment(service.request("raise", name), timeout=30))
    assert (error.code(), error.details()) == (status, f"{name}: said by the stage")


@pytest.mark.parametrize(
    ("word", "status", "text"),
    [
        ("memory", grpc.StatusCode.RESOURCE_EXHAUSTED, "not enough memory"),
        ("disk", grpc.StatusCode.RESOURCE_EXHAUSTED, "disk is full (/data/x)"),
        ("permission", grpc.StatusCode.INVALID_ARGUMENT, "not allowed"),
        ("file", grpc.StatusCode.INTERNAL, "a bug"),
    ],
)
def test_a_machine_that_is_too_small_is_not_a_bug(service, stub, word, status, text):
    error = failure(stub.Segment(service.request("run out", word), timeout=30))
    assert error.code() == status
    assert text in error.details()


def test_a_bug_is_internal_and_only_the_log_has_its_text(service, stub):
    error = failure(stub.Segment(service.request("bug"), timeout=30))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "ValueError: a secret of the implementation" in service.log


def test_a_path_outside_the_data_roots_is_refused(service, stub):
    outside = pb.SegmentRequest(volume={"uri": f"{service.folder}/../x"}, params={"model": "work"})
    error = failure(stub.Segment(outside, timeout=30))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "volume.uri" in error.details()


def test_a_bad_parameter_names_its_field(service, stub):
    request = service.request("work")
    request.params.step_size = 7
    error = failure(stub.Segment(request, timeout=30))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "step_size" in error.details()


# The stream is the lease.


@pytest.mark.parametrize("behavior", ["deaf", "spin", "talk"])
def test_a_cancelled_stage_stops(service, stub, behavior):
    events = stub.Segment(service.request(behavior), timeout=60)
    pid = worker_of(events)
    events.cancel()
    assert becomes_true(service.is_idle, SOON_S)
    assert is_gone(pid) == (behavior == "deaf")


@pytest.mark.parametrize("behavior", ["deaf", "spin"])
def test_a_stage_stops_at_its_deadline(service, stub, behavior):
    list(stub.Segment(service.request("work"), timeout=30))  # the worker is warm
    error = failure(stub.Segment(service.request(behavior), timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert becomes_true(service.is_idle, SOON_S)


CLIENT = """
import sys, grpc
from respan.v1 import segmentation_pb2 as pb, segmentation_pb2_grpc as pb_grpc
request = pb.SegmentRequest.FromString(bytes.fromhex(sys.argv[2]))
channel = grpc.insecure_channel(sys.argv[1])
events = pb_grpc.SegmentationServiceStub(channel).Segment(request)
print(next(events).accepted.model_digest, flush=True)
next(events)
"""


@pytest.mark.parametrize("behavior", ["deaf", "spin"])
def test_a_stage_stops_when_its_client_is_killed(service, behavior):
    request = service.request(behavior).SerializeToString().hex()
    command = [sys.executable, "-c", CLIENT, f"127.0.0.1:{service.port}", request]
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    pid = int(client.stdout.readline())
    assert service.describe().busy
    client.kill()
    client.communicate()
    assert becomes_true(service.is_idle, SOON_S)
    assert is_gone(pid) == (behavior == "deaf")


def test_a_caller_who_leaves_while_the_worker_starts_is_not_waited_for(service, stub):
    events = stub.Segment(service.request("spin"), timeout=30)
    os.kill(worker_of(events), signal.SIGKILL)
    failure(events)
    events = stub.Segment(service.request("deaf"), timeout=30)
    assert becomes_true(lambda: service.describe().busy, 1)
    events.cancel()
    assert becomes_true(service.is_idle, SOON_S)


def test_what_a_stage_started_ends_with_it(service, stub):
    events = stub.Segment(service.request("start another", "deaf"), timeout=60)
    next(events)
    other = int(next(events).progress.message)
    assert not is_gone(other)
    events.cancel()
    assert becomes_true(lambda: is_gone(other), SOON_S)


# The worker may die.


@pytest.mark.parametrize("behavior", ["die", "fork and die"])
def test_a_killed_worker_is_unavailable_and_the_next_request_works(service, stub, behavior):
    error = failure(stub.Segment(service.request(behavior), timeout=10))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "memory" in error.details()
    assert list(stub.Segment(service.request("work"), timeout=30))[-1].HasField("result")


@pytest.mark.parametrize("behavior", ["spin", "talk"])
def test_no_moment_of_a_workers_death_stops_the_server(service, stub, behavior):
    for moment in range(3):
        events = stub.Segment(service.request(behavior), timeout=30)
        pid = worker_of(events)
        time.sleep(0.013 * moment)
        os.kill(pid, signal.SIGKILL)
        assert failure(events).code() == grpc.StatusCode.UNAVAILABLE
        assert becomes_true(service.is_idle, SOON_S)


# The queue.


def test_a_second_request_waits_for_its_turn(service, stub):
    first = stub.Segment(service.request("spin"), timeout=60)
    worker_of(first)
    second = stub.Segment(service.request("work"), timeout=60)
    assert becomes_true(lambda: service.describe().queue_length == 1, SOON_S)
    assert service.describe().busy
    first.cancel()
    assert list(second)[-1].HasField("result")


def test_a_request_that_waits_can_be_cancelled(service, stub):
    first = stub.Segment(service.request("spin"), timeout=60)
    worker_of(first)
    second = stub.Segment(service.request("work"), timeout=60)
    assert becomes_true(lambda: service.describe().queue_length == 1, SOON_S)
    second.cancel()
    assert becomes_true(lambda: service.describe().queue_length == 0, SOON_S)
    assert service.describe().busy
    first.cancel()


def test_a_long_queue_does_not_starve_health_checks(service, stub):
    calls = [stub.Segment(service.request("spin"), timeout=60) for _ in range(40)]
    assert becomes_true(lambda: service.describe().queue_length == 39, 5)
    with service.channel() as channel:
        checks = health_pb2_grpc.HealthStub(channel)
        checks.Check(health_pb2.HealthCheckRequest(), timeout=2)
    for call in calls:
        call.cancel()
    assert becomes_true(service.is_idle, 2 * SOON_S)


def test_a_full_queue_says_so_and_when_to_come_back(tmp_path):
    with probe_service(tmp_path, queue_limit=1) as service, service.stub() as stub:
        first = stub.Segment(service.request("spin"), timeout=60)
        worker_of(first)
        second = stub.Segment(service.request("work"), timeout=60)
        assert becomes_true(lambda: service.describe().queue_length == 1, SOON_S)
        error = failure(stub.Segment(service.request("work"), timeout=60))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 wait for their turn" in error.details()
        assert float(dict(error.trailing_metadata())["retry-after-s"]) > 0
        first.cancel()
        assert list(second)[-1].HasField("result")
        assert list(stub.Segment(service.request("work"), timeout=60))[-1].HasField("result")


def test_without_a_queue_an_idle_service_still_works(tmp_path):
    with probe_service(tmp_path, queue_limit=0) as service, service.stub() as stub:
        first = stub.Segment(service.request("spin"), timeout=60)
        worker_of(first)
        error = failure(stub.Segment(service.request("work"), timeout=60))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        assert becomes_true(service.is_idle, SOON_S)


def test_a_refusal_that_is_final_names_no_time(service, stub):
    error = failure(stub.Segment(service.request("raise", "CapacityError"), timeout=30))
    assert "retry-after-s" not in dict(error.trailing_metadata())


# The end.


@pytest.mark.parametrize("behavior", ["deaf", "spin"])
def test_sigterm_ends_work_that_outlasts_the_grace(tmp_path, behavior):
    with probe_service(tmp_path, grace_s=0.5) as service, service.stub() as stub:
        events = stub.Segment(service.request(behavior), timeout=60)
        pid = worker_of(events)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 4
        assert becomes_true(lambda: is_gone(pid), 1)
        assert failure(events).code() in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNAVAILABLE,
        )


def test_sigterm_lets_work_finish_within_the_grace(tmp_path):
    with probe_service(tmp_path, grace_s=30) as service, service.stub() as stub:
        events = stub.Segment(service.request("work", "1"), timeout=60)
        worker_of(events)
        service.process.send_signal(signal.SIGTERM)
        assert list(events)[-1].HasField("result")
        assert service.process.wait(5) == 0


def test_a_killed_server_takes_its_worker_with_it(tmp_path):
    with probe_service(tmp_path) as service, service.stub() as stub:
        pid = worker_of(stub.Segment(service.request("deaf"), timeout=60))
        service.process.kill()
        assert becomes_true(lambda: is_gone(pid), SOON_S)


def test_an_idle_worker_goes_and_comes_back(tmp_path):
    with probe_service(tmp_path, keep_alive_s=0.2) as service, service.stub() as stub:
        first = worker_of(stub.Segment(service.request("work"), timeout=30))
        assert becomes_true(lambda: is_gone(first), 3)
        assert service.describe().loaded_models == []
        assert worker_of(stub.Segment(service.request("work"), timeout=30)) != first


# Who may call.


def test_a_call_needs_the_token(tmp_path):
    with probe_service(tmp_path, token="open sesame") as service, service.channel() as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        for metadata in ([], [("authorization", "Bearer wrong")], [("authorization", "")]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Describe(stage_pb2.DescribeRequest(), metadata=metadata, timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            events = stub.Segment(service.request("work"), metadata=metadata, timeout=5)
            assert failure(events).code() == grpc.StatusCode.UNAUTHENTICATED
        right = [("authorization", "Bearer open sesame")]
        events = list(stub.Segment(service.request("work"), metadata=right, timeout=30))
        assert events[-1].HasField("result")
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert "sesame" not in service.log


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a certificate each for a server and a client; strangers have their own."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates to test TLS with")
    folder = tmp_path_factory.mktemp("certificates")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new += ["-nodes", "-days", "2"]
    for name, signer in (("ca", ""), ("server", "ca"), ("client", "ca"), ("stranger", "")):
        command = [*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        if signer:
            command += ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key"]
            command += ["-addext", "subjectAltName=DNS:localhost"]
            command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def described(service: Probed, **pems: bytes) -> str:
    """Service name over TLS, or the status that was answered."""
    credentials = grpc.ssl_channel_credentials(**pems)
    with grpc.secure_channel(f"localhost:{service.port}", credentials) as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        try:
            return stub.Describe(stage_pb2.DescribeRequest(), timeout=5).service
        except grpc.RpcError as error:
            return str(error.code().name)


def test_tls_needs_the_authority_and_mtls_a_certificate_as_well(tmp_path, certificates):
    pem = {path.name: path.read_bytes() for path in certificates.iterdir()}
    tls = {
        "tls_certificate": certificates / "server.pem",
        "tls_key": certificates / "server.key",
        "tls_client_ca": certificates / "ca.pem",
    }
    client = {"private_key": pem["client.key"], "certificate_chain": pem["client.pem"]}
    stranger = {"private_key": pem["stranger.key"], "certificate_chain": pem["stranger.pem"]}
    with probe_service(tmp_path, **tls) as service:
        assert described(service, root_certificates=pem["ca.pem"], **client) == "segmentation"
        for other in (stranger, {}):
            assert described(service, root_certificates=pem["ca.pem"], **other) == "UNAVAILABLE"
    del tls["tls_client_ca"]
    (tmp_path / "port").unlink()
    with probe_service(tmp_path, **tls) as service:
        assert described(service, root_certificates=pem["ca.pem"]) == "segmentation"
        assert described(service, root_certificates=pem["stranger.pem"]) == "UNAVAILABLE"
        with service.stub() as plain, pytest.raises(grpc.RpcError):
            plain.Describe(stage_pb2.DescribeRequest(), timeout=2)


def test_a_taken_port_is_an_error_that_says_so(service, tmp_path):
    environment = os.environ | {"RESPAN_PORT": str(service.port)}
    command = [sys.executable, str(service.process.args[1])]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 1
    assert "is the port taken?" in answer.stderr

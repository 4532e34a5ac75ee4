"""Services that share a GPU; the GPU itself is a file that holds one process's memory."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing

import grpc
import pytest
from tests.integration import probe_stage
from tests.integration.servers import Probed, probe_service
from tests.taken_gpu import install_gpu
from tests.waiting import becomes_true, is_gone

from respan_common.settings import Runtime
from respan_common.worker import StageWorker

SOON_S = 5.0
"""A GPU changes hands by then: half a second until it is noticed, and what a busy machine needs."""
FOREVER = "1000"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine with one GPU; gives the environment of services and their common folder."""
    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        install_gpu(folder, patch)
        patch.setenv("FAKE_GPU", str(folder / "memory"))
        yield folder / "leases"


def service_on(machine, tmp_path_factory, **settings):
    folder = tmp_path_factory.mktemp("service")
    return probe_service(folder, gpu_lease_folder=machine, **settings)


@pytest.fixture(scope="module")
def first(machine, tmp_path_factory):
    with service_on(machine, tmp_path_factory) as service:
        yield service


@pytest.fixture(scope="module")
def second(machine, tmp_path_factory):
    with service_on(machine, tmp_path_factory, gpu_wait_s=60) as service:
        yield service


@pytest.fixture
def stubs(first, second):
    """A client each; what a test leaves behind is its failure."""
    with first.stub() as one, second.stub() as other:
        yield one, other
    assert becomes_true(lambda: first.is_idle() and second.is_idle(), SOON_S)


def computing(service: Probed, stub, seconds: str = FOREVER):
    """A stage that has the GPU; and its process."""
    events = stub.Segment(service.request("gpu", f"training {seconds}"), timeout=120)
    pid = int(next(events).accepted.model_digest)
    for event in events:
        if event.progress.message == "computes":
            return events, pid
    raise AssertionError("it never computed")


def waiting(service: Probed, stub):
    """A stage that waits for the GPU; what it says about that; and its process."""
    events = stub.Segment(service.request("gpu", "segmentation 0"), timeout=120)
    pid = int(next(events).accepted.model_digest)
    return events, next(events).progress.message, pid


def test_who_waits_knows_for_whom_and_gets_the_gpu_when_the_other_is_done(first, second, stubs):
    busy, holder = computing(first, stubs[0])
    events, message, _ = waiting(second, stubs[1])
    assert message.startswith("waits for the GPU, held by training since ")
    assert f"process {holder} " in message
    busy.cancel()  # the stage is over, its process stays warm: and yields
    assert list(events)[-1].HasField("result")
    assert is_gone(holder)


def test_the_gpu_of_a_killed_process_is_free_at_once(first, second, stubs):
    busy, holder = computing(first, stubs[0])
    events, _, _ = waiting(second, stubs[1])
    os.kill(holder, signal.SIGKILL)
    assert list(events)[-1].HasField("result")
    with pytest.raises(grpc.RpcError):
        list(busy)


def test_the_gpu_of_a_killed_service_is_free_at_once(machine, second, tmp_path_factory):
    with service_on(machine, tmp_path_factory) as doomed, doomed.stub() as one:
        computing(doomed, one)
        with second.stub() as other:
            events, _, _ = waiting(second, other)
            doomed.process.kill()
            assert list(events)[-1].HasField("result")


def test_an_idle_holder_yields_and_one_that_nobody_asks_stays(first, second, stubs):
    events, holder = computing(first, stubs[0], "0")
    list(events)
    time.sleep(1.5)  # it has looked about three times
    assert not is_gone(holder)
    events, other = computing(second, stubs[1], "0")
    list(events)
    assert is_gone(holder)
    assert not is_gone(other)


def test_a_bounded_wait_ends_with_the_holders_name_and_when_to_come_back(
    machine, first, tmp_path_factory
):
    with (
        first.stub() as one,
        service_on(machine, tmp_path_factory, gpu_wait_s=2) as hasty,
        hasty.stub() as other,
    ):
        busy, holder = computing(first, one)
        with pytest.raises(grpc.RpcError) as refused:
            list(other.Segment(hasty.request("gpu", "segmentation 0"), timeout=120))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "held by training since" in refused.value.details()
        assert f"process {holder} " in refused.value.details()
        assert "RESPAN_GPU_WAIT_S" in refused.value.details()
        assert float(dict(refused.value.trailing_metadata())["retry-after-s"]) > 0
        busy.cancel()
        # It is worth coming back: the holder is idle now, and notices.
        events, _ = computing(hasty, other, "0")
        assert list(events)[-1].HasField("result")


def test_a_wait_can_be_cancelled(first, second, stubs):
    busy, holder = computing(first, stubs[0])
    events, _, waiter = waiting(second, stubs[1])
    events.cancel()
    assert becomes_true(second.is_idle, 1.0)
    assert not is_gone(waiter)
    busy.cancel()
    assert becomes_true(first.is_idle, SOON_S)
    time.sleep(1.5)
    assert not is_gone(holder), "nobody waits any more"


def test_stages_of_one_service_follow_one_another_in_one_process(first, stubs):
    calls = [
        stubs[0].Segment(first.request("gpu", "segmentation 0.1"), timeout=60) for _ in range(3)
    ]
    every = [list(call) for call in calls]
    assert all(events[-1].HasField("result") for events in every)
    assert len({events[0].accepted.model_digest for events in every}) == 1


def test_a_service_on_the_processor_needs_no_gpu(machine, first, tmp_path_factory):
    with (
        first.stub() as one,
        service_on(machine, tmp_path_factory, device="cpu", gpu_wait_s=0) as other,
        other.stub() as stub,
    ):
        busy, _ = computing(first, one)
        events = list(stub.Segment(other.request("on the processor"), timeout=60))
        assert events[-1].HasField("result")
        busy.cancel()


def test_a_worker_tells_whether_it_holds_the_gpu_and_how_long_it_waited(machine):
    runtime = Runtime("auto", 1, machine, 60)
    job = probe_stage.Job("gpu", "segmentation 0", runtime)
    with closing(StageWorker()) as holder, closing(StageWorker()) as other:
        assert not holder.holds_gpu
        list(holder.run(probe_stage.run, job, lambda: False))
        assert holder.holds_gpu
        list(other.run(probe_stage.run, job, lambda: False))
        assert not holder.holds_gpu
        assert other.holds_gpu
        assert other.lease_wait_total_s == other.lease_wait_s > 0
        list(other.run(probe_stage.run, job, lambda: False))
        assert other.lease_wait_total_s == other.lease_wait_s, "it had it already"


def test_a_lease_folder_that_cannot_be_used_is_named(machine, tmp_path_factory):
    no_folder = machine.parent / "file"
    with service_on(no_folder, tmp_path_factory) as service, service.stub() as stub:
        no_folder.write_text("")  # afterwards: a service does not even start with it
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Segment(service.request("gpu", "segmentation 0"), timeout=60))
        assert str(no_folder) in refused.value.details()
        assert "RESPAN_GPU_LEASE_FOLDER" in refused.value.details()
        assert "retry-after-s" not in dict(refused.value.trailing_metadata())

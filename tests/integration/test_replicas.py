"""Calls to several real services: who gets them, and what becomes of those whose replica dies."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.servers import Probed, probe_service
from tests.waiting import becomes_true

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as pb_grpc
from respan_orchestrator import clients, service_checks, sharing
from respan_orchestrator.addresses import Replica
from respan_orchestrator.clients import Request, StageUnavailableError
from respan_orchestrator.services import ServicePool
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.side_by_side import Threads

Three = list[Probed]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@contextmanager
def probes(data: Path, names: str) -> Iterator[list[Probed]]:
    if not names:
        yield []
        return
    (data / names[0]).mkdir()
    with probe_service(data / names[0], data_roots=data) as one, probes(data, names[1:]) as others:
        yield [one, *others]


@pytest.fixture(scope="module")
def two(data) -> Iterator[list[Probed]]:
    with probes(data, "ab") as running:
        yield running


@contextmanager
def pool_of(running: list[Probed], **settings: int) -> Iterator[ServicePool]:
    addresses = ",".join(f"127.0.0.1:{service.port}" for service in running)
    told = OrchestratorSettings(segmentation_address=addresses, **settings)
    with ServicePool(told, []) as pool:
        yield pool


def request(data: Path, behavior: str, word: str, voxels: int = 0) -> Request:
    message = pb.SegmentRequest(
        volume={"uri": str(data / "x.ome.zarr"), "group": word}, params={"model": behavior}
    )
    stub = pb_grpc.SegmentationServiceStub
    return Request("segmentation", stub, "Segment", message, voxels)


def are_busy(running: list[Probed]) -> list[bool]:
    return [not service.is_idle() for service in running]


def test_the_replica_that_is_idle_is_chosen(two):
    with pool_of(two) as pool, two[0].stub() as stub:
        going_on = stub.Segment(two[0].request("work", "60"), timeout=90)
        assert becomes_true(lambda: are_busy(two) == [True, False], 30)
        with pool.least_busy("segmentation") as chosen:
            assert chosen.address == f"127.0.0.1:{two[1].port}"
        going_on.cancel()
    assert becomes_true(lambda: are_busy(two) == [False, False], 10)


def test_what_was_just_sent_counts_before_the_replica_says_so(two):
    with pool_of(two) as pool, pool.least_busy("segmentation") as one:
        for _ in range(5):
            with pool.least_busy("segmentation") as other:
                assert other != one


def test_a_large_image_is_shared_by_all_that_are_idle_if_no_other_image_needs_them(two, data):
    heard = threading.Event()
    with pool_of(two, share_from_voxels=1000) as pool, Threads() as threads:

        def share() -> None:
            sharing.follow(request(data, "work", "60", 1000), pool, lambda event: heard.set())

        with pool.working_on_image():
            with pool.working_on_image():
                threads.begin(share)
                assert heard.wait(30)
                assert not becomes_true(lambda: all(are_busy(two)), 1)
            # From now on there is only one image, and the next look finds a replica for it.
            assert becomes_true(lambda: all(are_busy(two)), 20)
    assert becomes_true(lambda: are_busy(two) == [False, False], 10)


@pytest.mark.parametrize(("share_from", "voxels"), [(1000, 999), (0, 10**12)])
def test_what_is_small_or_must_not_be_shared_is_not(two, data, share_from, voxels):
    with pool_of(two, share_from_voxels=share_from) as pool:
        assert not pool.shares(request(data, "work", "", voxels))


def test_a_helper_leads_on_where_the_leader_is_killed(data):
    with probes(data, "cd") as running, pool_of(running, share_from_voxels=1) as pool:
        results: list[clients.Result] = []

        def share() -> None:
            results.append(sharing.follow(request(data, "work", "4", 1), pool, lambda event: None))

        with Threads() as threads:
            threads.begin(share)
            assert becomes_true(lambda: all(are_busy(running)), 30)
            running[0].process.kill()
            ended = threads.next_ended(60)
        assert ended.error is None
        assert results[0].numbers["spines"] == 3


def test_where_all_fail_the_failure_is_one_to_try_again(two, data):
    with (
        pool_of(two, share_from_voxels=1) as pool,
        pytest.raises(StageUnavailableError, match="went away"),
    ):
        sharing.follow(request(data, "die", "", 1), pool, lambda event: None)


def test_doctor_names_the_replica_that_does_not_answer(two):
    addresses = f"127.0.0.1:{two[0].port},127.0.0.1:1"
    settings = OrchestratorSettings(segmentation_address=addresses)
    found = [one for one in service_checks.services(settings) if "segmentation" in one.subject]
    assert [one.state for one in found] == ["ok", "problem"]
    assert found[1].text == "127.0.0.1:1: does not answer (UNAVAILABLE)"


def test_a_replica_is_known_by_the_name_that_all_of_them_share(data, tmp_path):
    """Its certificate is for the name, which stands for several addresses."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate to test TLS with")
    pair = {"tls_certificate": tmp_path / "s.pem", "tls_key": tmp_path / "s.key"}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=s",
        "-addext",
        "subjectAltName=DNS:segmenting",
    ]
    command += ["-out", str(pair["tls_certificate"]), "-keyout", str(pair["tls_key"])]
    subprocess.run(command, check=True, capture_output=True)
    settings = OrchestratorSettings(tls_ca=pair["tls_certificate"])
    (data / "tls").mkdir()
    with probe_service(data / "tls", **pair) as service:
        address = f"127.0.0.1:{service.port}"
        named = Replica(address, f"segmenting:{service.port}")
        assert clients.load("segmentation", named, settings) == 0
        assert clients.load("segmentation", Replica(address), settings) is None

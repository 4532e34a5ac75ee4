"""What a real service lets people see: metrics, log lines, traces; and what it keeps to itself."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.collector import Collector, collecting
from tests.integration.servers import Probed, probe_service
from tests.waiting import becomes_true

from respan.v1 import stage_pb2

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
CALLER = Path(__file__).with_name("caller.py")
SECRET = "open_sesame"
BEARER = [("authorization", f"Bearer {SECRET}")]
IMAGE = "Zelle 1 µm"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    """Every sample by its name and labels, but for the service's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("service") == "segmentation", sample
            found[" ".join([sample.name, *labels.values()])] = sample.value
    return found


@pytest.fixture(scope="module")
def collector():
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="module")
def watched(tmp_path_factory, collector):
    """A service with a GPU (which `nvidia-smi` says it has), and the port of its metrics."""
    folder, port = tmp_path_factory.mktemp("watched"), free_port()
    smi = folder / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU-1, 1024, 81559'\n")
    smi.chmod(0o755)
    settings = {"metrics_port": port, "log_json": True, "log_level": "DEBUG", "token": SECRET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        with probe_service(folder, **settings) as service:
            yield service, port


def called(service: Probed, behavior: str, word: str = "") -> list[stage_pb2.StageEvent]:
    with service.stub() as stub:
        request = service.request(behavior, word)
        try:
            return list(stub.Segment(request, timeout=60, metadata=BEARER))
        except grpc.RpcError:
            return []


def change(port: int, before: dict[str, float], name: str) -> float:
    return scrape(port).get(name, 0) - before.get(name, 0)


# Metrics.


def test_calls_are_counted_by_method_and_status(watched):
    service, port = watched
    before = scrape(port)
    called(service, "work")
    called(service, "raise", "InputError")
    with service.stub() as stub:
        with pytest.raises(grpc.RpcError):
            stub.Describe(stage_pb2.DescribeRequest(), timeout=5)
        stub.Describe(stage_pb2.DescribeRequest(), timeout=5, metadata=BEARER)
    for labels in (
        "Segment OK",
        "Segment INVALID_ARGUMENT",
        "Describe UNAUTHENTICATED",
        "Describe OK",
    ):
        assert change(port, before, f"respan_requests_total {labels}") == 1, labels
    assert change(port, before, "respan_request_seconds_count Segment") == 2


def test_a_caller_that_hangs_up_once_it_has_the_result_has_not_cancelled(watched):
    service, port = watched
    before = scrape(port)
    with service.stub() as stub:
        for _ in range(10):
            events = stub.Segment(service.request("work"), timeout=60, metadata=BEARER)
            assert any(event.HasField("result") for event in events)
            events.cancel()
    done = "respan_requests_total Segment OK"
    assert becomes_true(lambda: change(port, before, done) == 10, 5)


def test_a_caller_cannot_make_up_methods_to_count(watched):
    service, port = watched
    with service.channel() as channel:
        for method in ("/respan.v1.SegmentationService/Invented", "/respan.v1.Other/Segment"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(method)(b"", timeout=5)
    assert not [name for name in scrape(port) if "Invented" in name or "Other" in name]


def test_work_and_waiting_are_seen_while_they_go_on(watched):
    service, port = watched
    with service.stub() as stub:
        running, waiting = (
            stub.Segment(service.request("spin"), timeout=60, metadata=BEARER) for _ in range(2)
        )
        assert becomes_true(lambda: scrape(port)["respan_queue_length"] == 1, 20)
        assert scrape(port)["respan_stage_running"] == 1
        before = scrape(port)
        running.cancel()
        waiting.cancel()
        cancelled = "respan_requests_total Segment CANCELLED"
        assert becomes_true(lambda: change(port, before, cancelled) == 2, 10)
    assert becomes_true(lambda: scrape(port)["respan_stage_running"] == 0, 10)
    assert scrape(port)["respan_queue_length"] == 0


def test_blocks_models_and_memory_of_a_stage_are_counted(watched):
    service, port = watched
    before = scrape(port)
    called(service, "work")
    found = scrape(port)
    assert change(port, before, "respan_blocks_done_total") == pytest.approx(3)  # of 4, 1 was done
    assert found["respan_model_loads_total"] >= 1
    assert found["respan_stage_peak_memory_bytes"] > 1e6
    assert found["respan_memory_bytes worker"] > 1e6
    assert found["respan_disk_free_bytes " + str(service.folder)] > 0
    started = before["respan_last_progress_timestamp_seconds"]
    assert found["respan_last_progress_timestamp_seconds"] > started
    assert found["respan_gpu_memory_used_bytes GPU-1"] == 2**30


def test_a_worker_that_dies_is_counted_as_lost_and_its_successor_as_started(watched):
    service, port = watched
    called(service, "work")
    before = scrape(port)
    called(service, "die")
    called(service, "work")
    assert change(port, before, "respan_worker_losses_total") == 1
    assert change(port, before, "respan_worker_starts_total") == 1
    assert change(port, before, "respan_model_loads_total") == 1
    assert change(port, before, "respan_requests_total Segment UNAVAILABLE") == 1


def test_a_taken_metrics_port_is_an_error_that_says_so(watched, tmp_path):
    service, port = watched
    environment = os.environ | {"RESPAN_METRICS_PORT": str(port)}
    command = [sys.executable, str(service.process.args[1])]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert "RESPAN_METRICS_PORT" in answer.stderr


def test_every_metric_of_the_alerts_and_the_dashboard_is_there(watched):
    service, port = watched
    called(service, "work")
    there = {name.split()[0] for name in scrape(port)}
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    alerts = len(expressions)
    expressions += [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    wanted = {name for text in expressions for name in re.findall(r"respan_[a-z_]+", text)}
    assert alerts >= 6
    assert wanted - there == set()


# Log lines and traces of one image, from both processes.


@pytest.fixture(scope="module")
def image_run(watched, collector) -> tuple[str, list[dict[str, Any]], Collector]:
    """What the caller logged, what the service logged meanwhile, and what was traced."""
    service, _ = watched
    before = len(service.log)
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "RESPAN_TOKEN": SECRET,
    }
    command = [sys.executable, str(CALLER), f"127.0.0.1:{service.port}", str(service.folder), IMAGE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in service.log[before:].splitlines()]
    return done.stderr, lines, collector


def test_every_line_inside_a_stage_names_run_image_and_stage(image_run):
    caller, service, _ = image_run
    about = {"run": "run 7", "image": IMAGE}
    lines = [json.loads(line) for line in caller.splitlines()]
    stages = [line for line in lines if line["logger"] == "respan_orchestrator.watching"]
    assert [line["stage"] for line in stages] == ["work", "work", "raise", "raise"]
    refusals = [line for line in service if "said by the stage" in line["message"]]
    workers = [line for line in service if line["logger"] == "probe_stage"]
    assert [line["stage"] for line in refusals] == ["raise"]
    assert [line["stage"] for line in workers] == ["work", "raise"]
    for line in (*stages, *refusals, *workers):
        assert {name: line[name] for name in about} == about


def test_lines_outside_a_stage_name_none(image_run, watched):
    service, _ = watched
    called(service, "work")
    last = [json.loads(line) for line in service.log.splitlines()][-1]
    assert last["logger"] == "probe_stage"
    assert "image" not in last


def test_one_trace_spans_the_processes_of_an_image(image_run):
    _, _, collector = image_run
    served = "respan.v1.SegmentationService/Segment"
    assert becomes_true(
        lambda: len([s for s in collector.spans if s.name == served and s.parent]) == 2, 15
    )
    image, work, refused = (collector.named(name) for name in ("image", "work", "raise"))
    answers = {span.parent: span for span in collector.spans if span.name == served and span.parent}
    assert (image.parent, image.process) == ("", "respan-orchestrator")
    assert {work.parent, refused.parent} == {image.id}
    assert set(answers) == {work.id, refused.id}
    spans = [image, work, refused, *answers.values()]
    assert {span.trace for span in spans} == {image.trace}
    assert {span.process for span in answers.values()} == {"respan-segmentation"}


def test_a_span_of_a_service_says_what_was_done(image_run):
    _, _, collector = image_run
    work = collector.named("work")
    (answer,) = [span for span in collector.spans if span.parent == work.id]
    assert answer.attributes["respan.shape"] == [1, 2, 3]
    assert answer.attributes["respan.device"] == "cpu"
    assert answer.attributes["respan.blocks"] == 4
    assert answer.attributes["respan.image"] == IMAGE
    assert answer.attributes["respan.model_digest"]
    assert answer.events == ["accepted"]
    assert not answer.is_error


def test_a_refusal_is_an_error_in_both_spans(image_run):
    _, _, collector = image_run
    refused = collector.named("raise")
    (answer,) = [span for span in collector.spans if span.parent == refused.id]
    assert refused.is_error
    assert answer.is_error
    assert answer.attributes["rpc.status"] == "INVALID_ARGUMENT"


def test_nothing_is_traced_and_nothing_imported_without_a_collector():
    code = (
        "import sys, respan_common.serving, respan_segmentation.server\n"
        "from respan_common import tracing\n"
        "with tracing.span('x') as span: span.set(a=1); span.event('e'); span.fail('no')\n"
        "assert tracing.traceparent() == ''\n"
        "tracing.send_spans()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Secrets.


def test_the_token_is_in_no_line_no_span_and_no_metric(image_run, watched):
    service, port = watched
    caller, _, collector = image_run
    assert SECRET not in caller
    assert SECRET not in service.log
    assert SECRET not in str(collector.spans)
    assert not [name for name in scrape(port) if SECRET in name]


def test_a_service_that_refuses_its_settings_does_not_show_its_token():
    environment = os.environ | {"RESPAN_TOKEN": SECRET, "RESPAN_TLS_KEY": "/nowhere.pem"}
    command = [sys.executable, "-m", "respan_segmentation"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "tls_key" in done.stderr
    assert SECRET not in done.stderr + done.stdout

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from respan_common.events import Accepted, Progress, StageResult
from respan_common.metrics import ServiceMetrics


@dataclass
class Idle:
    """A worker that does nothing."""

    is_busy: bool = False
    queue_length: int = 0
    pid: int | None = None
    starts: int = 0
    losses: int = 0
    holds_gpu: bool = False
    lease_wait_total_s: float = 0.0


@pytest.fixture
def worker() -> Idle:
    return Idle()


@pytest.fixture
def metrics(worker, tmp_path) -> ServiceMetrics:
    return ServiceMetrics("segmentation", [tmp_path], worker)


def read(metrics: ServiceMetrics) -> dict[str, float]:
    """Every sample by name and labels, as Prometheus reads it."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            labels = [value for key, value in sample.labels.items() if key != "service"]
            found[" ".join([sample.name, *labels])] = sample.value
    return found


def test_steps_of_any_number_add_up_to_the_blocks_of_the_image(metrics):
    count = metrics.counting()
    for event in (
        Accepted(blocks=8),
        Progress(250, 1000),
        Progress(500, 1000),
        Progress(500, 1000),
        StageResult(),
    ):
        count.hear(event)
    assert read(metrics)["respan_blocks_done_total"] == pytest.approx(8)


def test_blocks_that_were_done_before_are_not_counted_again(metrics):
    count = metrics.counting()
    count.hear(Accepted(blocks=8, blocks_done=6))
    count.hear(Progress(7, 8))
    assert read(metrics)["respan_blocks_done_total"] == pytest.approx(1)


def test_a_skipped_stage_counts_no_blocks(metrics):
    metrics.counting().hear(StageResult(skipped=True, peak_rss_mb=5))
    found = read(metrics)
    assert found["respan_blocks_done_total"] == 0
    assert "respan_stage_peak_memory_bytes" not in found


def test_a_model_is_loaded_once_by_each_worker(metrics, worker):
    for starts, digest in ((1, "a"), (1, "a"), (1, "b"), (2, "b"), (2, "")):
        worker.starts = starts
        metrics.counting().hear(Accepted(model_digest=digest))
    assert read(metrics)["respan_model_loads_total"] == 3


def test_what_is_not_known_is_absent(metrics, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = read(metrics)
    assert found["respan_memory_bytes service"] > 1e6
    for name in ("respan_memory_bytes worker", "respan_stage_peak_memory_bytes"):
        assert name not in found
    assert not [name for name in found if name.startswith("respan_gpu_memory")]


def test_memory_of_gpus_is_what_the_driver_says(metrics, monkeypatch, tmp_path):
    fake_smi(tmp_path, "GPU-1, 1024, 81559\nGPU-2, [N/A], [N/A]\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read(metrics)
    assert found["respan_gpu_memory_used_bytes GPU-1"] == 2**30
    assert found["respan_gpu_memory_size_bytes GPU-1"] == 81559 * 2**20
    assert "respan_gpu_memory_used_bytes GPU-2" not in found


def test_the_worker_counts_with_all_that_it_started(metrics, worker):
    worker.pid = os.getpgrp()
    found = read(metrics)
    assert found["respan_memory_bytes worker"] >= found["respan_memory_bytes service"]


def test_a_data_root_that_is_gone_has_no_free_space(worker, tmp_path):
    metrics = ServiceMetrics("segmentation", [tmp_path, tmp_path / "gone"], worker)
    roots = [name for name in read(metrics) if name.startswith("respan_disk_free_bytes")]
    assert roots == [f"respan_disk_free_bytes {tmp_path}"]


def fake_smi(folder: Path, says: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_the_lease_of_a_gpu_and_the_wait_for_it_are_the_workers_own(metrics, worker):
    assert read(metrics)["respan_gpu_lease_held"] == 0
    worker.holds_gpu, worker.lease_wait_total_s = True, 12.5
    found = read(metrics)
    assert found["respan_gpu_lease_held"] == 1
    assert found["respan_gpu_lease_wait_seconds_total"] == 12.5

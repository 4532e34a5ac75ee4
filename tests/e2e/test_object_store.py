"""The main job with stores in a bucket, through a real server that speaks S3."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.e2e.command_line import Answer, CommandLine, answer_of, descendants, tables_of
from tests.waiting import becomes_true

from respan_common.buckets import BucketPath

pytestmark = pytest.mark.slow

STAGES = ["ingest", "segmentation", "quantification", "export"]


@pytest.fixture
def on_bucket(respan: CommandLine, bucket: BucketPath, object_store, tmp_path) -> CommandLine:
    """`respan` whose stores lie in an empty bucket."""
    own = {"RESPAN_VOLUMES": str(bucket), "RESPAN_SCRATCH": str(tmp_path / "scratch")}
    return CommandLine(respan.environment | object_store | own)


@pytest.fixture(scope="module")
def undisturbed(respan, model, make_experiment, tmp_path_factory) -> dict[str, bytes]:
    """Tables of a run whose stores lie beside the images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RESPAN_VOLUMES", raising=False)
        folder = make_experiment(tmp_path_factory.mktemp("local") / "MyExperiment")
        assert respan("run", folder, "--model", model).code == 0
    return tables_of(folder)


def store_of(bucket: BucketPath, experiment: Path, image: str) -> BucketPath:
    return bucket / str(experiment / "Animal_A" / f"{image}.ome.zarr").lstrip("/")


def processes_of(module: str, among: set[int]) -> set[int]:
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in among}
    return {pid for pid, path in lines.items() if path.exists() and module in path.read_text()}


def test_tables_are_those_of_a_run_on_disk_and_a_second_run_skips_everything(
    undisturbed, on_bucket, bucket, model, make_experiment, tmp_path
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    first: Answer = on_bucket("run", experiment, "--model", model)
    assert first.code == 0, first
    assert tables_of(experiment) == undisturbed
    assert not (experiment / "Animal_A" / "Zarr").exists()
    there = store_of(bucket, experiment, "cell1").files()
    assert {f".respan/{stage}.json" for stage in STAGES} <= set(there)
    assert "labels/spines/0/zarr.json" in there
    again = on_bucket("run", experiment, "--model", model)
    assert again.each("skipped") == dict.fromkeys(("cell1", "cell2"), STAGES)
    assert Path(again.content["report"]).is_file()


def test_a_service_that_is_killed_changes_nothing_but_time(
    undisturbed, on_bucket, bucket, model, make_experiment, tmp_path
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    store = store_of(bucket, experiment, "cell1")
    begun = tmp_path / "scratch" / store.bucket / store.key / "partial" / "quantification"
    with on_bucket.running("run", experiment, "--model", model) as process:
        assert becomes_true(begun.is_dir, 300)
        killed = processes_of("respan_quantification", descendants(process.pid))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        answer = answer_of(process, timeout=500)
    assert killed
    assert answer.code == 0, answer
    assert tables_of(experiment) == undisturbed


def test_a_bucket_that_is_not_there_ends_the_run_with_its_name(
    on_bucket, model, make_experiment, tmp_path
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    elsewhere = CommandLine(on_bucket.environment | {"RESPAN_VOLUMES": "s3://nobodys/volumes"})
    answer = elsewhere("run", experiment, "--model", model)
    assert answer.code == 2
    assert "no bucket 'nobodys'" in answer.content["error"]

"""Keeping the containers going: backup, an upgrade, another machine, a reboot."""

from __future__ import annotations

import json
import os
import tarfile
import urllib.request

import pytest
from tests.e2e.containers import FINAL, PAGE_PORT, Stack, eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

OFFLINE = "deploy/compose.offline.yaml"
needs_own_engine = pytest.mark.skipif(
    "RESPAN_ENGINE" not in os.environ, reason="nobody's own Docker is restarted by a test"
)


def order_phantoms(stack: Stack, name: str, images: int = 1, width: int = 96) -> str:
    """Order a run that makes phantoms; wide ones take seconds each."""
    params = {"kind": "two-photon", "shape": [16, width, width], "images": images}
    return stack.order("synthesize", {"out": f"/data/{name}", "params": params})


def forget(run: str) -> None:
    """Delete a run from Prefect's database."""
    url = f"http://127.0.0.1:{PAGE_PORT}/api/flow_runs/{run}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


def runs_of(stack: Stack) -> set[str]:
    return {run["id"] for run in stack.ask("/flow_runs/filter", {"limit": 200})}


def test_a_restored_backup_holds_the_runs_that_were_lost(stack, tmp_path):
    run = order_phantoms(stack, "backed_up")
    assert stack.finished(run, 300) == "COMPLETED"
    backup = tmp_path / "backup"
    stack.command("deploy/backup.sh", str(backup))
    forget(run)
    assert run not in runs_of(stack)
    stack.command("deploy/restore.sh", str(backup))
    assert run in runs_of(stack)
    assert stack.finished(order_phantoms(stack, "after_restore"), 300) == "COMPLETED"


def test_a_damaged_backup_changes_nothing(stack, tmp_path):
    backup = tmp_path / "backup"
    stack.command("deploy/backup.sh", str(backup))
    backup.write_bytes(backup.read_bytes()[:-2000])
    before = runs_of(stack)
    done = stack.attempt("deploy/restore.sh", str(backup))
    assert done.returncode != 0
    assert "the database is as it was" in done.stderr
    assert runs_of(stack) == before


def test_nothing_is_restored_over_a_run_that_is_under_way(stack, tmp_path):
    backup = tmp_path / "backup"
    stack.command("deploy/backup.sh", str(backup))
    run = order_phantoms(stack, "in_the_way", images=200, width=320)
    eventually(lambda: stack.state_of(run) == "RUNNING", "the run's start")
    done = stack.attempt("deploy/restore.sh", str(backup))
    assert done.returncode != 0
    assert "runs are under way" in done.stderr
    stack.command("deploy/restore.sh", str(backup), "--force")
    assert run not in runs_of(stack)


def test_a_run_under_way_goes_on_after_an_upgrade(stack, tmp_path):
    run = order_phantoms(stack, "upgraded", images=12, width=320)
    images = stack.data / "upgraded" / "images"
    eventually(lambda: len(list(images.glob("*.tif"))) >= 2, "the first phantoms")
    made = {path: path.stat().st_mtime_ns for path in images.glob("*.tif")}
    before = stack.inspect("training")["Id"]
    # Newer images: all that differs is a label.
    done = stack.attempt("deploy/upgrade.sh", str(tmp_path / "backup"), RESPAN_REVISION="newer")
    assert done.returncode == 0, done.stderr
    assert "goes on as" in done.stderr
    assert stack.inspect("training")["Id"] != before
    assert stack.state_of(run) in FINAL
    eventually(lambda: len(list(images.glob("*.tif"))) == 12, "the last phantom", 600)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())


def test_a_machine_without_a_network_gets_all_it_needs_from_one_folder(stack, tmp_path):
    # One tiny image stands for all: it is removed, and comes back from the bundle.
    files = stack.files(OFFLINE)
    config = stack.config(files)
    assert not any("build" in service for service in config.values())
    assert {service["pull_policy"] for service in config.values()} == {"never"}
    tiny = "respan/test-only:1"
    content = tmp_path / "content.tar"
    with tarfile.open(content, "w") as archive:
        archive.add(__file__, "content")
    stack.docker("import", str(content), tiny)
    compose = tmp_path / "compose.yaml"
    compose.write_text(f"services: {{any: {{image: {tiny}}}}}\n")
    bundle = tmp_path / "bundle"
    stack.command("deploy/bundle.sh", str(bundle), COMPOSE_FILE=str(compose))
    stack.docker("rmi", tiny)
    said = stack.command(str(bundle / "load.sh"))
    assert "env.example" in said
    assert json.loads(stack.docker("inspect", tiny))
    assert (bundle / "models" / "two-photon").is_dir()
    with (bundle / "images.tar.gz").open("r+b") as archive:
        archive.write(b"not what it was")
    done = stack.attempt(str(bundle / "load.sh"))
    assert done.returncode != 0
    assert "damaged" in done.stderr


@needs_own_engine
def test_everything_comes_back_when_the_engine_starts_again(stack):
    engine = ["deploy/container_engine.sh"]
    stack.command(*engine, "pause", os.environ["RESPAN_ENGINE"])
    # The next engine believes that it has GPUs; that a container finds one is not checked here.
    stack.command(*engine, "start", os.environ["RESPAN_ENGINE"], GPU_STAND_IN="1")
    eventually(lambda: stack.is_healthy("worker"), "the worker")
    assert stack.finished(order_phantoms(stack, "after_reboot"), 300) == "COMPLETED"


@needs_own_engine
def test_the_default_file_asks_the_engine_for_one_gpu_for_each_of_three_stages(stack):
    stack.compose(
        "up",
        "--detach",
        "--no-build",
        "--no-deps",
        "restoration",
        "segmentation",
        "training",
        files="compose.yaml",
    )
    try:
        for name in ("restoration", "segmentation", "training"):
            (request,) = stack.inspect(name)["HostConfig"]["DeviceRequests"]
            assert (request["Driver"], request["Count"]) == ("nvidia", 1)
            assert request["Capabilities"] == [["gpu"]]
    finally:
        stack.up()

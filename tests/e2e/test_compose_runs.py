"""Experiments that the containers analyze: the embedded run's results, whatever happens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.e2e.command_line import CommandLine, tables_of
from tests.e2e.containers import ME, OWNER, PAGE_PORT, ROOT, Stack, eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

PHANTOM = ("--kind", "two-photon", "--shape", "28,288,288", "--snr", "easy", "--seed", "101")
IMAGE = "phantom"
MODEL = "two-photon"


@pytest.fixture(scope="module")
def embedded(private) -> CommandLine:
    """`respan` that starts services of its own, on this machine."""
    return CommandLine(private | {"RESPAN_MODEL_ROOTS": str(ROOT / "models")})


@pytest.fixture(scope="module")
def phantom(embedded, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    assert embedded("synth", out, *PHANTOM).code == 0
    return next((out / "images").glob("*.tif"))


@pytest.fixture(scope="module")
def expected(embedded, phantom, tmp_path_factory) -> dict[str, bytes]:
    """Tables of the embedded run."""
    folder = write_experiment(tmp_path_factory.mktemp("embedded") / "MyExperiment", phantom)
    assert embedded("run", folder, "--model", MODEL).code == 0
    tables = tables_of(folder)
    assert tables[f"Animal_A/Tables/{IMAGE}_detected_spines.csv"].count(b"\n") > 3
    return tables


@pytest.fixture(scope="module")
def analyzed(stack, phantom) -> tuple[str, Path]:
    """A run that was ordered on the page and lost its segmentation midway; its experiment."""
    folder = write_experiment(stack.data / "Ordered", phantom, OWNER)
    run = stack.order("analyze", {"experiment": "/data/Ordered", "model": MODEL})
    segmentation = folder / "Animal_A" / "Zarr" / f"{IMAGE}.ome.zarr" / ".respan"
    eventually((segmentation / "partial" / "segmentation").exists, "a segmentation")
    stack.kill("segmentation")
    assert not (segmentation / "segmentation.json").exists(), "killed too late"
    stack.finished(run, 900)
    return run, folder


def write_experiment(folder: Path, phantom: Path, owner: int = ME) -> Path:
    animal = folder / "Animal_A"
    animal.mkdir(parents=True)
    shutil.copyfile(phantom, animal / f"{IMAGE}.tif")
    (animal / "Analysis_Settings.yml").write_text("Parameters:\n  neuron_channel: 1\n")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, -1)
    return folder


def on_the_host(private: dict[str, str]) -> CommandLine:
    """`respan` on this machine with the containers' services, as deploy/host.env describes it."""
    lines = (ROOT / "deploy" / "host.env").read_text().splitlines()
    addresses = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    return CommandLine(
        private
        | addresses
        | {
            "PREFECT_API_URL": f"http://127.0.0.1:{PAGE_PORT}/api",
            "RESPAN_TOKEN": "secret",
            "RESPAN_MODEL_ROOTS": str(ROOT / "models"),
        }
    )


def runs_of(stack: Stack, experiment: str) -> int:
    named = {"flow_runs": {"name": {"any_": [f"analyze {experiment}"]}}}
    return int(stack.ask("/flow_runs/count", named))


def test_a_run_ordered_on_the_page_outlives_a_killed_stage(stack, analyzed):
    run, _ = analyzed
    assert stack.state_of(run) == "COMPLETED"
    assert stack.inspect("segmentation")["RestartCount"] == 1


def test_its_tables_are_those_of_the_embedded_run(analyzed, expected):
    _, folder = analyzed
    assert tables_of(folder) == expected


def test_results_belong_to_the_owner_of_the_data(analyzed):
    _, folder = analyzed
    assert {path.stat().st_uid for path in folder.rglob("*")} == {OWNER}


def test_the_next_start_of_the_containers_finds_everything_done(stack, analyzed):
    run, folder = analyzed
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/Tables/*_spines.csv")}
    stack.compose("down", "--timeout", "30")
    stack.up()
    assert stack.state_of(run) == "COMPLETED"  # the history has outlived its containers
    again = stack.order("analyze", {"experiment": "/data/Ordered", "model": MODEL})
    stack.finished(again, 120)
    assert stack.ask(f"/flow_runs/{again}")["state"]["name"] == "Completed"
    assert before == {path: path.stat().st_mtime_ns for path in before}
    answer = stack.inside("worker", "respan", "run", "/data/Ordered", "--model", MODEL, "--json")
    assert '"status": "skipped"' in answer


def segmentations(stack: Stack, container: str) -> int:
    """Images that a container of the segmentation has done, by its own count."""
    page = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    lines = stack.docker("exec", container, "python", "-c", page).splitlines()
    done = [line for line in lines if line.startswith("respan_requests_total{")]
    return sum(int(float(line.split()[-1])) for line in done if 'method="Segment"' in line)


def test_two_containers_of_a_stage_share_an_experiment(stack, analyzed, phantom, expected):
    folder = write_experiment(stack.data / "Shared", phantom, OWNER)
    for name in ("second", "third"):
        copy = folder / "Animal_A" / f"{name}.tif"
        shutil.copyfile(phantom, copy)
        os.chown(copy, OWNER, -1)
    stack.up("--scale", "segmentation=2")
    containers = stack.compose("ps", "--quiet", "segmentation").split()
    before = [segmentations(stack, container) for container in containers]
    try:
        run = stack.order("analyze", {"experiment": "/data/Shared", "model": MODEL})
        assert stack.finished(run, 900) == "COMPLETED"
        after = [segmentations(stack, container) for container in containers]
        assert sorted(new - old for old, new in zip(before, after, strict=True)) == [1, 2]
    finally:
        stack.up("--scale", "segmentation=1")
    tables = tables_of(folder)
    own = {name: text for name, text in expected.items() if f"/{IMAGE}_" in name}
    assert len(own) > 5
    assert {name: tables[name] for name in own} == own


def test_respan_on_the_host_uses_the_containers(stack, private, phantom, expected):
    folder = write_experiment(stack.data / "FromHost", phantom)
    # Host and containers write into the same stores, so they must be the same person.
    stack.up(files=stack.files("deploy/compose.host.yaml"), RESPAN_USER=f"{ME}:{os.getgid()}")
    answer = on_the_host(private)("run", folder, "--model", MODEL)
    assert answer.code == 0, answer
    assert tables_of(folder) == expected
    assert runs_of(stack, str(folder)) == 1

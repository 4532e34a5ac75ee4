"""Several replicas of each stage: images and pieces of images go to all, and no table differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.command_line import CommandLine, answer_of, tables_of
from tests.e2e.replicas import RunningService, address_of, running_services
from tests.hand_model import draw, write_hand_model, write_image
from tests.waiting import becomes_true

from respan_common.volumes import open_volume

pytestmark = pytest.mark.slow

SETTINGS = """\
Parameters:
  neuron_channel: 1
Quantification:
  min_dendrite_volume_um3: 1
"""
METHODS = {"segmentation": "Segment", "quantification": "Quantify"}
Running = dict[str, list[RunningService]]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def model(home) -> Path:
    return write_hand_model(home / "models" / "by_hand")


@contextmanager
def replicas(home: Path, count: int, name: str) -> Iterator[Running]:
    """So many replicas of each stage that is used."""
    settings = {"RESPAN_MODEL_ROOTS": str(home / "models")}
    with (
        running_services("segmentation", count, home / name, [home], **settings) as segmenting,
        running_services("quantification", count, home / name, [home], **settings) as measuring,
    ):
        yield {"segmentation": segmenting, "quantification": measuring}


def command_line(respan: CommandLine, running: Running, **settings: str) -> CommandLine:
    addresses = {
        f"RESPAN_{name.upper()}_ADDRESS": address_of(services) for name, services in running.items()
    }
    return CommandLine(respan.environment | addresses | settings)


def many_images(folder: Path) -> Path:
    """Five images in two sub-folders; one of them is no image."""
    places = {"A/cell1": (20, 48), "A/cell2": (30,), "B/cell1": (40, 60, 80), "B/cell4": (15, 70)}
    for place, spines in places.items():
        write_image(folder / f"{place}.tif", draw(spines))
        (folder / place).with_name("Analysis_Settings.yml").write_text(SETTINGS)
    (folder / "B" / "cell3.tif").write_text("not an image")
    return folder


def large_image(folder: Path) -> Path:
    """One image of four shards, one behind the other."""
    write_image(folder / "A" / "large.tif", np.tile(draw(shape=(24, 128, 96)), (1, 16, 1)))
    (folder / "A" / "Analysis_Settings.yml").write_text(SETTINGS)
    return folder


def labels_of(experiment: Path, name: str) -> dict[str, np.ndarray]:
    store = experiment / "A" / "Zarr" / f"{name}.ome.zarr"
    groups = ("labels/classes", "labels/spines", "labels/dendrites")
    return {group: open_volume(store, group).read() for group in groups}


@pytest.fixture(scope="module")
def alone(respan, home, model) -> Path:
    """Folder of both experiments, done by one replica of each stage."""
    with replicas(home, 1, "one") as running:
        run = command_line(respan, running)
        assert run("run", many_images(home / "alone" / "many"), "--model", model).code == 1
        assert run("run", large_image(home / "alone" / "large"), "--model", model).code == 0
    return home / "alone"


def test_images_go_to_all_replicas_and_the_tables_are_those_of_one(respan, home, model, alone):
    experiment = many_images(home / "many")
    with replicas(home, 2, "two") as running:
        answer = command_line(respan, running)("run", experiment, "--model", model)
        calls = {
            name: [service.calls(METHODS[name]) for service in services]
            for name, services in running.items()
        }
    assert [(image["sub_folder"], image["name"]) for image in answer.content["images"]] == [
        ("A", "cell1"),
        ("A", "cell2"),
        ("B", "cell1"),
        ("B", "cell3"),
        ("B", "cell4"),
    ]
    assert [image["status"] for image in answer.content["images"]].count("failed") == 1
    assert all(sum(each) == 4 and min(each) > 0 for each in calls.values()), calls
    assert tables_of(experiment) == tables_of(alone / "many")


def test_a_replica_that_is_killed_at_a_shared_image_changes_nothing(respan, home, model, alone):
    experiment = large_image(home / "large")
    draft = experiment / "A/Zarr/large.ome.zarr/.respan/partial/segmentation/.respan/done.log"
    with replicas(home, 2, "killed") as running:
        run = command_line(respan, running, RESPAN_SHARE_FROM_VOXELS="1")
        with run.running("run", experiment, "--model", model) as process:
            assert becomes_true(lambda: draft.exists() and bool(draft.read_text()), 200)
            running["segmentation"][0].process.kill()
            answer = answer_of(process, 300)
        survivor, others = running["segmentation"][1], running["quantification"]
        assert survivor.calls("Segment") == 1
        assert [service.calls("Quantify") for service in others] == [1, 1]
    assert answer.code == 0, answer
    assert tables_of(experiment) == tables_of(alone / "large")
    found, expected = labels_of(experiment, "large"), labels_of(alone / "large", "large")
    for group, labels in expected.items():
        np.testing.assert_array_equal(found[group], labels)

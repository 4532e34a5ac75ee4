from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.unit.respan_common.stores import (
    FOUR_SHARDS,
    KEY,
    SPACING,
    content,
    publish_image,
    publish_labels,
    ramp,
    write_blocks,
)

from respan_common import publication
from respan_common.drafts import drafting, drafting_store
from respan_common.errors import CancelledError, VolumeFormatError, VolumeNotFoundError
from respan_common.events import Reporter, SilentReporter
from respan_common.locks import exclusive
from respan_common.records import StageKey, read_record
from respan_common.volumes import exists, open_volume

SCRIPT = Path(__file__).with_name("killed_stage.py")


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "cell 1.ome.zarr"
    publish_image(folder, ramp((1, 5, 30, 40)))
    return folder


def stage(store: Path, pause_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(store), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.split()


def test_what_was_published_is_found_with_its_numbers(store):
    values = ramp((5, 30, 40), np.uint8)
    written = publish_labels(store, values)
    record = read_record(store, "segmentation")
    assert record == written
    assert record.numbers == {"spines": 3.0}
    assert record.warnings == ["a warning"]
    assert set(record.outputs) == {"labels/classes", "tables/spines.parquet"}
    assert (store / "tables/spines.parquet").read_bytes() == b"a table"
    assert np.array_equal(open_volume(store, "labels/classes").read(), values)
    assert not (store / ".respan" / "partial" / "segmentation").exists()


def test_the_same_work_is_not_done_twice(store):
    first = publish_labels(store, ramp((5, 30, 40)))
    before = content(store)
    second = publish_labels(store, ramp((5, 30, 40)))
    assert (first.is_old, second.is_old) == (False, True)
    assert content(store) == before


def test_other_parameters_replace_the_result(store):
    publish_labels(store, ramp((5, 30, 40)))
    other = dataclasses.replace(KEY, params={"channel": 2})
    record = publish_labels(store, np.full((5, 30, 40), 7, np.uint16), other)
    assert not record.is_old
    assert np.all(open_volume(store, "labels/classes").read() == 7)


def test_what_is_not_published_any_more_is_removed(store):
    publish_labels(store, ramp((5, 30, 40)), group="labels/necks")
    other = dataclasses.replace(KEY, params={"channel": 2})
    publish_labels(store, ramp((5, 30, 40)), other, group="labels/spines")
    assert not exists(store, "labels/necks")
    assert not (store / "labels" / "necks").exists()
    assert exists(store, "labels/spines")


def test_a_damaged_result_is_made_again(store):
    publish_labels(store, ramp((5, 30, 40)))
    shutil.rmtree(store / "labels" / "classes" / "0" / "c")
    record = publish_labels(store, ramp((5, 30, 40)))
    assert not record.is_old
    assert np.array_equal(open_volume(store, "labels/classes").read(), ramp((5, 30, 40)))


def test_a_killed_stage_ends_with_the_same_bytes_and_only_the_missing_blocks(store, tmp_path):
    undisturbed = tmp_path / "undisturbed.ome.zarr"
    shutil.copytree(store, undisturbed)
    assert said(stage(undisturbed, 0)) == ["started", "0", "1", "2", "3", "published"]

    victim = stage(store, 1000)
    assert [victim.stdout.readline().strip() for _ in range(2)] == ["started", "0"]
    victim.kill()
    victim.communicate()
    assert not exists(store, "labels/classes")
    assert said(stage(store, 0)) == ["started", "1", "2", "3", "published"]

    ours, theirs = content(store / "labels"), content(undisturbed / "labels")
    assert ours == theirs


def test_a_killed_stage_with_another_key_leaves_nothing_behind(store):
    with drafting(store, KEY, SilentReporter()) as draft:
        writer = draft.labels("labels/classes", FOUR_SHARDS, SPACING, np.uint16)
        write_blocks(draft, writer, ramp(FOUR_SHARDS), "classes")
    other = dataclasses.replace(KEY, model_digest="another")
    with drafting(store, other, SilentReporter()) as draft:
        assert not draft.is_done("classes 0")
        assert not (draft.folder / "labels").exists()


def test_a_token_that_a_full_disk_cut_short_is_not_believed(store):
    with drafting(store, KEY, SilentReporter()) as draft:
        draft.mark_done("classes 2")
        with (draft.folder / ".respan" / "done.log").open("a") as log:
            log.write("classes 1")  # ... 2\n
    with drafting(store, KEY, SilentReporter()) as draft:
        assert draft.is_done("classes 2")
        assert not draft.is_done("classes 1")


def test_a_forgotten_block_is_an_error_and_not_for_ever(store):
    for _ in range(2):
        with drafting(store, KEY, SilentReporter()) as draft:
            assert not draft.is_done("classes 0")
            draft.mark_done("classes 0")  # ... but it was never written
            draft.labels("labels/classes", FOUR_SHARDS, SPACING, np.uint16)
            with pytest.raises(VolumeFormatError, match="0 of 4 shards"):
                draft.publish()
    assert not exists(store, "labels/classes")


def test_a_block_of_zeros_is_written_like_any_other(store):
    publish_labels(store, np.zeros(FOUR_SHARDS, np.uint8))
    assert not open_volume(store, "labels/classes").read().any()
    assert len(list((store / "labels/classes/0/c").rglob("*/*/*"))) >= 4


def crash_after(moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process "die" once so many outputs have been moved."""
    replace, count = publication._replace, [0]

    def dying(source: Path, target: Path) -> None:
        if count[0] == moves:
            raise KeyboardInterrupt
        count[0] += 1
        replace(source, target)

    monkeypatch.setattr(publication, "_replace", dying)


@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_next_attempt_finishes_a_publication_that_crashed(store, monkeypatch, moves, is_first):
    values = ramp((5, 30, 40))
    if not is_first:
        publish_labels(store, values * 2, dataclasses.replace(KEY, model_digest="older"))
    with monkeypatch.context() as patch:
        crash_after(moves, patch)
        with pytest.raises(KeyboardInterrupt):
            publish_labels(store, values)
    assert read_record(store, "segmentation") is None
    with pytest.raises(VolumeNotFoundError):
        open_volume(store, "labels/classes")
    with drafting(store, KEY, SilentReporter()) as draft:
        assert draft.finished is not None
    assert np.array_equal(open_volume(store, "labels/classes").read(), values)
    assert (store / "tables/spines.parquet").is_file()


def test_a_crash_between_the_two_renames_of_one_group_is_repaired(store, monkeypatch):
    publish_labels(store, ramp((5, 30, 40)) * 2, dataclasses.replace(KEY, model_digest="older"))

    def dying(self: Path, target: Path) -> Path:
        if self.name == "classes" and not target.name.startswith("."):
            raise KeyboardInterrupt
        return original(self, target)

    original = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            publish_labels(store, ramp((5, 30, 40)))
    assert not (store / "labels" / "classes").exists()
    assert publish_labels(store, ramp((5, 30, 40))).is_old
    assert np.array_equal(open_volume(store, "labels/classes").read(), ramp((5, 30, 40)))
    assert not (store / "labels" / ".classes.old").exists()


def test_a_new_store_whose_publication_crashed_is_published_by_the_next_attempt(store, monkeypatch):
    publish_labels(store, ramp((5, 30, 40)))
    with monkeypatch.context() as patch:
        crash_after(0, patch)
        with pytest.raises(KeyboardInterrupt):
            publish_image(store, ramp((2, 5, 30, 40)), raw="other")
    assert open_volume(store).channels == 1
    assert not publish_image(store, ramp((2, 5, 30, 40)), raw="other").is_old
    assert open_volume(store).channels == 2
    assert not exists(store, "labels/classes")
    assert [path.name for path in store.parent.glob(".*") if path.is_dir()] == []


def test_a_crash_while_the_draft_is_deleted_does_not_leave_half_a_draft(store, monkeypatch):
    def dying(folder: Path, **_: bool) -> None:
        (folder / ".respan" / "publishing.json").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(publication.shutil, "rmtree", dying)
        publish_labels(store, ramp((5, 30, 40)))
    shutil.rmtree(store / "labels")
    assert not publish_labels(store, ramp((5, 30, 40))).is_old
    assert np.array_equal(open_volume(store, "labels/classes").read(), ramp((5, 30, 40)))


def test_of_two_processes_one_works_and_the_other_skips(store):
    both = [stage(store, 0.2), stage(store, 0.2)]
    answers = sorted(said(process) for process in both)
    assert answers == [["started", "0", "1", "2", "3", "published"], ["started", "skipped"]]


def test_a_caller_who_is_gone_does_not_wait_for_the_lock(store):
    gone = Reporter(lambda event: None, lambda: True)
    with (
        exclusive(store / ".respan" / "segmentation.lock", lambda: None),
        pytest.raises(CancelledError),
        drafting(store, KEY, gone),
    ):
        pytest.fail("the lock was taken")


def test_a_number_that_is_not_finite_is_missing_and_does_not_spoil_the_record(store):
    with drafting(store, KEY, SilentReporter()) as draft:
        draft.publish({"length_um": math.nan, "spines": 2.0, "density_per_um": math.inf})
    assert read_record(store, "segmentation").numbers == {"spines": 2.0}


def test_a_stage_cannot_replace_the_raw_image_of_a_store(store):
    with (
        drafting(store, KEY, SilentReporter()) as draft,
        pytest.raises(AssertionError, match="raw image"),
    ):
        draft.image("", (1, 5, 30, 40), SPACING, np.uint16, ["a"])
    assert open_volume(store).shape_zyx == (5, 30, 40)


def test_labels_of_a_new_store_are_listed(tmp_path):
    key = StageKey("synthesize", {})
    store = tmp_path / "phantom.ome.zarr"
    with drafting_store(store, key, SilentReporter()) as draft:
        image = draft.image("", (1, 5, 30, 40), SPACING, np.uint16, ["neuron"])
        write_blocks(draft, image, ramp((1, 5, 30, 40)), "raw")
        labels = draft.labels("labels/spines", (5, 30, 40), SPACING, np.uint32)
        write_blocks(draft, labels, ramp((5, 30, 40)), "spines")
        draft.publish()
    assert '"spines"' in (store / "labels" / "zarr.json").read_text()
    assert open_volume(store, "labels/spines").digest == key.digest


def test_a_table_is_published_with_its_group_and_listed(store):
    with drafting(store, KEY, SilentReporter()) as draft:
        draft.table("spines", {"type": "feature_table"}).write_bytes(b"rows")
        record = draft.publish()
    assert set(record.outputs) == {"tables/spines/table.parquet", "tables/spines/zarr.json"}
    assert json.loads((store / "tables/zarr.json").read_text())["attributes"] == {
        "tables": ["spines"]
    }
    group = json.loads((store / "tables/spines/zarr.json").read_text())
    assert group["attributes"]["type"] == "feature_table"


def test_a_table_that_is_published_no_more_is_listed_no_more(store):
    with drafting(store, KEY, SilentReporter()) as draft:
        draft.table("spines", {}).write_bytes(b"rows")
        draft.publish()
    with drafting(store, dataclasses.replace(KEY, model_digest="2"), SilentReporter()) as draft:
        draft.table("dendrites", {}).write_bytes(b"rows")
        draft.publish()
    listed = json.loads((store / "tables/zarr.json").read_text())["attributes"]
    assert listed == {"tables": ["dendrites"]}

"""Stores in a bucket keep the promises of stores on a file system."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from tests.object_store import make_bucket, serving_objects
from tests.unit.respan_common.stores import (
    FOUR_SHARDS,
    KEY,
    SPACING,
    publish_image,
    publish_labels,
    ramp,
    write_blocks,
)

from respan_common import volumes
from respan_common.buckets import BucketPath
from respan_common.drafts import draft_folder, drafting
from respan_common.errors import (
    InputError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from respan_common.events import SilentReporter
from respan_common.records import read_record, record_path
from respan_common.roots import resolve_store
from respan_common.volumes import exists, open_volume

RAW = ramp((2, 5, 30, 40))
CLASSES = ramp((5, 30, 40), np.uint8)


@pytest.fixture
def store(bucket):
    place = bucket / "Animal A" / "cell 1.ome.zarr"
    publish_image(place, RAW)
    return place


def published(store: BucketPath) -> dict[str, bytes]:
    return {name: (store / name).read_bytes() for name in store.files() if ".respan" not in name}


def test_what_was_published_is_found_with_its_numbers(store):
    written = publish_labels(store, CLASSES)
    assert read_record(store, "segmentation") == written
    volume = open_volume(store)
    assert np.array_equal(np.stack([volume.read(channel=1), volume.read(channel=2)]), RAW)
    assert volume.channel_names == ["channel 1", "channel 2"]
    assert volume.spacing == SPACING
    assert np.array_equal(open_volume(store, "labels/classes").read(), CLASSES)
    assert (store / "tables/spines.parquet").read_bytes() == b"a table"
    listed = json.loads((store / "labels" / "zarr.json").read_text())
    assert listed["attributes"]["ome"]["labels"] == ["classes"]
    assert not draft_folder(store, "segmentation").exists()


def test_a_store_has_the_same_files_as_on_a_file_system(store, tmp_path):
    publish_labels(store, CLASSES)
    local = tmp_path / store.name
    publish_image(local, RAW)
    publish_labels(local, CLASSES)
    files = [path for path in local.rglob("*") if path.is_file() and ".respan" not in path.parts]
    assert published(store) == {
        path.relative_to(local).as_posix(): path.read_bytes() for path in files
    }


def test_only_a_part_of_an_array_is_read_for_a_part_of_an_image(bucket):
    store, values = bucket / "large.ome.zarr", ramp((1, *FOUR_SHARDS))
    publish_image(store, values)
    box = (slice(1, 3), slice(500, 520), slice(0, 7))
    volume = open_volume(store)
    (store / "0/c/0/0/0/1").unlink()
    assert volume.shape_zyx == FOUR_SHARDS
    with pytest.raises(VolumeFormatError, match="damaged"):
        volume.read()
    assert np.array_equal(volume.read(box), values[0][box])


def test_the_same_work_is_not_done_twice(store):
    assert publish_image(store, RAW).is_old
    assert not publish_labels(store, CLASSES).is_old
    assert publish_labels(store, CLASSES).is_old


def test_other_parameters_replace_the_result_and_leave_nothing_of_it(store):
    publish_labels(store, CLASSES, group="labels/old")
    other = dataclasses.replace(KEY, params={"channel": 2})
    publish_labels(store, CLASSES * 2, other)
    assert np.array_equal(open_volume(store, "labels/classes").read(), CLASSES * 2)
    assert not (store / "labels" / "old").is_dir()
    listed = json.loads((store / "labels" / "zarr.json").read_text())
    assert listed["attributes"]["ome"]["labels"] == ["classes"]


def test_another_image_replaces_the_whole_store(store):
    publish_labels(store, CLASSES)
    publish_image(store, RAW[:1], raw="other")
    assert open_volume(store).channels == 1
    assert not exists(store, "labels/classes")
    assert not (store / "labels").is_dir()


@pytest.mark.parametrize("name", ["0/c/0/0/0/0", "zarr.json"])
def test_a_missing_object_is_an_error_and_no_background(store, name):
    store.remove([name])
    with pytest.raises(VolumeFormatError, match=r"raw image.*redo"):
        open_volume(store)


def test_an_object_of_another_size_is_an_error(store):
    (store / "0/c/0/0/0/0").write_bytes(b"x")
    with pytest.raises(VolumeFormatError, match="damaged"):
        open_volume(store)
    assert not publish_image(store, RAW).is_old
    assert np.array_equal(open_volume(store).read(), RAW[0])


def test_without_its_record_nothing_is_believed(store):
    publish_labels(store, CLASSES)
    record_path(store, "segmentation").unlink()
    assert not exists(store, "labels/classes")
    with pytest.raises(VolumeNotFoundError, match="no finished 'labels/classes'"):
        open_volume(store, "labels/classes")


def test_a_store_that_is_not_there_is_named(bucket):
    with pytest.raises(VolumeNotFoundError, match=r"no OME-Zarr at s3://.*nothing\.ome\.zarr"):
        open_volume(bucket / "nothing.ome.zarr")


def test_a_server_that_is_gone_while_an_image_is_read_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "_S3_RETRIES", {"max_retries": 1})
    monkeypatch.setenv("RESPAN_SCRATCH", str(tmp_path))
    volumes._context.cache_clear()
    with serving_objects() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        make_bucket(environment, "for-a-moment")
        publish_image(BucketPath("for-a-moment", "cell.ome.zarr"), RAW)
        volume = open_volume(BucketPath("for-a-moment", "cell.ome.zarr"))
        assert volume.shape_zyx == RAW.shape[1:]
    with pytest.raises(StorageError, match=r"s3://for-a-moment/cell.ome.zarr .*AWS_ENDPOINT_URL"):
        volume.read()
    volumes._context.cache_clear()


class PowerCut(BaseException):
    pass


def cut_power_after(uploads: int, patch: pytest.MonkeyPatch) -> None:
    """Let the process "die" once so many objects of a store have been uploaded."""
    write, count = BucketPath.write_bytes, [0]

    def dying(self: BucketPath, content: bytes) -> None:
        if count[0] == uploads:
            raise PowerCut
        count[0] += 1
        write(self, content)

    patch.setattr(BucketPath, "write_bytes", dying)
    patch.setattr("respan_common.buckets._UPLOADS_AT_ONCE", 1)


@pytest.mark.parametrize("uploads", [0, 3])
@pytest.mark.parametrize("scratch_is_lost", [False, True])
def test_an_interrupted_publication_is_not_believed_and_the_next_attempt_ends_it(
    store, monkeypatch, tmp_path, uploads, scratch_is_lost
):
    publish_labels(store, CLASSES * 2, dataclasses.replace(KEY, model_digest="older"))
    with monkeypatch.context() as patch:
        cut_power_after(uploads, patch)
        with pytest.raises(PowerCut):
            publish_labels(store, CLASSES)
    assert not exists(store, "labels/classes")
    if scratch_is_lost:
        monkeypatch.setenv("RESPAN_SCRATCH", str(tmp_path / "another machine"))
    assert publish_labels(store, CLASSES).is_old is not scratch_is_lost
    assert np.array_equal(open_volume(store, "labels/classes").read(), CLASSES)


@pytest.mark.parametrize("uploads", [0, 2])
def test_an_interrupted_new_store_is_not_believed(store, monkeypatch, uploads):
    publish_labels(store, CLASSES)
    with monkeypatch.context() as patch:
        cut_power_after(uploads, patch)
        with pytest.raises(PowerCut):
            publish_image(store, RAW[:1], raw="other")
    assert not exists(store, "")
    assert publish_image(store, RAW[:1], raw="other").is_old
    assert open_volume(store).channels == 1
    assert not (store / "labels").is_dir()


def test_finished_blocks_are_found_again_on_the_same_scratch_disk(store):
    values = ramp(FOUR_SHARDS)
    with drafting(store, KEY, SilentReporter()) as draft:
        writer = draft.labels("labels/classes", FOUR_SHARDS, SPACING, values.dtype)
        assert write_blocks(draft, writer, values, "classes") == [0, 1, 2, 3]
    with drafting(store, KEY, SilentReporter()) as draft:
        writer = draft.labels("labels/classes", FOUR_SHARDS, SPACING, values.dtype)
        assert write_blocks(draft, writer, values, "classes") == []
        draft.publish()
    assert np.array_equal(open_volume(store, "labels/classes").read(), values)


def test_of_two_replicas_with_disks_of_their_own_the_second_takes_what_the_first_published(
    store, monkeypatch, tmp_path
):
    with drafting(store, KEY, SilentReporter()) as late:
        labels = late.labels("labels/classes", CLASSES.shape, SPACING, CLASSES.dtype)
        write_blocks(late, labels, CLASSES, "classes")
        with monkeypatch.context() as patch:
            patch.setenv("RESPAN_SCRATCH", str(tmp_path / "another machine"))
            first = publish_labels(store, CLASSES)
        before = published(store)
        late.publish()
    assert published(store) == before
    assert read_record(store, "segmentation") == first


def test_a_scratch_disk_that_cannot_be_written_is_named_with_its_variable(
    store, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESPAN_SCRATCH", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file.*RESPAN_SCRATCH"):
        publish_labels(store, CLASSES)


def test_a_request_may_name_stores_below_the_buckets_folder_only(bucket, tmp_path):
    inside = bucket / "Animal A" / "cell 1.ome.zarr"
    assert resolve_store(str(inside), [], bucket) == inside
    assert resolve_store(str(tmp_path / "x"), [tmp_path], bucket) == tmp_path / "x"
    outside = r"volume\.uri .* outside .*My Volumes.*RESPAN_VOLUMES"
    for uri in (f"{bucket}", f"{bucket}x/a", f"s3://{bucket.bucket}/a", "s3://other/My Volumes/a"):
        with pytest.raises(InputError, match=outside):
            resolve_store(uri, [tmp_path], bucket, "volume.uri")
    with pytest.raises(InputError, match=r"volume\.uri"):
        resolve_store(f"{bucket}/../a", [tmp_path], bucket, "volume.uri")
    with pytest.raises(InputError, match="nothing"):
        resolve_store(str(inside), [tmp_path], None)


def test_who_has_no_bucket_does_not_load_its_library():
    code = "import sys, respan_common.drafts; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

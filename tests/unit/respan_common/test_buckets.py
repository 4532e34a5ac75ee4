from __future__ import annotations

import subprocess
import sys

import pytest
from tests.object_store import KEYS, refusing_unknown_keys, without_credentials

from respan_common import buckets
from respan_common.buckets import BucketPath
from respan_common.errors import InputError, StorageError


def test_a_path_is_written_as_it_was_read():
    path = BucketPath.parse("s3://lab/My Experiment/50%20/ñ.ome.zarr/")
    assert (path.bucket, path.key) == ("lab", "My Experiment/50%20/ñ.ome.zarr")
    assert BucketPath.parse(str(path)) == path
    assert (path.name, path.stem, path.suffix) == ("ñ.ome.zarr", "ñ.ome", ".zarr")
    assert str(path / "" / "0") == "s3://lab/My Experiment/50%20/ñ.ome.zarr/0"


@pytest.mark.parametrize(
    "uri", ["", "lab/x", "s3://", "s3:///x", "s3://lab/a//b", "s3://lab/../x", "s3://lab/./x"]
)
def test_what_is_no_place_in_a_bucket_is_refused(uri):
    with pytest.raises(InputError, match="s3://bucket/folder"):
        BucketPath.parse(uri)


@pytest.mark.parametrize(
    ("inner", "is_below"),
    [("s3://lab/a", True), ("s3://lab/a/b", True), ("s3://lab/ab", False), ("s3://it/a/b", False)],
)
def test_a_key_lies_below_another_at_a_slash_only(inner, is_below):
    assert BucketPath.parse(inner).is_relative_to(BucketPath.parse("s3://lab/a")) is is_below


def test_objects_are_written_found_and_removed(bucket, tmp_path):
    (tmp_path / "part").write_bytes(b"123")
    bucket.upload({"a/0/c": tmp_path / "part", "a/zarr.json": tmp_path / "part"})
    (bucket / "ab").write_bytes(b"1")
    assert (bucket / "a").files() == {"0/c": 3, "zarr.json": 3}
    assert [str(path) for path in bucket.glob("*/zarr.json")] == [f"{bucket}/a/zarr.json"]
    assert ((bucket / "a").is_dir(), (bucket / "a").is_file()) == (True, False)
    assert ((bucket / "ab").is_dir(), (bucket / "ab").is_file()) == (False, True)
    (bucket / "a").remove(["0/c", "never there"])
    (bucket / "a" / "zarr.json").unlink()
    assert bucket.files() == {"ab": 1}


def test_what_is_not_there_is_said_as_by_a_file_system(bucket):
    with pytest.raises(FileNotFoundError, match="s3://"):
        (bucket / "nothing").read_bytes()
    with pytest.raises(FileNotFoundError):
        (bucket / "nothing").unlink()
    (bucket / "nothing").unlink(missing_ok=True)


def test_more_objects_are_listed_and_removed_than_one_request_can_name(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    monkeypatch.setattr(buckets, "_DELETED_AT_ONCE", 3)
    (tmp_path / "part").write_bytes(b"")
    names = [f"{number:04}" for number in range(7)]
    bucket.upload(dict.fromkeys(names, tmp_path / "part"))
    assert list(bucket.files()) == names
    bucket.remove(names)
    assert bucket.files() == {}


def test_a_bucket_that_is_not_there_is_named_with_its_server(bucket):
    with pytest.raises(StorageError, match=r"no bucket 'nobodys' at http://.*RESPAN_VOLUMES"):
        BucketPath("nobodys", "x").is_dir()


def test_a_server_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"s3://lab/x .*http://127.0.0.1:9 .AWS_ENDPOINT_URL"):
        BucketPath("lab", "x").is_dir()


def test_missing_credentials_are_asked_for_by_their_variables(bucket, tmp_path):
    code = f"from respan_common.buckets import BucketPath; BucketPath.parse('{bucket}').files()"
    empty = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_credentials() | empty,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "StorageError" in done.stderr
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stderr


def test_refused_credentials_say_so(bucket, object_store):
    with (
        refusing_unknown_keys(object_store),
        pytest.raises(StorageError, match=r"is refused .*AWS_ACCESS_KEY_ID"),
    ):
        (bucket / "x").read_bytes()

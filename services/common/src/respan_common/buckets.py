"""Objects of an object store (S3), by paths as files have them. The only module that knows S3.

    store = BucketPath.parse("s3://lab/volumes/MyExperiment/cell1.ome.zarr")
    (store / "tables" / "spines.parquet").read_bytes()

Address, region and credentials are those of every other S3 client: `AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID` and so on in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from respan_common.errors import InputError, StorageError

_SCHEME = "s3://"
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_REFUSED = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_DELETED_AT_ONCE = 1000
_UPLOADS_AT_ONCE = 8


@dataclass(frozen=True, order=True)
class BucketPath:
    """An object, or all objects whose keys begin with this one and a slash.

    Its methods are called and behave as those of `pathlib.Path`; what is not there raises
    FileNotFoundError, and whatever else goes wrong StorageError.
    """

    bucket: str
    key: str
    """Never with a slash at either end; empty: the whole bucket."""

    @classmethod
    def parse(cls, uri: str) -> BucketPath:
        """Path of an s3:// URI; a slash at its end does not matter.

        Raises
        ------
        InputError
            If it is none, or has empty parts, `.` or `..`: an object store takes them for names.
        """
        bucket, _, key = uri.removeprefix(_SCHEME).rstrip("/").partition("/")
        parts = key.split("/") if key else []
        if not is_bucket_uri(uri) or not bucket or {"", ".", ".."} & set(parts) or "\0" in uri:
            raise InputError(f"'{uri}' is not a place in a bucket, such as s3://bucket/folder")
        return cls(bucket, key)

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(self.bucket, "/".join(part for part in (self.key, name) if part))

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Name without its last suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Last suffix of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    def relative_to(self, other: BucketPath) -> PurePosixPath:
        """The part of the key below another one."""
        return PurePosixPath(self.key).relative_to(other.key)

    def is_relative_to(self, other: BucketPath) -> bool:
        """Whether this is the other one, or lies below it."""
        return self.bucket == other.bucket and f"{self.key}/".startswith(
            f"{other.key}/" if other.key else ""
        )

    def is_file(self) -> bool:
        """Whether there is an object of this very key."""
        return self.size() is not None

    def size(self) -> int | None:
        """Bytes of the object; None if there is none."""
        try:
            with _answering(self):
                return int(_client().head_object(Bucket=self.bucket, Key=self.key)["ContentLength"])
        except FileNotFoundError:
            return None

    def is_dir(self) -> bool:
        """Whether there is any object below."""
        with _answering(self):
            found = _client().list_objects_v2(Bucket=self.bucket, Prefix=self._below, MaxKeys=1)
        return bool(found.get("KeyCount"))

    def files(self) -> dict[str, int]:
        """Bytes of every object below, by its key from here on."""
        with _answering(self):
            pages = _client().get_paginator("list_objects_v2")
            return {
                entry["Key"].removeprefix(self._below): int(entry["Size"])
                for page in pages.paginate(Bucket=self.bucket, Prefix=self._below)
                for entry in page.get("Contents", ())
            }

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Objects below whose keys fit a pattern part by part, such as `*/zarr.json`."""
        wanted = pattern.split("/")
        for name in self.files():
            parts = name.split("/")
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield self / name

    def read_bytes(self) -> bytes:
        """Content of the object."""
        with _answering(self):
            answer = _client().get_object(Bucket=self.bucket, Key=self.key)
            return bytes(answer["Body"].read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """Content of the object, as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Make or replace the object: whoever reads sees the old one or the new one, whole."""
        with _answering(self):
            _client().put_object(Bucket=self.bucket, Key=self.key, Body=content)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(str(self))
        self.remove([""])

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects below, named as `files` does; those that are not there do not matter."""
        keys = [(self / name).key for name in names]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            with _answering(self):
                answer = _client().delete_objects(
                    Bucket=self.bucket, Delete={"Objects": some, "Quiet": True}
                )
            for error in answer.get("Errors", ()):
                raise StorageError(
                    f"{_SCHEME}{self.bucket}/{error['Key']} cannot be removed: {error['Message']}"
                )

    def upload(self, files: Mapping[str, Path]) -> None:
        """Make objects below from files, several at a time."""

        def put(name: str) -> None:
            (self / name).write_bytes(files[name].read_bytes())

        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
            for _ in pool.map(put, files):
                pass

    def kvstore(self) -> dict[str, Any]:
        """The objects below, as tensorstore is told of them."""
        spec: dict[str, Any] = {"driver": "s3", "bucket": self.bucket, "path": self._below}
        spec["aws_region"] = _region()
        if endpoint := _endpoint():
            spec["endpoint"] = endpoint.rstrip("/")
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            # The default, all sources in turn, complains of each file that is not there.
            spec["aws_credentials"] = {"type": "environment"}
        return spec

    @property
    def _below(self) -> str:
        return f"{self.key}/" if self.key else ""


Location = Path | BucketPath
"""Where a store, or a part of one, lies: on a file system or in a bucket."""


def is_bucket_uri(uri: str) -> bool:
    """Whether a URI names something in a bucket."""
    return uri.startswith(_SCHEME)


@contextmanager
def _answering(path: BucketPath) -> Iterator[None]:
    """Say in words what the object store, or the way to it, has against a request."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in _ABSENT:
            raise FileNotFoundError(str(path)) from error
        raise StorageError(_refusal(path, code, str(error))) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise StorageError(
            f"{path} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be reached at {_endpoint() or 'Amazon S3'} (AWS_ENDPOINT_URL): {error}"
        ) from error


def _refusal(path: BucketPath, code: str, text: str) -> str:
    if code == "NoSuchBucket":
        return (
            f"there is no bucket '{path.bucket}' at {_endpoint() or 'Amazon S3'} "
            "(AWS_ENDPOINT_URL): make it, or name another one in RESPAN_VOLUMES"
        )
    if code in _REFUSED:
        return (
            f"{path} is refused ({code}): the credentials in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY are wrong, or may not list, read, write and delete there"
        )
    return f"{path}: the object store says {text}"


def _client() -> Any:
    return _client_of(_endpoint(), _region())


@cache
def _client_of(endpoint: str | None, region: str) -> Any:
    """One client per process; it may be used by several threads."""
    # Loaded by those alone who have a bucket: it takes as long as everything else together.
    import botocore.session
    from botocore.config import Config

    config = Config(
        # Most servers but Amazon's have one host name for all buckets.
        s3={"addressing_style": "path"} if endpoint else {},
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * _UPLOADS_AT_ONCE,
        # Servers that are not Amazon's may not know newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return botocore.session.get_session().create_client(
        "s3", region_name=region, endpoint_url=endpoint, config=config
    )


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
